# SPDX-License-Identifier: MIT
"""A guest chooses its addresses; which of them are believed is the host's own routing to say."""

from tests.endtoend.conftest import EVENT_SECONDS, World
from tests.lab import wait_for


def test_an_address_that_the_host_does_not_route_there_is_not_given(world: World) -> None:
    web, db = world.machine("web"), world.machine("db")
    for claimed in ("8.8.8.8/32", db.ipv4 + "/32", "172.17.0.1/16"):
        web.add_address(claimed)
    wait_for(lambda: "172.17.0.1" in world.ctl("show", "web"), EVENT_SECONDS, "the guest's claims to be known")
    assert world.addresses("ahosts", "web") == [web.ipv6, web.ipv4]
    assert world.getent("hosts", "8.8.8.8") == world.getent("hosts", "172.17.0.1") == []
    assert world.getent("hosts", db.ipv4) == [f"{db.ipv4} db"]
    db.kill()
    wait_for(lambda: not world.getent("hosts", "db"), EVENT_SECONDS, "the neighbour to be gone")
    assert world.getent("hosts", db.ipv4) == []  # the guest that claims it does not inherit it


def test_the_hosts_routes_are_followed(world: World) -> None:
    """Without any route all are given and none leads back; with one, that one is; without it, as before."""
    # getent asks with AI_ADDRCONFIG: on a host without an IPv4 address glibc would ask nobody for one.
    world.host.run(["ip", "address", "add", "192.0.2.1/24", "dev", "lo"], check=True)
    web = world.machine("web", addresses=["10.99.0.2/24", "10.98.0.2/24"], host_addresses=[])
    assert sorted(world.addresses("ahostsv4", "web")) == ["10.98.0.2", "10.99.0.2"]
    assert world.getent("hosts", "10.99.0.2") == []
    for verb, given in (("add", ["10.99.0.2"]), ("del", ["10.98.0.2", "10.99.0.2"])):
        world.host.run(["ip", "address", verb, "10.99.0.1/24", "dev", str(web.host_interface)], check=True)
        wait_for(lambda given=given: sorted(world.addresses("ahostsv4", "web")) == given,  # type: ignore[misc]
                 EVENT_SECONDS, f"what is given after ip address {verb}")
        assert world.getent("hosts", "10.99.0.2") == (["10.99.0.2 web"] if verb == "add" else [])


def test_a_port_of_a_bridge_is_reached_through_the_bridge(world: World) -> None:
    web = world.machine("web", addresses=["10.99.0.2/24"], host_addresses=[])
    for line in ("link add br0 type bridge", f"link set {web.host_interface} master br0", "link set br0 up",
                 "address add 10.99.0.1/24 dev br0"):
        world.host.run(["ip", *line.split()], check=True)
    wait_for(lambda: world.getent("hosts", "10.99.0.2") == ["10.99.0.2 web"], EVENT_SECONDS, "the way over the bridge")
    assert world.host.run(["ping", "-c1", "-W5", "web"]).returncode == 0
