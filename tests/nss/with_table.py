# SPDX-License-Identifier: MIT
"""Scenarios with a table: statuses, buffers, and what the process around the shim does. Run by inside.py."""

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resolver._table import lib

from .entry_points import (
    HOST_NOT_FOUND,
    NETDB_INTERNAL,
    NETDB_SUCCESS,
    NO_DATA,
    NOTFOUND,
    SUCCESS,
    TRYAGAIN,
    UNAVAIL,
    UNTOUCHED,
    Look,
    Reply,
    Shim,
    Space,
)
from .tables import MACHINES, TABLE, Address, Machine, publish, table_bytes

V4, V6 = socket.AF_INET, socket.AF_INET6
WEB_TUPLES = ("web", [("10.0.0.2", 0), ("fd00::2", 0), ("fe80::2", 7)])
WEB_USER = (b"vu-web-1000", b"!*", (1 << 20) + 1000, 65534, b"UID 1000 of Container web", b"/", b"/usr/sbin/nologin")


def statuses(shim: Shim) -> None:
    """Every kind of answer of every entry point, out of a table."""
    publish(TABLE, table_bytes(MACHINES))
    found: dict[Callable[..., Reply], list[tuple[tuple[Any, ...], Any]]] = {
        shim.gethostbyname: [
            (("web",), ("web", V4, ["10.0.0.2"])),
            (("DB.example.ORG.",), ("Db.example.org", V4, ["10.0.0.3"])),
        ],
        shim.gethostbyname2: [
            (("web", V6), ("web", V6, ["fd00::2"])),
            (("www.example", V4), ("web", V4, ["10.0.0.2"])),
        ],
        shim.gethostbyname3: [
            (("WEB", V4), ("web", V4, ["10.0.0.2"], 0, "web")),
            (("web", socket.AF_UNSPEC), ("web", V4, ["10.0.0.2"], 0, "web")),
        ],
        shim.gethostbyname4: [(("web",), WEB_TUPLES), (("shy",), ("shy", [("fe80::9", 3)]))],
        shim.gethostbyaddr: [(("fd00::2",), ("web", V6, ["fd00::2"]))],
        shim.gethostbyaddr2: [(("10.0.0.3",), ("Db.example.org", V4, ["10.0.0.3"], 0))],
        shim.getpwnam: [(("vu-web-1000",), WEB_USER)],
        shim.getpwuid: [
            (((1 << 20) + 1000,), WEB_USER),
            (((3 << 20) + 1,), (b"vu-db-417-1", b"!*", (3 << 20) + 1, 65534, b"UID 1 of Container Db.example.org", b"/",
                                b"/usr/sbin/nologin")),
        ],
        shim.getgrnam: [(("vg-web-5",), (b"vg-web-5", b"!*", (2 << 20) + 5))],
        shim.getgrgid: [(((2 << 20) + 65535,), (b"vg-web-65535", b"!*", (2 << 20) + 65535))],
    }  # fmt: skip
    for function, cases in found.items():
        for arguments, value in cases:
            reply = function(*arguments)
            netdb = NETDB_SUCCESS if "host" in function.__name__ else UNTOUCHED
            assert reply == Reply(SUCCESS, UNTOUCHED, netdb, UNTOUCHED, value), (function.__name__, arguments, reply)
    assert shim.gethostbyname4("web", preset=True).value == WEB_TUPLES
    assert shim.gethostbyname4("shy", preset=True).value == ("shy", [("fe80::9", 3)])

    not_ours = Reply(UNAVAIL, errno.ENOENT, HOST_NOT_FOUND, UNTOUCHED)
    for name in ("nosuch", "", "db-417", "a" * 65, "a" * 5000, "web.example"):
        assert shim.gethostbyname(name) == shim.gethostbyname4(name) == not_ours, name
    assert shim.gethostbyname2("web", socket.AF_UNIX) == not_ours
    for address in ("10.0.0.9", "fe80::2", "::1"):
        assert shim.gethostbyaddr(address) == not_ours, address

    no_address = Reply(NOTFOUND, errno.ENOENT, NO_DATA, UNTOUCHED)
    assert shim.gethostbyname2("db.example.org", V6) == no_address
    assert shim.gethostbyname("vm-1") == shim.gethostbyname4("vm-1") == no_address
    assert shim.gethostbyname2("shy", V6) == no_address  # nothing to say the scope with

    nobody = Reply(NOTFOUND, errno.ENOENT, UNTOUCHED, UNTOUCHED)
    for user in ("root", "vu-web-70000", "vu-nosuch-1", "vu-web-01", "a" * 5000, ""):
        assert shim.getpwnam(user) == shim.getgrnam(user) == nobody, user
    for number in (0, 1000, 65534, 65535, 65536, 4294967294, 4294967295):
        assert shim.getpwuid(number) == shim.getgrgid(number) == nobody, number


def _every_size(name: str, look: Look, netdb: bool) -> int:
    """Sizes from 0 on, until the answer fits at every alignment; returns the last size that was too small."""
    whole = look(Space())
    assert whole.status == SUCCESS
    too_small = Reply(TRYAGAIN, errno.ERANGE, NETDB_INTERNAL if netdb else UNTOUCHED, UNTOUCHED)
    fitted: dict[int, int] = {}
    for size in range(8192):
        for misaligned in range(16):
            reply = look(Space(size, misaligned))
            if reply.status == SUCCESS:
                assert reply == whole, name
                fitted.setdefault(misaligned, size)
            else:
                assert reply == too_small, (name, size, misaligned, reply)
                assert misaligned not in fitted, f"{name}: fits in {fitted[misaligned]} and not in {size}"
        if len(fitted) == 16 and min(fitted.values()) + 40 < size:
            return max(fitted.values()) - 1
    raise AssertionError(f"{name}: never fits")


def buffers(shim: Shim) -> None:
    """Every buffer, from none at all to one that is large enough, at every alignment."""
    publish(TABLE, table_bytes([*MACHINES, Machine("big", addresses=[Address(f"10.9.0.{i}") for i in range(9)])]))
    looks: dict[str, tuple[Look, bool]] = {
        "gethostbyname": (lambda space: shim.gethostbyname("web", space), True),
        "gethostbyname, many": (lambda space: shim.gethostbyname("big", space), True),
        "gethostbyname2": (lambda space: shim.gethostbyname2("web", V6, space), True),
        "gethostbyname3": (lambda space: shim.gethostbyname3("web", V4, space), True),
        "gethostbyname4": (lambda space: shim.gethostbyname4("web", space), True),
        "gethostbyname4, preset": (lambda space: shim.gethostbyname4("web", space, preset=True), True),
        "gethostbyname4, preset, one": (lambda space: shim.gethostbyname4("shy", space, preset=True), True),
        "gethostbyaddr": (lambda space: shim.gethostbyaddr("10.0.0.2", space), True),
        "gethostbyaddr2": (lambda space: shim.gethostbyaddr2("fd00::2", space), True),
        "getpwnam": (lambda space: shim.getpwnam("vu-web-1000", space), False),
        "getpwuid": (lambda space: shim.getpwuid(1 << 20, space), False),
        "getgrnam": (lambda space: shim.getgrnam("vg-web-0", space), False),
        "getgrgid": (lambda space: shim.getgrgid(2 << 20, space), False),
    }
    for name, (look, netdb) in looks.items():
        assert _every_size(name, look, netdb) > 0


def full_machine(shim: Shim) -> None:
    """A machine with all the addresses that the layout holds."""
    texts = [f"10.1.0.{i}" if i % 2 else f"fd00::{i + 1:x}" for i in range(lib.MACHINE_ADDRESSES_MAX)]
    publish(TABLE, table_bytes([Machine("full", addresses=[Address(text) for text in texts])]))
    assert shim.gethostbyname4("full").value == ("full", [(text, 0) for text in texts])
    assert shim.gethostbyname2("full", V6).value[2] == texts[0::2]


def forked(shim: Shim) -> None:
    """A child of fork has the same view, and follows the table by itself."""
    publish(TABLE, table_bytes(MACHINES))
    assert shim.gethostbyname4("web").value == WEB_TUPLES
    child = os.fork()
    if child == 0:
        os.closerange(0, 1024)  # as daemons do
        os._exit(0 if shim.gethostbyname4("web").value == WEB_TUPLES else 1)
    assert os.waitpid(child, 0)[1] == 0


def not_roots(shim: Shim) -> None:
    """The shim takes a table from nobody but root."""
    publish(TABLE, table_bytes(MACHINES))
    os.chown(TABLE, 1234, 0)
    assert shim.gethostbyname4("web").status == UNAVAIL
    os.chown(TABLE, 0, 0)
    assert shim.gethostbyname4("web").status == SUCCESS


def traced(shim: Shim, program: str) -> None:
    """Prints the number of look-ups, then the system calls between the two markers of calls.c, as strace saw them."""
    publish(TABLE, table_bytes(MACHINES))
    path = sys.argv[2]
    command = [program, path, "1000", "web", str(1 << 20), "vu-web-0"]
    subprocess.run(["strace", "-o", "/run/trace", *command], check=True, stdout=subprocess.DEVNULL)
    lines = Path("/run/trace").read_text().split("getppid()")[1].splitlines()[1:]
    print("look-ups:1000", *(line.partition("(")[0] for line in lines if line))


def timed(_shim: Shim, program: str, machines: str) -> None:
    """Prints what calls.c measures with a table of so many machines."""
    count = int(machines)
    crowd = [
        Machine(
            f"machine-{i}",
            addresses=[Address(f"10.{i >> 8}.{i & 255}.{last}") for last in (1, 2, 3)],
            uids=[(0, (i + 2) << 16, 65536)],
        )
        for i in range(count)
    ]
    publish(TABLE, table_bytes(crowd))
    known = count // 2
    arguments = ["1000", f"machine-{known}", str(((known + 2) << 16) + 1000), f"vu-machine-{known}-1000"]
    subprocess.run([program, sys.argv[2], *arguments], check=True)


def around(_shim: Shim, program: str, case: str) -> None:
    """Prints how around.c ended."""
    publish(TABLE, table_bytes(MACHINES))
    done = subprocess.run([program, case], stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False, timeout=50)
    print(done.returncode)


NSSWITCH = """
passwd: files mymachines
group: files mymachines
hosts: mymachines [NOTFOUND=return] files
"""
RESOLVE = "import socket, sys; print(socket.getaddrinfo(sys.argv[1], 0, int(sys.argv[2]), socket.SOCK_STREAM))"


def through_glibc(_shim: Shim) -> None:
    """getent and getaddrinfo, by an nsswitch.conf that names the module."""
    publish(TABLE, table_bytes(MACHINES))
    nsswitch = Path("/run/nsswitch.conf")
    nsswitch.write_text(NSSWITCH)
    subprocess.run(["mount", "--bind", nsswitch, "/etc/nsswitch.conf"], check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(Path(sys.argv[2]).parent)}

    def run(*command: str) -> str:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
        return done.stdout or f"{done.returncode} {done.stderr}"

    assert run("getent", "passwd", "vu-web-1000").split(":") == [
        "vu-web-1000", "!*", str((1 << 20) + 1000), "65534", "UID 1000 of Container web", "/", "/usr/sbin/nologin\n",
    ]  # fmt: skip
    assert run("getent", "passwd", str((3 << 20) + 7)).startswith("vu-db-417-7:!*:3145735:")
    assert run("getent", "group", str(2 << 20)) == f"vg-web-0:!*:{2 << 20}:\n"
    assert run("getent", "passwd", "vu-nosuch-1") == run("getent", "group", "70000") == "2 "
    assert run("getent", "hosts", "10.0.0.2").split() == ["10.0.0.2", "web"]
    ahosts = [line.split() for line in run("getent", "ahosts", "web").splitlines()]
    assert {line[0] for line in ahosts} >= {"10.0.0.2", "fd00::2"}
    assert ahosts[0][2] == "web"
    assert run("getent", "ahostsv4", "WEB.").split()[0] == "10.0.0.2"
    assert "No address associated with hostname" in run(sys.executable, "-c", RESOLVE, "vm-1", "0")
    assert "No address associated with hostname" in run(sys.executable, "-c", RESOLVE, "db.example.org", str(int(V6)))
    # Without /etc/hosts the last module is unavailable too: of that glibc makes "No address" for IPv4 alone.
    behind_us = Path("/etc/hosts").exists()
    families = (socket.AF_UNSPEC, V6, *([V4] if behind_us else []))
    for family in families:
        assert "Name or service not known" in run(sys.executable, "-c", RESOLVE, "nosuch", str(int(family)))
    TABLE.unlink()
    for family in families:
        assert "Name or service not known" in run(sys.executable, "-c", RESOLVE, "web", str(int(family)))
    assert run("getent", "passwd", "vu-web-1000") == "2 "
    if behind_us:
        assert "127.0.0.1" in run(sys.executable, "-c", RESOLVE, "localhost", str(int(V4)))
