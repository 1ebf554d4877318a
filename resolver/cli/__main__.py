# SPDX-License-Identifier: MIT
"""The command line of mymachinesctl. Shells call it at each press of a key: only what a command needs is imported."""

import importlib
import os
import sys
from collections.abc import Sequence

from resolver.cli.parser import make_parser

INTERRUPTED = 130  # 128 + SIGINT, as shells say it


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script. Returns the exit code."""
    options = make_parser().parse_args(arguments)
    module, _, function = options.command.partition(":")
    try:
        code: int | None = getattr(importlib.import_module(module), function)(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read us has enough (`| head`). The interpreter flushes once more at exit: into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        from resolver.cli.failures import to_failure

        failure = to_failure(error)
        if failure is None:
            raise
        print(f"mymachinesctl: {failure}", file=sys.stderr)
        return failure.code
    return code or 0


if __name__ == "__main__":
    sys.exit(main())
