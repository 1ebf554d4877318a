# SPDX-License-Identifier: MIT
"""A user who has the daemon say something of each of his calls does not fill its log."""

import pytest

from resolver.log import LINES_MAX
from tests.endtoend.conftest import MACHINE_SOCKET, World

NOBODY = 65534
CONNECTIONS = 500

RUDE = """
import socket, sys
path, text = sys.argv[1], sys.argv[2].encode()
for _ in range(int(sys.argv[3])):
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(10)
        caller.connect(path)
        caller.sendall(text + b"\\0" if text != b"{" else text)
        caller.shutdown(socket.SHUT_WR)
        assert caller.recv(1) == b""  # it has been hung up on
"""


@pytest.mark.parametrize(("text", "told"), [("no JSON", "protocol error"), ("{", "closed in the middle")])
@pytest.mark.parametrize("path", [MACHINE_SOCKET, "/run/systemd/userdb/io.systemd.Machine"], ids=["daemon", "userdb"])
def test_rude_callers_get_a_few_lines_and_others_theirs(world: World, path: str, text: str, told: str) -> None:
    world.host.python(RUDE, path, text, str(CONNECTIONS), uid=NOBODY, check=True)
    world.machine("web")
    world.daemon.expect_log("New machine web")
    lines = [line for line in world.daemon.log.splitlines() if told in line]
    assert len(lines) == LINES_MAX + 1
    assert "More like this are left out" in lines[-1]
    world.daemon.stop()
    world.daemon.expect_log(f"{CONNECTIONS - LINES_MAX} like this were left out: ")
