# SPDX-License-Identifier: MIT
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.leases import lease as lease_module
from resolver.leases.dnsmasq import parse_dnsmasq
from resolver.leases.lease import FOREVER, Lease, Parsed
from resolver.leases.objects import parse_libvirt, parse_networkd

MAC, IPV4, IPV6 = bytes.fromhex("525400aabbcc"), bytes([10, 1, 0, 5]), bytes.fromhex("fd01" + 26 * "0" + "05")
PARSERS = [parse_dnsmasq, parse_libvirt, parse_networkd]
Parser = Callable[[bytes, str], Parsed]

# As dnsmasq 2.90 writes it.
DNSMASQ = b"""\
1795465086 52:54:00:aa:bb:cc 10.1.0.5 web 01:52:54:00:aa:bb:cc
0 52:54:00:aa:bb:cd 10.1.0.6 * *
1795465086 06-52:54:00:aa:bb:ce 10.1.0.7 * *
duid 00:01:00:01:31:5b:7f:3c:02:00:00:00:00:01
1795465086 11189196 fd01::5 web 00:01:00:01:31:5b:7f:3c:52:54:00:aa:bb:cc
"""
# As libvirt_leaseshelper 9.0 writes it.
LIBVIRT = b"""[
  {
    "ip-address": "10.1.0.5",
    "mac-address": "52:54:00:aa:bb:cc",
    "hostname": "web",
    "client-id": "01:52:54:00:aa:bb:cc",
    "expiry-time": 1795465086
  },
  {
    "iaid": "12",
    "ip-address": "fd01::5",
    "mac-address": "52:54:00:aa:bb:cc",
    "hostname": "web",
    "client-id": "00:01:00:01:aa",
    "server-duid": "00:01",
    "expiry-time": 0
  },
  {
    "iaid": "12",
    "ip-address": "fd01::6"
  }
]
"""
# As systemd-networkd 257 writes it.
NETWORKD = (b'{"BootID":"6a6567c7b8d64adabedc7ea3c677345e","Address":[10,1,0,1],"PrefixLength":24,"Leases":[{'
            b'"ClientId":[1,82,84,0,170,187,204],"Address":[10,1,0,5],"Hostname":"web","HardwareAddressType":1,'
            b'"HardwareAddressLength":6,"HardwareAddress":[82,84,0,170,187,204,0,0,0,0,0,0,0,0,0,0],'
            b'"ExpirationUSec":4491665280,"ExpirationRealtimeUSec":1795465086937094}]}\n')


def test_dnsmasqs_file() -> None:
    assert parse_dnsmasq(DNSMASQ, "br0") == Parsed([
        Lease(MAC, 2, IPV4, 1795465086.0, "br0"),
        Lease(bytes.fromhex("525400aabbcd"), 2, bytes([10, 1, 0, 6]), FOREVER, "br0"),
    ])


def test_dnsmasqs_file_while_it_is_written() -> None:
    """It writes over it in place. A line that is cut short could hold another address: 10.1.0.5 of 10.1.0.55."""
    parsed = parse_dnsmasq(DNSMASQ[: DNSMASQ.index(b" web")], "")
    assert (parsed.leases, parsed.problems) == ([], ["the last line is cut short"])


def test_libvirts_file() -> None:
    assert parse_libvirt(LIBVIRT, "virbr0") == Parsed([
        Lease(MAC, 2, IPV4, 1795465086.0, "virbr0"), Lease(MAC, 10, IPV6, FOREVER, "virbr0")])
    assert parse_libvirt(b"", "") == parse_libvirt(b"[\n\n]\n", "") == Parsed()


def test_networkds_file() -> None:
    assert parse_networkd(NETWORKD, "br0") == Parsed([Lease(MAC, 2, IPV4, 1795465086.937094, "br0")])
    assert parse_networkd(NETWORKD.replace(b'Type":1', b'Type":32'), "br0") == Parsed()
    assert parse_networkd(b"{}", "") == Parsed()


def test_a_client_chooses_its_name_and_nothing_more() -> None:
    """Whatever it says of itself, the lines and fields stay what they are."""
    name = b'x","mac-address":"52:54:00:00:00:01'
    entry = json.loads(LIBVIRT)[0] | {"hostname": name.decode()}
    assert [lease.mac for lease in parse_libvirt(json.dumps([entry]).encode(), "").leases] == [MAC]
    line = b"9 52:54:00:aa:bb:cc 10.1.0.5 52:54:00:00:00:01 *\n"
    assert [lease.mac for lease in parse_dnsmasq(line, "").leases] == [MAC]


@pytest.mark.parametrize("line", [
    b"", b"x", b"9 52:54:00:aa:bb:cc 10.1.0.5 web", b"-9 52:54:00:aa:bb:cc 10.1.0.5 * *",
    b"9 52:54:00:aa:bb 10.1.0.5 * *", b"9 52:54:00:aa:bb:cc:dd 10.1.0.5 * *", b"9 52:54:00:aa:bb:cc 10.1.0 * *",
    b"9 52:54:00:aa:bb:cc 10.1.0.555 * *", b"9 52:54:00:aa:bb:cc fe80::1%eth0 * *", b"\xff\xff \xff \xff * *",
    "²² 52:54:00:aa:bb:cc 10.1.0.5 * *".encode(), b"9" * 19 + b" 52:54:00:aa:bb:cc 10.1.0.5 * *",
])
def test_what_is_right_is_kept(line: bytes) -> None:
    good = DNSMASQ.splitlines(keepends=True)[0]
    parsed = parse_dnsmasq(good + line + b"\n" + good.replace(b".5", b".9"), "")
    assert [lease.packed[3] for lease in parsed.leases] == [5, 9]
    assert len(parsed.problems) == parsed.dropped == 1


@pytest.mark.parametrize("change", [
    {"ip-address": None}, {"ip-address": 5}, {"mac-address": "x"}, {"mac-address": ["52:54:00:aa:bb:cc"]},
    {"expiry-time": "9"}, {"expiry-time": -1}, {"expiry-time": True}, {"expiry-time": 1e300}, {"expiry-time": 10**30},
])
def test_what_is_right_is_kept_of_libvirts(change: dict[str, Any]) -> None:
    good = json.loads(LIBVIRT)[0]
    parsed = parse_libvirt(json.dumps([good, 7, good | change, good]).encode(), "")
    assert [lease.packed for lease in parsed.leases] == [IPV4, IPV4]
    assert parsed.dropped == 2


@pytest.mark.parametrize("change", [
    {"Address": [10, 1, 0]}, {"Address": [10, 1, 0, 256]}, {"Address": "10.1.0.5"}, {"HardwareAddress": None},
    {"HardwareAddress": [1] * 17}, {"HardwareAddress": [True] * 6}, {"ExpirationRealtimeUSec": "soon"},
])
def test_what_is_right_is_kept_of_networkds(change: dict[str, Any]) -> None:
    whole = json.loads(NETWORKD)
    good = whole["Leases"][0]
    parsed = parse_networkd(json.dumps(whole | {"Leases": [good | change, good]}).encode(), "")
    assert [lease.packed for lease in parsed.leases] == [IPV4]
    assert parsed.dropped == 1


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("data", [b"x" * 100, b"[" * 100_000, b"7", b"null", b'{"Leases": 7}', b'[[[]]]', b"\0" * 99])
def test_what_is_no_such_file(parser: Parser, data: bytes) -> None:
    parsed = parser(data, "")
    assert parsed.leases == []
    assert parsed.problems


@given(st.sampled_from(PARSERS), st.binary(), st.integers(0, 2000), st.sampled_from([DNSMASQ, LIBVIRT, NETWORKD]))
def test_total(parser: Parser, noise: bytes, at: int, whole: bytes) -> None:
    for data in (noise, whole[:at] + noise + whole[at:], whole[:at], whole[:at] + noise + whole[at + len(noise):]):
        parsed = parser(data, "br0")
        assert all(len(lease.mac) == 6 and len(lease.packed) in (4, 16) for lease in parsed.leases)
        assert len(parsed.problems) <= lease_module.PROBLEMS_MAX


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(
                        st.sampled_from(["Leases", "Address", "ip-address", "mac-address", "expiry-time",
                                         "HardwareAddress", "HardwareAddressType"]), inner), max_leaves=20))
def test_total_with_objects(value: Any) -> None:
    for parser in (parse_libvirt, parse_networkd):
        for whole in (value, [value], {"Leases": value}, {"Leases": [value]}):
            parser(json.dumps(whole).encode(), "")


@pytest.mark.parametrize(("parser", "data"), [
    (parse_dnsmasq, DNSMASQ[:63] * 50), (parse_libvirt, json.dumps(json.loads(LIBVIRT)[:1] * 50).encode())])
def test_more_leases_than_are_kept(parser: Parser, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "LEASES_MAX", 10)
    parsed = parser(data, "")
    assert (len(parsed.leases), parsed.dropped) == (10, 40)
    assert len(parsed.problems) == lease_module.PROBLEMS_MAX


def test_in_force() -> None:
    parsed = Parsed([Lease(MAC, 2, IPV4, 100.0), Lease(MAC, 2, IPV4, FOREVER), Lease(MAC, 2, IPV4, 200.0)])
    assert [lease.expires for lease in parsed.in_force(100.0)] == [FOREVER, 200.0]
