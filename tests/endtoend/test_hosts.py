# SPDX-License-Identifier: MIT
"""Container names through unmodified programs: getent, ping."""

import pytest

from tests.endtoend.conftest import MakeHost, World


def test_getent_gives_a_containers_addresses(world: World) -> None:
    web = world.machine("web")
    assert world.addresses("ahosts", "web") == [web.ipv6, web.ipv4]
    assert world.addresses("ahostsv4", "web") == [web.ipv4]
    assert world.addresses("ahostsv6", "web") == [web.ipv6]
    assert world.getent("hosts", "web") == [f"{web.ipv6} web"]
    assert world.getent("ahosts", "web")[0] == f"{web.ipv6} STREAM web"


@pytest.mark.parametrize("spelling", ["WEB", "web.", "Web."])
def test_case_and_a_final_dot_do_not_matter(world: World, spelling: str) -> None:
    web = world.machine("web")
    assert world.getent("hosts", spelling) == [f"{web.ipv6} web"]
    assert world.addresses("ahostsv4", spelling) == [web.ipv4]


def test_the_name_given_back_is_the_machines(world: World) -> None:
    web = world.machine("Web")
    assert world.getent("hosts", "wEB") == [f"{web.ipv6} Web"]
    assert world.getent("hosts", web.ipv4) == [f"{web.ipv4} Web"]


def test_an_address_leads_back_to_the_name(world: World) -> None:
    web = world.machine("web")
    assert world.getent("hosts", web.ipv4) == [f"{web.ipv4} web"]
    assert world.getent("hosts", web.ipv6) == [f"{web.ipv6} web"]
    assert world.getent("hosts", "10.213.99.99") == []


@pytest.mark.parametrize("name", ["a.name.with.dots", "x" * 60, f"{'x' * 60}.abc"])
def test_names_of_every_form(world: World, name: str) -> None:
    machine = world.machine(name)
    assert world.getent("hosts", name) == [f"{machine.ipv6} {name}"]
    assert world.getent("hosts", machine.ipv6) == [f"{machine.ipv6} {name}"]


def test_ping_by_name(world: World) -> None:
    web = world.machine("web")
    for family, address in (("-4", web.ipv4), ("-6", web.ipv6)):
        done = world.host.run(["ping", family, "-c1", "-W5", "web"], check=True)
        assert f"({address})" in done.stdout.splitlines()[0]
        assert "1 received" in done.stdout


def test_many_addresses_make_glibcs_buffer_grow(world: World) -> None:
    """23 addresses: more than what fits the kilobyte that glibc tries first."""
    ipv4 = [f"10.99.0.{n}" for n in range(2, 24)]
    world.machine("web", addresses=[*(f"{a}/24" for a in ipv4), "fd00:99::2/64"], host_addresses=["10.99.0.1/24",
                                                                                                  "fd00:99::1/64"])
    assert sorted(world.addresses("ahosts", "web")) == sorted([*ipv4, "fd00:99::2"])
    assert sorted(world.addresses("ahostsv4", "web")) == sorted(ipv4)
    assert world.addresses("ahostsv6", "web") == ["fd00:99::2"]
    assert len(world.getent("hosts", "web")) == 1  # gethostbyname2: IPv6 first, and it has one


def test_a_family_that_a_machine_has_not_is_no_data(world: World) -> None:
    """NOTFOUND for a machine without the family, UNAVAIL for a name that is no machine's."""
    world.machine("web", addresses=["10.99.0.2/24"], host_addresses=["10.99.0.1/24"])
    code = """
import ctypes, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
shim = ctypes.CDLL("libnss_mymachines.so.2")
class hostent(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("aliases", ctypes.c_void_p), ("type", ctypes.c_int),
                ("length", ctypes.c_int), ("list", ctypes.c_void_p)]
for name, family in ((b"web", socket.AF_INET), (b"web", socket.AF_INET6), (b"db", socket.AF_INET)):
    result, buffer, errno, h_errno = hostent(), ctypes.create_string_buffer(4096), ctypes.c_int(), ctypes.c_int()
    status = shim._nss_mymachines_gethostbyname2_r(
        name, family, ctypes.byref(result), buffer, 4096, ctypes.byref(errno), ctypes.byref(h_errno))
    print(status, h_errno.value if status != 1 else 0)
"""
    # nss.h: SUCCESS 1, NOTFOUND 0, UNAVAIL -1; netdb.h: HOST_NOT_FOUND 1, NO_DATA 4
    assert world.host.python(code, check=True).stdout.splitlines() == ["1 0", "0 4", "-1 1"]


def test_no_configuration_loses_what_comes_behind_us(make_host: MakeHost) -> None:
    """An unknown name goes on to the next module, with [NOTFOUND=return] too; a machine's missing family does not."""
    host = make_host(hosts="mymachines [NOTFOUND=return] files",
                     files={"/etc/hosts": "192.0.2.1 elsewhere web\n2001:db8::1 web\n"})
    world = World(host, host.start_daemon())
    world.machine("web", addresses=["10.99.0.2/24"], host_addresses=["10.99.0.1/24"])
    assert world.addresses("ahostsv4", "elsewhere") == ["192.0.2.1"]
    assert world.addresses("ahostsv4", "web") == ["10.99.0.2"]
    assert world.addresses("ahostsv6", "web") == ["::ffff:10.99.0.2"]  # getent asks with AI_V4MAPPED


def test_an_unknown_name_is_said_to_be_unknown(world: World) -> None:
    done = world.host.python("import socket\ntry: socket.getaddrinfo('nobody-here', None)\n"
                             "except socket.gaierror as error: print(error.errno == socket.EAI_NONAME, error)")
    assert done.stdout.startswith("True"), done.stdout


def test_a_vm_counts_too(world: World) -> None:
    vm = world.machine("vm1", "--class", "vm")
    assert world.addresses("ahostsv4", "vm1") == [vm.ipv4]


def test_a_container_without_a_network_of_its_own_has_users_alone(world: World) -> None:
    plain = world.machine("plain", network_namespace=False)
    assert world.getent("ahosts", "plain") == []
    assert world.getent("passwd", plain.host_uid(7))[0].startswith("vu-plain-7:")


def test_link_local_addresses_with_their_scope_where_nothing_else_is(world: World) -> None:
    """The scope id is the host's interface, which the registrant named, or which the kernel tells."""
    # getent asks with AI_ADDRCONFIG: a host with addresses of one family alone would ask for that one by
    # gethostbyname3_r, which has no room for a scope id.
    world.host.run(["ip", "address", "add", "192.0.2.1/24", "dev", "lo"], check=True)
    for number, named in enumerate((True, False)):
        name = f"bare{number}"
        bare = world.host.container(name, addresses=[], host_addresses=[])
        world.register(bare, name, *(("--interface", bare.host_interface) if named else ()))
        show = bare.exec(["ip", "-6", "-o", "address", "show", "dev", "host0"], check=True).stdout
        address = show.split()[3].partition("/")[0]
        assert address.startswith("fe80:")
        assert world.ctl("resolve", name) == f"{address}%{bare.host_interface} {name}\n"
        assert world.addresses("ahosts", name) == [f"{address}%{bare.host_ifindex}"]
        ping = world.host.run(["ping", "-6", "-c1", "-W5", name])
        assert ping.returncode == 0, ping.stdout + ping.stderr
