# SPDX-License-Identifier: MIT
"""The program: one request, see the package."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from resolver.enter.bind import bind
from resolver.enter.place import Place
from resolver.enter.terminal import open_terminal
from resolver.worker.serve import Answer, Asker, main


def handle(request: Mapping[str, Any], descriptors: Sequence[int], _asker: Asker) -> Answer:
    """The request, as the package says."""
    deadline = request["deadline"]
    place = Place.of_leader(os.dup(descriptors[0])) if descriptors else Place.of_host()
    match request["do"]:
        case "root":
            return {}, [os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place.root)]
        case "bind":
            bind(place, os.fsencode(request["source"]), os.fsencode(request["destination"]),
                 read_only=request["read_only"], make=request["make"])
            return {}, ()
    terminal = open_terminal(place)
    if request["do"] != "pty":
        # Not above: these bring D-Bus with them, which takes longer than all else.
        from resolver.enter.session import start_login, start_shell

        if request["do"] == "login":
            start_login(place, terminal, deadline)
        else:
            start_shell(place, terminal, request["user"], request["path"], request["arguments"],
                        request["environment"], deadline)
    return {"path": terminal.path}, [terminal.master]


if __name__ == "__main__":
    main(handle)
