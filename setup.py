# SPDX-License-Identifier: MIT
"""What pyproject.toml cannot say: that the extension is built by cffi. All else stands there."""

from setuptools import setup

setup(cffi_modules=["build_nss.py:ffibuilder"])
