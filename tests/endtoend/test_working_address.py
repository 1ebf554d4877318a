# SPDX-License-Identifier: MIT
"""The first address that getaddrinfo gives of a container takes a connection, however it is connected."""

import json
import socket

import pytest

from tests.endtoend.conftest import EVENT_SECONDS, MakeHost, World
from tests.endtoend.topologies import (
    bridged,
    connected,
    given,
    ip,
    ip_inside,
    link_local,
    reached_from,
    second_veth,
    serve,
)
from tests.lab import wait_for


def test_veth_with_link_local_addresses_alone(world: World) -> None:
    web = world.machine("web", addresses=[], host_addresses=[])
    serve(world, web)
    wait_for(lambda: connected(world, "web") == f"{link_local(web)}%{web.host_interface}", what="a connection")


def test_veth_with_ipv4_link_local_and_an_address_by_dhcp(world: World) -> None:
    web = world.machine("web", addresses=["169.254.7.8/16", "10.99.0.2/24"],
                        host_addresses=["169.254.7.7/16", "10.99.0.1/24"])
    serve(world, web)
    assert connected(world, "web") == "10.99.0.2"
    assert world.addresses("ahosts", "web") == ["10.99.0.2"]
    web.del_address("10.99.0.2/24")
    # IPv6's has its scope with it, and goes first.
    wait_for(lambda: connected(world, "web") == f"{link_local(web)}%{web.host_interface}", what="what is left to work")
    assert world.addresses("ahostsv4", "web") == ["169.254.7.8"]


def test_veth_and_a_bridge_of_the_guests_own(world: World) -> None:
    """As docker makes one inside; the host has the same network, as its own docker would make it."""
    ip(world, "link add docker0 type bridge", "address add 172.17.0.1/16 dev docker0", "link set docker0 up")
    web = world.machine("web")
    ip_inside(web, "link add docker0 type bridge", "address add 172.17.0.1/16 dev docker0",
              "address add 172.17.0.5/16 dev docker0", "address add fd00:172::1/64 dev docker0 nodad",
              "link set docker0 up")
    serve(world, web)
    wait_for(lambda: given(world, "web").get("fd00:172::1") == "inside", what="the bridge to be known")
    assert connected(world, "web") == web.ipv6
    assert world.addresses("ahosts", "web") == [web.ipv6, web.ipv4]
    assert given(world, "web")["172.17.0.1"] == "of-the-host"


def test_link_local_addresses_alone_and_a_bridge_of_the_guests_own(world: World) -> None:
    """The bridge has the only global address, and nobody outside can use it."""
    ip(world, "address add 192.0.2.1/24 dev lo", "address add 2001:db8::1/128 dev lo nodad")
    web = world.machine("web", addresses=[], host_addresses=[])
    ip_inside(web, "link add docker0 type bridge", "address add 172.17.0.1/16 dev docker0", "link set docker0 up")
    serve(world, web)
    wait_for(lambda: "172.17.0.1" in given(world, "web"), what="the bridge to be known")
    assert connected(world, "web") == f"{link_local(web)}%{web.host_interface}"
    assert given(world, "web")["172.17.0.1"] == "inside"
    assert world.addresses("ahostsv4", "web") == []
    # A bridge upon the link is of the link.
    ip_inside(web, "link set host0 master docker0")
    wait_for(lambda: given(world, "web")["172.17.0.1"] == "unrouted", what="the bridge to be on the host's link")


def test_two_veths(world: World) -> None:
    """Of two links the host has addresses on; and of one alone."""
    web = world.machine("web", addresses=["10.99.0.2/24"], host_addresses=["10.99.0.1/24"])
    serve(world, web)
    second_veth(world, web, "10.98.0.1/24", "10.98.0.2/24")
    wait_for(lambda: sorted(world.addresses("ahosts", "web")) == ["10.98.0.2", "10.99.0.2"], what="both to be given")
    for address in ("10.98.0.2", "10.99.0.2"):
        assert world.getent("hosts", address) == [f"{address} web"]
    assert connected(world, "web") in ("10.98.0.2", "10.99.0.2")
    ip(world, "address del 10.99.0.1/24 dev ve-web")
    wait_for(lambda: world.addresses("ahosts", "web") == ["10.98.0.2"], EVENT_SECONDS, "what the host has no way to")
    assert connected(world, "web") == "10.98.0.2"


def test_two_veths_with_link_local_addresses_alone(world: World) -> None:
    """Each has the scope of its own link."""
    web = world.machine("web", addresses=[], host_addresses=[])
    second_veth(world, web, "192.0.2.1/24", "fe80::77/64")
    serve(world, web)
    wait_for(lambda: "fe80::77%ve2-web web\n" in world.ctl("resolve", "web"), what="the second link's address")
    assert f"{link_local(web)}%{web.host_interface} web\n" in world.ctl("resolve", "web")
    assert "%ve" in connected(world, "web")


def test_a_port_of_a_bridge(world: World) -> None:
    ip(world, "link add br0 type bridge", "address add 10.99.0.1/24 dev br0", "link set br0 up")
    web = bridged(world, "web", "br0", "10.99.0.2/24")
    world.register(web)
    serve(world, web)
    wait_for(lambda: connected(world, "web") == "10.99.0.2", what="a connection")
    bare = bridged(world, "bare", "br0", "fe80::5:6:7:8/64")
    world.register(bare)
    serve(world, bare)
    wait_for(lambda: connected(world, "bare").endswith("%br0"), what="a connection with the bridge's scope")


def test_macvlan(world: World) -> None:
    """The host does not reach its own macvlan child. Others on the link do, and a guest's inventions are left out."""
    lan = world.host.container("lan", link=False)
    web = world.host.container("web", link=False)
    ip(world, f"link add up0 type veth peer name eth0 netns {lan.leader}", "address add 192.0.2.1/24 dev up0",
       "link set up0 up", "link add link up0 name mv0 type macvlan mode bridge", f"link set mv0 netns {web.leader}")
    ip_inside(lan, "address add 192.0.2.2/24 dev eth0", "link set eth0 up")
    ip_inside(web, "address add 192.0.2.5/24 dev mv0", "address add 8.8.8.8/32 dev mv0", "link set mv0 up")
    ip(world, "route add default via 192.0.2.2")
    world.register(web)
    serve(world, web)
    wait_for(lambda: given(world, "web").get("192.0.2.5") == "beside", what="the link below to be known")
    assert world.addresses("ahosts", "web") == ["192.0.2.5"]
    assert given(world, "web")["8.8.8.8"] == "routed-elsewhere"
    assert world.getent("hosts", "192.0.2.5") == []
    wait_for(lambda: reached_from(world, lan, "192.0.2.5"), what="a connection from another host of the link")


def test_tentative_and_deprecated_addresses(world: World) -> None:
    web = world.machine("web", addresses=["10.99.0.2/24"], host_addresses=["10.99.0.1/24", "fd00:99::1/64"])
    serve(world, web)
    for key, value in (("accept_dad", 1), ("dad_transmits", 200)):
        web.exec(["sysctl", "-qw", f"net.ipv6.conf.host0.{key}={value}"], check=True)
    ip_inside(web, "address add fd00:99::7/64 dev host0",
              "address add fd00:99::8/64 dev host0 nodad preferred_lft 0", "address add fd00:99::9/64 dev host0 nodad")
    wait_for(lambda: connected(world, "web") == "fd00:99::9", what="the one that can be used")
    assert sorted(world.addresses("ahosts", "web")) == ["10.99.0.2", "fd00:99::9"]
    reasons = given(world, "web")
    assert (reasons["fd00:99::7"], reasons["fd00:99::8"]) == ("tentative", "deprecated")
    ip_inside(web, "address change fd00:99::9/64 dev host0 preferred_lft 0")
    wait_for(lambda: connected(world, "web") == "10.99.0.2", what="none of these to be left")


def test_an_address_that_comes_and_goes(world: World) -> None:
    web = world.machine("web", addresses=["10.99.0.2/24"], host_addresses=["10.99.0.1/24"])
    serve(world, web)
    for _ in range(5):
        web.add_address("10.99.0.3/24")
        wait_for(lambda: world.getent("hosts", "10.99.0.3") == ["10.99.0.3 web"], EVENT_SECONDS, "the address to come")
        web.del_address("10.99.0.3/24")
        wait_for(lambda: world.getent("hosts", "10.99.0.3") == [], EVENT_SECONDS, "the address to go")
        assert connected(world, "web") == "10.99.0.2"


def test_a_bridge_that_leads_out_lends_no_guest_the_worlds_addresses(world: World) -> None:
    """8.8.8.8 leaves by the very bridge that the guest is a port of, to a router; and the router's own is its own."""
    ip(world, "link add br0 type bridge", "address add 10.99.0.1/24 dev br0", "link set br0 up")
    router = bridged(world, "router", "br0", "10.99.0.254/24")
    world.register(router)
    ip(world, "route add default via 10.99.0.254")
    mallory = bridged(world, "mallory", "br0", "10.99.0.66/24")
    world.register(mallory)
    for claimed in ("8.8.8.8/32", "10.99.0.1/32", "10.99.0.254/32"):
        mallory.add_address(claimed)
    wait_for(lambda: given(world, "mallory").get("8.8.8.8") == "routed-elsewhere", what="the claims to be known")
    assert given(world, "mallory")["10.99.0.1"] == "of-the-host"
    assert world.getent("hosts", "8.8.8.8") == world.getent("hosts", "10.99.0.1") == []
    assert world.getent("hosts", "10.99.0.254") == ["10.99.0.254 router"]
    assert "8.8.8.8" not in world.addresses("ahostsv4", "mallory")


def test_a_container_with_the_hosts_network_has_no_addresses_and_no_error(world: World) -> None:
    world.machine("plain", network_namespace=False)
    assert world.getent("ahosts", "plain") == []
    assert world.ctl("explain", "plain") == (
        "plain has no addresses: it has the host's network, and so none of its own\n")
    assert "Addresses" not in world.ctl("show", "plain")
    assert "addresses of machine plain" not in world.daemon.log


def test_explain_tells_interface_scope_source_and_reason(world: World) -> None:
    web = world.machine("web")
    web.add_address("8.8.8.8/32")
    wait_for(lambda: "8.8.8.8" in given(world, "web"), what="the claim to be known")
    lines = [line.split() for line in world.ctl("explain", "web").splitlines()]
    assert lines[0] == ["Addresses", "of", "web:"]
    found = {line[0]: line[1:6] for line in lines[2:]}
    assert found[web.ipv4] == ["host0", "inside", "global", "guest", "yes"]
    assert found["8.8.8.8"] == ["host0", "inside", "global", "guest", "no"]
    assert found["127.0.0.1"] == ["lo", "inside", "host", "guest", "no"]
    assert f"{web.ipv4} (host0 inside, scope global, from the machine's own list)" in world.ctl("show", "web")
    assert world.ctl("explain", "nobody", check=False).startswith("3: ")
    # Whoever may look up names may ask why.
    fields = json.loads(world.ctl("explain", "web", "--json", uid=65534))
    assert next(a for a in fields["addresses"] if a["address"] == [8, 8, 8, 8])["given"] is False


def test_another_name_without_the_managers_decoration(world: World) -> None:
    first = world.machine("qemu-3-web")
    assert world.addresses("ahosts", "WEB") == [first.ipv6, first.ipv4]
    assert world.getent("hosts", "web") == [f"{first.ipv6} qemu-3-web"]
    assert world.getent("hosts", first.ipv4) == [f"{first.ipv4} qemu-3-web"]
    assert world.getent("passwd", "vu-web-0") == []
    assert world.ctl("explain", "web").startswith("Addresses of qemu-3-web (also web):")
    second = world.machine("lxc-4-web")
    assert world.getent("hosts", "web") == [f"{first.ipv6} qemu-3-web"]
    real = world.machine("web")
    assert world.getent("hosts", "web") == [f"{real.ipv6} web"]
    first.kill()
    real.kill()
    wait_for(lambda: world.getent("hosts", "web") == [f"{second.ipv6} lxc-4-web"], EVENT_SECONDS, "the next to have it")
    world.daemon.kill9()
    world.restart()
    assert world.getent("hosts", "web") == [f"{second.ipv6} lxc-4-web"]


@pytest.mark.parametrize("name", ["qemu-3-localhost", "qemu-3-labhost", "qemu-3-github.com"])
def test_names_that_nobody_may_have_are_no_aliases_either(world: World, name: str) -> None:
    world.machine(name)
    for asked in ("localhost", "labhost", "github.com"):
        assert not [line for line in world.getent("ahosts", asked) if "qemu" in line]
    assert "also" not in world.ctl("explain", name)


def test_what_glibc_asks_for_by_family(world: World) -> None:
    """Mapped addresses, AF_INET6 alone, and AI_ADDRCONFIG: glibc asks nobody for a family that the host lacks."""
    world.machine("four", addresses=["10.99.0.2/24"], host_addresses=["10.99.0.1/24"])
    assert world.addresses("ahostsv6", "four") == ["::ffff:10.99.0.2"]  # getent asks with AI_V4MAPPED
    code = """
import socket, sys
try:
    found = socket.getaddrinfo(sys.argv[1], None, socket.AF_INET6, flags=int(sys.argv[2]))
    print(*dict.fromkeys(address[0] for *_, address in found))
except socket.gaierror as error:
    print(error.errno)
"""
    mapped, configured = socket.AI_V4MAPPED, socket.AI_ADDRCONFIG

    def asked(name: str, flags: int) -> str:
        return world.host.python(code, name, str(flags), check=True).stdout.strip()

    assert asked("four", 0) in (str(socket.EAI_NODATA), str(socket.EAI_ADDRFAMILY), str(socket.EAI_NONAME))
    assert asked("four", mapped) == "::ffff:10.99.0.2"
    six = world.machine("six", addresses=["fd00:99::2/64"], host_addresses=["fd00:99::1/64"])
    assert asked("six", 0) == asked("six", mapped) == asked("six", configured) == six.ipv6


def test_a_host_without_ipv6_is_given_ipv4(make_host: MakeHost) -> None:
    """A program that says AI_ADDRCONFIG, as most do, gets no address that the host could not use."""
    host = make_host()
    world = World(host, host.start_daemon())
    web = world.machine("web", addresses=["10.99.0.2/24", "fd00:99::2/64"],
                        host_addresses=["10.99.0.1/24", "fd00:99::1/64"])
    host.run(["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"], check=True)
    serve(world, web)
    assert world.addresses("ahosts", "web") == ["10.99.0.2"]
    assert connected(world, "web") == "10.99.0.2"
