# SPDX-License-Identifier: MIT
"""Where nsswitch.conf merges groups, an installation lets that go on: as getent, libc and libnss_systemd see it."""

import json
from pathlib import Path

import pytest

from tests.conftest import MakeHost
from tests.lab import Unavailable, command

from .nsswitch import edit

GROUP = {"groupName": "builders", "gid": 4711, "members": ["alice"]}
"""In /etc/group with bob alone."""
RECORDS = f"""mkdir -p /run/userdb && cd /run/userdb && echo '{json.dumps(GROUP)}' >builders.group &&
    ln -s builders.group 4711.group && echo '{{}}' >alice:builders.membership"""


@pytest.mark.parametrize(("before", "members"), [
    ("files [SUCCESS=merge] systemd", "bob,alice"),
    ("files systemd", "bob"),
    ("systemd [SUCCESS=merge] files", "alice,bob"),
])
def test_a_group_has_the_members_that_it_had(make_host: MakeHost, tmp_path: Path, before: str, members: str) -> None:
    conf = tmp_path / "nsswitch.conf"
    conf.write_text(f"group: {before}\n")
    after = edit("add", conf).decode().removeprefix("group: ").strip()
    assert "mymachines" in after
    groups = Path("/etc/group").read_text() + "builders:x:4711:bob\n"
    for order in (before, after):
        host = make_host(group=order, files={"/etc/group": groups})
        host.run(["sh", "-c", RECORDS])
        if host.run(["getent", "-s", "systemd", "group", "builders"], check=False).returncode:
            raise Unavailable("libnss_systemd is not installed")
        assert host.run(["getent", "group", "builders"]).stdout == f"builders:x:4711:{members}\n", order
        assert host.run(["getent", "group", "4711"]).stdout == f"builders:x:4711:{members}\n", order
        for member in ("alice", "bob"):
            assert host.run(["getent", "initgroups", member]).stdout.split() == [member, "4711"], order
        host.start_daemon()
        web = host.container("web")
        host.run([*command("mymachinesctl"), "register", "web", "--leader", str(web.leader)])
        # libnss_systemd finds it too, by userdb, and says x for the password.
        found = host.run(["getent", "group", "vg-web-1000"]).stdout
        assert found.startswith("vg-web-1000:!*:") == (order == after)
        host.close()
