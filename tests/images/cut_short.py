# SPDX-License-Identifier: MIT
"""A program: do something to an image again and again, ended before each of its calls that change the file system.

    python -m tests.images.cut_short CASE kill|stop

It prints how often there was the old state and how often the new; anything between ends it with an error.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from machine_images import btrfs, operations
from machine_images.discovery import POOL
from resolver.files import kernel
from resolver.files.progress import Progress
from resolver.worker.serve import Stopped
from tests.files.trees import OLD, look

SETTINGS = "/run/systemd/nspawn"
CHANGING = {"mkdir", "rename", "link", "unlink", "rmdir", "symlink", "mknod", "open", "write", "sendfile",
            "copy_file_range", "truncate", "ftruncate", "chmod", "fchmod", "chown", "fchown", "utime", "setxattr",
            "ioctl"}
STEPS_MAX = 2000

State = dict[str, Any]


def directory() -> None:
    fill(Path(POOL, "web"))


def subvolume() -> None:
    """With another one in it."""
    for where, name in ((POOL, b"web"), (f"{POOL}/web", b"inner")):
        descriptor = os.open(where, os.O_RDONLY)
        btrfs.create(descriptor, name)
        os.close(descriptor)
        fill(Path(where, os.fsdecode(name)))


def fill(top: Path) -> None:
    (top / "etc").mkdir(parents=True)
    (top / "etc/hostname").write_text("web\n")
    os.link(top / "etc/hostname", top / "second name")
    (top / "link").symlink_to("etc/hostname")


def raw() -> None:
    Path(POOL, "web.raw").write_bytes(b"x" * 100_000)
    Path(POOL, "web.roothash").write_text("hash")


def clone() -> None:
    operations.clone("web", "other", False, Progress())


def rename() -> None:
    operations.rename("web", "other")


def remove() -> None:
    operations.remove("web", Progress())


MAKE: dict[str, Callable[[], None]] = {"directory": directory, "subvolume": subvolume, "raw": raw}
DO: dict[str, Callable[[], None]] = {"clone": clone, "rename": rename, "remove": remove}


class Countdown:
    """Ends the process before the call of this number."""

    def __init__(self, step: int, end: Callable[[], None]) -> None:
        self._left, self._end = step, end

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call":
            name = argument.__name__ if argument.__module__ in ("posix", "fcntl") else ""
        else:
            name = "rename" if event == "call" and frame.f_code is RENAME else ""
        if name in CHANGING:
            self._left -= 1
            if self._left == 0:
                sys.setprofile(None)
                self._end()


RENAME: CodeType = kernel.rename_new.__code__     # not C, and so not seen as that


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop() -> None:
    raise Stopped


def begin_anew(make: Callable[[], None]) -> None:
    for folder in (POOL, SETTINGS):
        os.makedirs(folder, exist_ok=True)
        for entry in os.scandir(folder):
            shutil.rmtree(entry) if entry.is_dir(follow_symlinks=False) else os.unlink(entry)
    make()
    for path in (*Path(POOL).rglob("*"), *Path(POOL).iterdir()):    # a directory's changes with what comes into it
        os.utime(path, ns=(OLD, OLD), follow_symlinks=False)
    Path(SETTINGS, "web.nspawn").write_text("[Exec]\n")


def visible() -> State:
    """The images, each with all that can be told of it, and with what restricts it."""
    found: State = {}
    for path in Path(POOL).iterdir():
        if not path.name.startswith(".#") and path.suffix != ".roothash":
            name = path.name.removesuffix(".raw")
            roothash = Path(POOL, f"{name}.roothash")
            found[name] = (look(path), Path(SETTINGS, f"{name}.nspawn").exists(), roothash.exists())
    return found


def hidden() -> list[str]:
    return [name for folder in (POOL, SETTINGS) for name in os.listdir(folder) if name.startswith(".#mymachines")]


def attempt(make: Callable[[], None], do: Callable[[], None], step: int, end: Callable[[], None]) -> bool:
    """Whether it was ended before that step; else it was complete. Nothing else may fail it."""
    begin_anew(make)
    pid = os.fork()
    if pid == 0:
        sys.setprofile(Countdown(step, end))
        try:
            do()
        except Stopped:
            os._exit(1)
        except BaseException as error:  # noqa: BLE001 - the process ends here
            print(repr(error), file=sys.stderr)
            os._exit(2)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 1, -signal.SIGKILL), f"step {step}: {status}"
    return status != 0


def main(case: str, how: str) -> None:
    what, _, kind = case.partition(" ")
    make, do, end = MAKE[kind], DO[what], {"kill": kill, "stop": stop}[how]
    attempt(make, lambda: None, 0, end)
    old = visible()
    attempt(make, do, 0, end)
    new = visible()
    assert old != new
    seen = {"old": 0, "new": 0, "left": 0}
    for step in range(1, STEPS_MAX):
        if not attempt(make, do, step, end):
            break
        state = visible()
        assert state in (old, new), f"ended before step {step}, there are {state.keys()}"
        seen["old" if state == old else "new"] += 1
        seen["left"] += bool(hidden())
        operations.delete_leftovers()
        assert not hidden(), f"ended before step {step}, this cannot be deleted: {hidden()}"
        assert visible() == state
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
