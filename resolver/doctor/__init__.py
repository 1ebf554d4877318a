# SPDX-License-Identifier: MIT
"""Checks everything between a program and its answer (`mymachinesctl doctor`).

A check is a function that gives findings; checks.py has them all and sees to it that none hangs. Whatever goes through
NSS is done by child.py in a process of its own, which children.py kills at a deadline: a broken module can hang or
crash whoever calls it. Nothing here prints.
"""
