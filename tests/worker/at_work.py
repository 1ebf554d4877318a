# SPDX-License-Identifier: MIT
"""A worker for tests: does what the request's `do` says."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resolver.core.errors import InvalidArgument, NoSuchMachine
from resolver.worker.serve import Answer, Asker, Stopped, main


def held() -> list[str]:
    """What its descriptors are, but for the one that this takes."""
    return [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.exists()]


def handle(request: Mapping[str, Any], descriptors: Sequence[int], asker: Asker) -> Answer:
    match request["do"]:
        case "echo":
            return {"said": request["text"]}, descriptors
        case "count":
            for number in range(request["to"]):
                asker.tell({"number": number})
        case "environment":
            return {"environment": dict(os.environ), "descriptors": held()}, ()
        case "no machine":
            raise NoSuchMachine("none such")
        case "bad argument":
            raise InvalidArgument("path", "not absolute")
        case "os error":
            os.open("/nowhere", os.O_RDONLY)
        case "bug":
            raise KeyError("bug")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            child = subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL)
            Path(request["file"]).write_text(f"{os.getpid()} {child.pid}")
            try:
                time.sleep(60)
            except Stopped:
                Path(request["file"]).write_text("tidied up")
                raise
        case "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            Path(request["file"]).write_text(str(os.getpid()))
            time.sleep(60)
    return {}, ()


if __name__ == "__main__":
    main(handle)
