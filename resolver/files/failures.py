# SPDX-License-Identifier: MIT
"""What an error of the operating system means to the person who asked."""

import errno
import os
from collections.abc import Mapping

from resolver.core.errors import FileExists, FileNotFound, MachineError, NotAvailable
from resolver.files.paths import shown
from resolver.files.progress import Progress

KINDS: Mapping[int | None, type[MachineError]] = {errno.EEXIST: FileExists, errno.ENOENT: FileNotFound}
"""Those that clients tell apart. All others are NotAvailable."""


def failure(error: OSError, progress: Progress | None = None) -> MachineError:
    """The error, with the path, the reason, and how far the work had come."""
    text = error.strerror or str(error)
    if error.filename is not None:
        text = f"{shown(os.fsencode(error.filename))}: {text}"
    if progress is not None and progress.files:
        text = f"{text} (after {progress})"
    return KINDS.get(error.errno, NotAvailable)(text)
