# SPDX-License-Identifier: MIT
"""Ways in which a container is connected, and connecting to it by its name as a program does."""

import ipaddress
import json
import subprocess
import sys
from typing import Any

from tests.endtoend.conftest import World
from tests.lab import Container, wait_for

PORT = 7000

_SERVER = f"""
import socket
server = socket.create_server(("::", {PORT}), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    server.accept()[0].close()
"""

_CONNECT = """
import socket, sys
try:
    found = socket.getaddrinfo(sys.argv[1], int(sys.argv[2]), type=socket.SOCK_STREAM)
    family, kind, _, _, address = found[0]
    with socket.socket(family, kind) as connection:
        connection.settimeout(5)
        connection.connect(address)
    print(socket.getnameinfo(address, socket.NI_NUMERICHOST)[0])
except OSError as error:
    print("failed:", error)
"""


def serve(world: World, container: Container) -> None:
    """Take TCP connections on every address inside."""
    # By a process of the host's: who is root inside may not be allowed to read this interpreter.
    server = world.host.popen([*_in_network_of(container), sys.executable, "-c", _SERVER], stdout=subprocess.PIPE)
    assert server.stdout is not None
    with server.stdout as said:
        assert said.readline() == b"ready\n"


def connected(world: World, name: str) -> str:
    """The first address that getaddrinfo gives, where it took a connection from the host; else what went wrong."""
    return world.host.python(_CONNECT, name, str(PORT), check=True).stdout.strip()


def reached_from(world: World, container: Container, address: str) -> bool:
    code = f"import socket; socket.create_connection(({address!r}, {PORT}), 5).close()"
    return world.host.run([*_in_network_of(container), sys.executable, "-c", code]).returncode == 0


def _in_network_of(container: Container) -> list[str]:
    return ["nsenter", f"--net=/proc/{container.leader}/ns/net", "--"]


def ip(world: World, *lines: str) -> None:
    """Lines of `ip -batch` on the host."""
    world.host.run(["ip", "-batch", "-"], input="\n".join(lines), check=True)


def ip_inside(container: Container, *lines: str) -> None:
    container.exec(["ip", "-batch", "-"], input="\n".join(lines), check=True)


def link_local(container: Container, interface: str = "host0") -> str:
    """Its IPv6 link-local address, once it is there."""
    def find() -> str:
        show = container.exec(["ip", "-6", "-o", "address", "show", "dev", interface, "scope", "link"]).stdout
        return show.split()[3].partition("/")[0] if show and "tentative" not in show else ""

    return wait_for(find, what=f"the link-local address of {interface}")


def second_veth(world: World, container: Container, host_address: str, address: str) -> None:
    ip(world, f"link add ve2-{container.name} type veth peer name host1 netns {container.leader}",
       f"address add {host_address} dev ve2-{container.name}", f"link set ve2-{container.name} up")
    ip_inside(container, f"address add {address} dev host1", "link set host1 up")


def bridged(world: World, name: str, bridge: str, address: str, **options: Any) -> Container:
    """A container whose veth is a port of a bridge of the host's, which is there already."""
    container = world.host.container(name, addresses=[address], host_addresses=[], **options)
    ip(world, f"link set {container.host_interface} master {bridge}")
    return container


def given(world: World, name: str) -> dict[str, str]:
    """Each address of a machine, and in a word why it is given or left out."""
    found = json.loads(world.ctl("explain", name, "--json"))
    return {str(ipaddress.ip_address(bytes(a["address"]))): a["reason"] for a in found["addresses"]}
