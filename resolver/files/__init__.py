# SPDX-License-Identifier: MIT
"""Trees of files: copied as `cp -a` does, and removed. Blocking, and for processes that can be killed (worker/) alone.

Whoever may change a tree while it is worked on may lay traps. So nothing here goes by a path of more than one name:
each thing is opened in the directory that is open already, symlinks are never followed, and what is no regular file or
directory is never opened. Depth and number of files cost no more than is said in directories.py.

From below: kernel, paths, progress, failures; entries, directories, attributes; read; content, delete, workspace,
write; copy and remove, which are what others use.
"""
