# SPDX-License-Identifier: MIT
"""What an installation makes of nsswitch.conf, and that a removal leaves no trace of it."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .nsswitch import PROGRAM, SECONDS, edit, run

pytestmark = pytest.mark.skipif(shutil.which("perl") is None, reason="perl is not installed")

DEBIAN_12 = """\
# /etc/nsswitch.conf
#
# Example configuration of GNU Name Service Switch functionality.

passwd:         files systemd
group:          files systemd
shadow:         files systemd
gshadow:        files systemd

hosts:          files dns
networks:       files
"""

LINES = {
    # behind files, before what ours is to be asked before
    "hosts: files dns": "hosts: files mymachines dns",
    "hosts:files dns": "hosts:files mymachines dns",
    "hosts:\tfiles\tdns": "hosts:\tfiles mymachines\tdns",
    "  hosts :  files  dns  ": "  hosts :  files mymachines  dns  ",
    "hosts: files resolve [!UNAVAIL=return] dns": "hosts: files mymachines resolve [!UNAVAIL=return] dns",
    "hosts: files mdns4_minimal [NOTFOUND=return] dns": "hosts: files mymachines mdns4_minimal [NOTFOUND=return] dns",
    "hosts: files [TRYAGAIN=return] dns": "hosts: files [TRYAGAIN=return] mymachines dns",
    "hosts: files[TRYAGAIN=return]dns": "hosts: files[TRYAGAIN=return]mymachines dns",
    "group: files[SUCCESS=merge]systemd": "group: files[SUCCESS=merge]mymachines [SUCCESS=merge] systemd",
    "hosts: files myhostname": "hosts: files mymachines myhostname",
    "passwd: files systemd": "passwd: files mymachines systemd",
    "passwd: files sss systemd": "passwd: files mymachines sss systemd",
    "passwd: compat systemd": "passwd: compat mymachines systemd",
    "passwd: files": "passwd: files mymachines",
    "group: files ldap": "group: files mymachines ldap",
    # files is not there, or stands behind those
    "hosts: dns files": "hosts: mymachines dns files",
    "hosts: dns": "hosts: mymachines dns",
    "hosts:dns": "hosts:mymachines dns",
    "hosts: resolve [!UNAVAIL=return] files myhostname dns":
        "hosts: mymachines resolve [!UNAVAIL=return] files myhostname dns",
    "hosts: myhostname resolve files": "hosts: myhostname mymachines resolve files",
    "passwd: systemd files": "passwd: mymachines systemd files",
    "passwd: sss": "passwd: sss mymachines",
    "hosts: mdns4": "hosts: mdns4 mymachines",
    # merging goes on
    "group: files [SUCCESS=merge] systemd": "group: files [SUCCESS=merge] mymachines [SUCCESS=merge] systemd",
    "group: files [ success = MERGE ] systemd": "group: files [ success = MERGE ] mymachines [SUCCESS=merge] systemd",
    "group: files [UNAVAIL=return SUCCESS=merge] systemd":
        "group: files [UNAVAIL=return SUCCESS=merge] mymachines [SUCCESS=merge] systemd",
    "group: files [UNAVAIL=return] [SUCCESS=merge] systemd [SUCCESS=merge] ldap":
        "group: files [UNAVAIL=return] [SUCCESS=merge] mymachines [SUCCESS=merge] systemd [SUCCESS=merge] ldap",
    "group: ldap [SUCCESS=merge] systemd": "group: ldap [SUCCESS=merge] mymachines [SUCCESS=merge] systemd",
    "group: files [NOTFOUND=merge] systemd": "group: files [NOTFOUND=merge] mymachines systemd",
    # remarks
    "hosts: files dns # not mymachines": "hosts: files mymachines dns # not mymachines",
    "hosts: files#dns": "hosts: files mymachines#dns",
    # it is there, wherever
    "hosts: files mymachines dns": "hosts: files mymachines dns",
    "hosts: files dns mymachines": "hosts: files dns mymachines",
    "hosts: mymachines [NOTFOUND=return] dns": "hosts: mymachines [NOTFOUND=return] dns",
    # not ours
    "shadow: files systemd": "shadow: files systemd",
    "# hosts: files dns": "# hosts: files dns",
    "myhosts: files dns": "myhosts: files dns",
    "initgroups: files [SUCCESS=continue] systemd": "initgroups: files [SUCCESS=continue] systemd",
    "hosts files dns": "hosts files dns",
    # what is empty, the C library fills
    "hosts:": "hosts:",
    "hosts:   # nothing": "hosts:   # nothing",
    "": "",
}
"""Before an installation, and behind it."""

REMOVED = {
    "hosts: files mymachines dns": "hosts: files dns",
    "hosts: files mymachines [NOTFOUND=return] dns": "hosts: files dns",
    "hosts: files\tmymachines[NOTFOUND=return] [UNAVAIL=continue]\tdns": "hosts: files\tdns",
    "hosts: mymachines dns": "hosts: dns",
    "hosts: mymachines": "hosts: ",
    "hosts: mymachines files mymachines dns": "hosts: files dns",
    "hosts: files mymachinesx xmymachines dns": "hosts: files mymachinesx xmymachines dns",
    "hosts: files mymachines dns # mymachines": "hosts: files dns # mymachines",
    "group: files [SUCCESS=merge] mymachines [SUCCESS=merge] systemd": "group: files [SUCCESS=merge] systemd",
    "shadow: files mymachines": "shadow: files mymachines",
}
"""What an administrator may have made of it, and what is left."""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    return tmp_path / "nsswitch.conf"


@pytest.mark.parametrize(("before", "after"), LINES.items())
def test_lines(conf: Path, before: str, after: str) -> None:
    around = "# first\n{}\nnetworks: files\n"
    conf.write_text(around.format(before))
    assert edit("add", conf).decode() == around.format(after)
    assert edit("add", conf).decode() == around.format(after), "the second time"
    if "mymachines" not in before.partition("#")[0]:
        assert edit("remove", conf).decode() == around.format(before)


@pytest.mark.parametrize(("before", "after"), REMOVED.items())
def test_what_was_changed_since_is_taken_out_too(conf: Path, before: str, after: str) -> None:
    conf.write_text(before)
    assert edit("remove", conf).decode() == after


def test_debians_own_file(conf: Path) -> None:
    conf.write_text(DEBIAN_12)
    after = edit("add", conf).decode()
    changed = [line for line in after.splitlines() if line not in DEBIAN_12.splitlines()]
    assert changed == ["passwd:         files mymachines systemd", "group:          files mymachines systemd",
                       "hosts:          files mymachines dns"]
    assert edit("remove", conf).decode() == DEBIAN_12


def test_any_bytes(conf: Path) -> None:
    """Ends of lines as elsewhere, no text in UTF-8, no end of the last line."""
    whole = b"# \xe4\xff\r\nhosts: files dns\r\n\r\n\x00\npasswd: files"
    conf.write_bytes(whole)
    assert edit("add", conf) == b"# \xe4\xff\r\nhosts: files mymachines dns\r\n\r\n\x00\npasswd: files mymachines"
    assert edit("remove", conf) == whole


SERVICES = st.sampled_from(["files", "compat", "systemd", "dns", "resolve", "myhostname", "mdns4_minimal", "sss", "db"])
ACTIONS = st.sampled_from(["", "", "", "[NOTFOUND=return]", " [NOTFOUND=return]", " [SUCCESS=merge]",
                           "  [!UNAVAIL=return SUCCESS=merge] ", "\t[SUCCESS=continue]"])
BLANKS = st.sampled_from([" ", "  ", "\t", ""])
LINE = st.builds(
    lambda indent, database, services, end: f"{indent}{database}:{''.join(map(''.join, services))}{end}\n",
    st.sampled_from(["", "", " "]), st.sampled_from(["hosts", "passwd", "group", "shadow", "netgroup"]),
    st.lists(st.tuples(BLANKS, SERVICES, ACTIONS), max_size=5), st.sampled_from(["", " ", " # mymachines", "#x"]))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nsswitch") / "nsswitch.conf"


def words(line: str) -> list[str]:
    """Names and actions of a line."""
    return re.findall(r"\[[^\]]*\]|[^\s\[]+", line.partition("#")[0].partition(":")[2])


@given(text=st.lists(LINE, max_size=6).map("".join))
@settings(max_examples=40, deadline=None)
def test_any_file_comes_back_byte_for_byte(scratch: Path, text: str) -> None:
    """And what is added is one word to each line of ours, perhaps with an action."""
    scratch.write_text(text)
    added = edit("add", scratch).decode()
    for old, new in zip(text.splitlines(), added.splitlines(), strict=True):
        found = words(new)
        if re.match(r"\s*(hosts|passwd|group):\s*[^\s#]", old):
            place = found.index("mymachines")
            del found[place:place + 1 + (found[place + 1:place + 2] == ["[SUCCESS=merge]"])]
        assert found == words(old)
    assert edit("remove", scratch).decode() == text


def test_owner_mode_and_links_are_kept(conf: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_text(DEBIAN_12)
    real.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(real, 7, 8)
    before = real.stat()
    conf.symlink_to("real")
    assert b"mymachines" in edit("add", conf)
    assert conf.is_symlink()
    after = real.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nsswitch.conf", "real"]


def test_a_file_that_needs_nothing_is_not_written(conf: Path) -> None:
    conf.write_text("hosts: mymachines\n")
    before = conf.stat().st_ino
    edit("add", conf)
    assert conf.stat().st_ino == before


def test_no_file_no_harm(conf: Path) -> None:
    for verb in ("add", "remove"):
        done = run(verb, conf)
        assert done.returncode == 0
        assert str(conf) in done.stderr
    assert not conf.exists()


@pytest.mark.parametrize("words", [[], ["frob"], ["--help"]])
def test_usage(words: list[str]) -> None:
    done = run(*words)
    assert done.returncode != 0
    assert "add|remove" in done.stderr


def test_a_full_disk_leaves_the_file(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    script = f"""set -e; mount -t tmpfs -o size=8k tmpfs {tmp_path}; cd {tmp_path}
        printf 'hosts: files dns\\n' >nsswitch.conf; cat nsswitch.conf >before
        head -c 1000000 /dev/zero >full 2>/dev/null || true
        ! {PROGRAM} add {tmp_path}/nsswitch.conf || exit 9
        cmp before nsswitch.conf; ls"""
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert "as it was" in done.stderr
    assert done.stdout.split() == ["before", "full", "nsswitch.conf"]
