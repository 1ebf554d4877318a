# SPDX-License-Identifier: MIT
"""The worker: does one thing to images, and ends (resolver.worker).

    request  {"do": "clone" | "rename" | "remove" | "read-only" | "limit" | "pool-limit" | "clean" | "read", ...}
    progress {"files": n, "bytes": n}, {"removed": [name, bytes]}
    result   {}; of "read" what metadata.read() gives
"""

import errno
from collections.abc import Mapping, Sequence
from typing import Any

from machine_images import metadata, operations
from machine_images.image import ImageReadOnly
from resolver.files.failures import failure
from resolver.files.progress import Progress
from resolver.worker.serve import Answer, Asker, main


def handle(request: Mapping[str, Any], _descriptors: Sequence[int], asker: Asker) -> Answer:
    """The request, as above."""
    progress = Progress(lambda progress: asker.tell({"files": progress.files, "bytes": progress.bytes}))
    try:
        match request["do"]:
            case "read":
                return metadata.read(request["name"]), ()
            case "clone":
                operations.clone(request["name"], request["new_name"], request["read_only"], progress)
            case "rename":
                operations.rename(request["name"], request["new_name"])
            case "remove":
                operations.remove(request["name"], progress)
            case "read-only":
                operations.mark_read_only(request["name"], request["read_only"])
            case "limit":
                operations.set_limit(request["name"], request["size"])
            case "pool-limit":
                operations.set_pool_limit(request["size"])
            case "clean":
                for removed in operations.clean(request["everything"], progress):
                    asker.tell({"removed": removed})
    except OSError as error:
        if error.errno == errno.EROFS:
            raise ImageReadOnly(str(failure(error, progress))) from None
        raise failure(error, progress) from None
    return {}, ()


if __name__ == "__main__":
    main(handle)
