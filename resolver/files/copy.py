# SPDX-License-Identifier: MIT
"""A copy within one process: reader and writer, one behind the other."""

from resolver.files.progress import Progress
from resolver.files.read import Reader
from resolver.files.write import Writer


def copy(source_directory: int, source: bytes, target_directory: int, target: bytes, progress: Progress, *,
         replace: bool = False) -> None:
    """Copy what `source` is in a directory, a file or a tree, as `cp -a` does; as `target` in another directory.

    Its name appears when it is complete; an error, or whatever else ends this, leaves nothing. OSError, with a path
    from these names on: FileExistsError where the target is there. With `replace`, files that are there are replaced
    one by one, and directories merged; then what was replaced before an error stays so.
    """
    reader = Reader(source_directory, source, progress)
    writer = Writer(target_directory, target, progress, replace=replace)
    try:
        for entry in reader:
            writer.put(entry)
            reader.avoid = writer.avoid
        writer.finish()
    except BaseException:
        writer.discard()
        raise
