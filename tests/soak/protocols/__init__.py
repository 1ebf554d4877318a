# SPDX-License-Identifier: MIT
"""Hostile input for all that the daemon and its processes parse.

inputs.py says what each parser promises. run.py tries one of them, blindly or guided by what the input reaches;
controls.py has the bugs that must be found in copies of the project. varlink.py and dbus.py talk to the real daemon.
`python -m tests.soak.protocols` does all of it at length, `test_*.py` briefly.
"""
