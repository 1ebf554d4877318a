# SPDX-License-Identifier: MIT
"""A container made of the kernel's parts, on a TestHost: what a container manager makes, and no manager."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from .cgroups import Scope
from .host import CONTAINER_IDS, RUN_TIMEOUT, answer, read_inside, run, start_inside
from .processes import KILL_TIMEOUT, end, namespace
from .waiting import Unavailable, wait_for

if TYPE_CHECKING:
    from .host import TestHost

Extents = Sequence[tuple[int, int, int]]    # as in /proc/PID/uid_map: first id inside, first outside, count

IFNAMSIZ = 16               # <linux/if.h>, the final zero included
ID_MAP_MAX = 4095           # bytes: the kernel takes a map in one write, of less than a page
NETWORKS = 255              # of containers without a wish: 10.213.N.0/24 and fd00:213:N::/64

IPV6 = Path("/proc/net/if_inet6").exists()


class Container:
    """Made by TestHost.container(). Its leader is process 1 inside, `leader` on the host; it ends with the host."""

    def __init__(
        self,
        host: "TestHost",
        name: str,
        *,
        uid_map: Extents | None = None,
        gid_map: Extents | None = None,
        user_namespace: bool = True,
        network_namespace: bool = True,
        link: bool = True,
        addresses: Sequence[str] | None = None,
        host_addresses: Sequence[str] | None = None,
        scope: str | None = None,
        hostname: str | None = None,
    ) -> None:
        """Without a wish: 65536 ids of its own, a veth link `ve-NAME` to `host0`, an IPv4 and an IPv6 address.

        Addresses are given with their prefix length. `scope` puts it all into a control group of that unit's name.
        """
        self.host, self.name = host, name
        number = host.next_number()     # from 1
        self.user_namespace = user_namespace
        self.network_namespace = network_namespace
        self.uid_map = list(uid_map or default_map(host.spare_ids, number - 1))
        self.gid_map = list(gid_map or uid_map or self.uid_map)
        self.host_interface = f"ve-{name}"[:IFNAMSIZ - 1] if link and network_namespace else None
        if number > NETWORKS and (addresses is None or host_addresses is None):
            raise ValueError("the networks are used up: give addresses")
        ipv6 = [f"fd00:213:{number}::"] if IPV6 else []
        own = [f"10.213.{number}.2/24", *(f"{network}2/64" for network in ipv6)]
        hosts = [f"10.213.{number}.1/24", *(f"{network}1/64" for network in ipv6)]
        self.addresses = own if addresses is None else list(addresses)
        self.host_addresses = hosts if host_addresses is None else list(host_addresses)
        self._hostname = hostname or name
        self._scope_name = scope
        self._scope: Scope | None = None
        self._starter: subprocess.Popen[bytes] | None = None
        self._children: list[subprocess.Popen[bytes]] = []
        self.leader = 0

    # --- life ---

    def start(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def _start(self) -> None:
        if self._scope_name:
            self._scope = Scope(self._scope_name)
        inside_ids = {first for first, _, _ in self.uid_map}, {first for first, _, _ in self.gid_map}
        spec = {
            "user_namespace": self.user_namespace, "network_namespace": self.network_namespace,
            "hostname": self._hostname, "become": [min(ids) for ids in inside_ids],
        }
        self._starter = start_inside(self.host.enter(), "container", spec)
        for key, value in read_inside(self._starter, until={"ready", "leader"}):
            if key == "map":
                self._write_map(f"/proc/{value}/gid_map", self.gid_map)
                self._write_map(f"/proc/{value}/uid_map", self.uid_map)
                answer(self._starter)
            elif key == "leader":
                self.leader = int(value)
        self.host.track(self.leader, "mnt")     # and not "net": its link is to go when it does
        if self._scope is not None:
            self._scope.add(self.leader)
        if self.host_interface:
            self._make_link(self.host_interface)

    def _write_map(self, path: str, extents: Extents) -> None:
        text = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in extents)
        if len(text) > ID_MAP_MAX:
            raise ValueError("the kernel takes no map so long")
        # by a process of the host, so that the ids outside are the host's, whatever namespace that is in
        done = self.host.run(["sh", "-c", 'exec cat >"$1"', "sh", path], input=text)
        if done.returncode:
            raise Unavailable(f"the kernel refused the id map {text!r}: {done.stderr.strip()}")

    def _make_link(self, interface: str) -> None:
        self._ip([
            f"link add {interface} type veth peer name host0 netns {self.leader}",
            *(f"address add {cidr} dev {interface} {flags(cidr)}" for cidr in self.host_addresses),
            f"link set {interface} up",
        ])
        lines = [f"address add {cidr} dev host0 {flags(cidr)}" for cidr in self.addresses] + ["link set host0 up"]
        self.exec(["ip", "-batch", "-"], input="\n".join(lines), check=True)
        if IPV6:
            wait_for(self._ipv6_works, what="the link's IPv6 to be ready")

    def _ip(self, lines: Sequence[str]) -> None:
        self.host.run(["ip", "-batch", "-"], input="\n".join(lines), check=True)

    def _ipv6_works(self) -> bool:
        """The kernel tells IPv6 of a new carrier with a delay; until then a neighbour's answer may be lost for seconds.

        What it does on that news is to add the link-local network to either end.
        """
        show = "ip", "-6", "route", "show", "fe80::/64", "dev"
        return bool(self.host.run([*show, str(self.host_interface)]).stdout and self.exec([*show, "host0"]).stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _value: object, _trace: TracebackType | None) -> None:
        self.close()

    def kill(self) -> None:
        """The leader is dead and reaped when this returns, and with it all that ran inside."""
        assert self._starter is not None
        starter = self._starter
        self.host.run(["kill", "-KILL", str(self.leader)])
        wait_for(lambda: starter.poll() is not None, KILL_TIMEOUT, "the leader's end")

    def freeze(self, frozen: bool = True) -> None:
        """Its control group; it has one where it was given a scope."""
        assert self._scope is not None, "this container has no scope"
        self._scope.freeze(frozen)

    def close(self) -> None:
        for child in self._children:
            end(child)
        if self._starter is not None:
            end(self._starter)      # the leader dies with it
            self._starter = None
        if self._scope is not None:
            self._scope.close()
            self._scope = None

    # --- commands inside ---

    def enter(self, *, uid: int = 0, gid: int = 0) -> list[str]:
        """The words before a command that runs it inside, as these ids inside."""
        if self.user_namespace:
            try:
                self.host_uid(uid), self.host_gid(gid)
            except KeyError as unmapped:
                raise Unavailable(f"the container has no id {unmapped}") from None
        words = []
        if self._scope is not None:     # nsenter does not change the control group
            procs = self._scope.procs_files
            words = ["sh", "-c", 'for f in $PROCS; do echo 0 >"$f" || exit; done; exec "$@"', "sh"]
            words = ["env", "PROCS=" + " ".join(map(str, procs)), *words]
        words += [*self.host.enter(), "nsenter", f"--target={self.leader}", "--mount", "--pid", "--uts", "--ipc"]
        words += ["--net"] if self.network_namespace else []
        words += ["--user"] if self.user_namespace else []
        if self.user_namespace and (uid, gid) == (0, 0) and self.uid_map == [(0, 0, 1)]:
            words += ["--preserve-credentials"]     # one id: the kernel forbids setgroups(2) there
        else:
            words += [f"--setuid={uid}", f"--setgid={gid}"]
        return [*words, "--", "setpriv", "--pdeathsig", "KILL"]

    def exec(self, argv: Sequence[str | Path], *, uid: int = 0, gid: int = 0, timeout: float = RUN_TIMEOUT,
             check: bool = False, input: str | None = None,  # noqa: A002 - subprocess.run()'s name for it
             env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """As TestHost.run, inside."""
        return run([*self.enter(uid=uid, gid=gid), *map(str, argv)], timeout, check, input, env)

    def popen(self, argv: Sequence[str | Path], *, uid: int = 0, gid: int = 0,
              stdin: int | IO[Any] | None = subprocess.DEVNULL, stdout: int | IO[Any] | None = None,
              stderr: int | IO[Any] | None = None) -> subprocess.Popen[bytes]:
        """A child that runs inside. Its `pid` is nsenter's, the command's parent. It ends with the container."""
        words = [*self.enter(uid=uid, gid=gid), *map(str, argv)]
        child = subprocess.Popen(words, stdin=stdin, stdout=stdout, stderr=stderr)
        self._children.append(child)
        return child

    # --- its network ---

    @property
    def host_ifindex(self) -> int:
        """Of the host's end of its link."""
        assert self.host_interface is not None, "this container has no link"
        text = self.host.run(["ip", "-oneline", "link", "show", "dev", self.host_interface], check=True).stdout
        return int(text.partition(":")[0])

    def add_address(self, cidr: str, interface: str = "host0") -> None:
        self.exec(["ip", "address", "add", cidr, "dev", interface, *flags(cidr).split()], check=True)

    def del_address(self, cidr: str, interface: str = "host0") -> None:
        self.exec(["ip", "address", "del", cidr, "dev", interface], check=True)

    @property
    def plain_addresses(self) -> list[str]:
        """The addresses that it was started with, without the prefix length."""
        return [cidr.partition("/")[0] for cidr in self.addresses]

    @property
    def ipv4(self) -> str:
        """The first of them that is one."""
        return next(address for address in self.plain_addresses if ":" not in address)

    @property
    def ipv6(self) -> str:
        found = [address for address in self.plain_addresses if ":" in address]
        if not found:
            raise Unavailable("the kernel has no IPv6")
        return found[0]

    # --- its users ---

    def host_uid(self, uid: int) -> int:
        """The host's id of a user inside. KeyError where the map has none."""
        return translate(self.uid_map, uid)

    def host_gid(self, gid: int) -> int:
        return translate(self.gid_map, gid)

    @property
    def has_scope(self) -> bool:
        """libsystemd finds its unit."""
        return self._scope is not None

    def has_user_namespace_of_its_own(self) -> bool:
        return namespace(self.leader, "user") != namespace(self.host.pid, "user")


def default_map(spare: tuple[int, int], number: int) -> list[tuple[int, int, int]]:
    """The ids of the host's container `number`, from 0: 65536, fewer where few were granted, one where none were."""
    first, count = spare
    each = min(CONTAINER_IDS, count // 4)
    if each == 0:
        return [(0, 0, 1)]
    if (number + 1) * each > count:
        raise Unavailable(f"the {count} subordinate ids are used up")
    return [(0, first + number * each, each)]


def flags(cidr: str) -> str:
    """No duplicate address detection: an IPv6 address would be tentative for a second or two."""
    return "nodad" if ":" in cidr else ""


def translate(extents: Extents, inside: int) -> int:
    for first, outside, count in extents:
        if first <= inside < first + count:
            return outside + inside - first
    raise KeyError(inside)
