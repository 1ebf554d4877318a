# SPDX-License-Identifier: MIT
"""One unprivileged user with thousands of connections to each of our sockets, and what others notice of it.

doors.py says how each socket is spoken to. hog.py is the hostile user, asker.py another one with honest questions, both
processes with real uids. world.py has the real servers. `python -m tests.soak.callers` measures, test_callers.py proves
in short that others are served and that all counts are bounded.
"""
