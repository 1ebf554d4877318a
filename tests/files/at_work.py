# SPDX-License-Identifier: MIT
"""The engine as others use it: between paths, and as a worker."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from resolver.files import copy as engine
from resolver.files import remove as removing
from resolver.files.progress import Progress
from resolver.files.workspace import PREFIX
from resolver.worker.serve import Answer, Asker, main


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def copy(source: Path, target: Path, *, replace: bool = False,
         tell: Callable[[Progress], None] = lambda _: None) -> Progress:
    progress = Progress(tell)
    with opened(source.parent) as where, opened(target.parent) as whither:
        engine.copy(where, os.fsencode(source.name), whither, os.fsencode(target.name), progress, replace=replace)
    return progress


def remove(path: Path) -> None:
    with opened(path.parent) as where:
        removing.remove(where, os.fsencode(path.name))


def hidden(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if os.fsencode(path.name).startswith(PREFIX)]


def handle(request: Mapping[str, Any], _descriptors: Sequence[int], asker: Asker) -> Answer:
    progress = copy(Path(request["source"]), Path(request["target"]), tell=lambda progress: asker.tell(
        {"files": progress.files}))
    return {"files": progress.files}, ()


if __name__ == "__main__":
    main(handle)
