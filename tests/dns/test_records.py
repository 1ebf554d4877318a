# SPDX-License-Identifier: MIT
"""What is published, and the key that it is signed with: pure parts."""

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.dns.publish.keys import InvalidKey, load_key, parse_key
from resolver.dns.publish.messages import Mark
from resolver.dns.publish.records import (
    ADDRESSES_OF_NAME,
    NAMES_IN_UPDATE,
    changed,
    differences,
    digest_of,
    in_updates,
    records_of,
)

NAMES = st.text("abc.-1", min_size=1, max_size=4)
RECORDS = st.dictionaries(NAMES, st.frozensets(st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]), min_size=1))


def test_addresses_that_others_cannot_use_are_not_published() -> None:
    assert records_of("web", ["127.0.0.1", "::1", "fe80::1", "169.254.1.1", "224.0.0.1", "::"], ()) is None
    assert records_of("Web", ["10.0.0.1", "fe80::1"], ()) == ("web", frozenset({"10.0.0.1"}))


def test_only_addresses_of_the_networks_that_were_named() -> None:
    networks = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]
    assert records_of("web", ["10.1.1.1", "192.168.1.1", "fd00::1", "2001:db8::1"], networks) == (
        "web", frozenset({"10.1.1.1", "fd00::1"}))


@pytest.mark.parametrize("name", ["a" * 64, "a..b", "a.", ".a", ""])
def test_what_is_no_name_in_dns_is_not_published(name: str) -> None:
    assert records_of(name, ["10.0.0.1"], ()) is None


def test_a_machine_with_thousands_of_addresses_has_some_of_each_family() -> None:
    many = [f"10.0.{n // 250}.{n % 250}" for n in range(1000)] + [f"fd00::{n:x}" for n in range(1, 1000)]
    found = records_of("web", many, ())
    assert found is not None
    assert len([each for each in found[1] if ":" in each]) == ADDRESSES_OF_NAME
    assert len(found[1]) == 2 * ADDRESSES_OF_NAME


@given(RECORDS, RECORDS)
def test_differences_lead_from_what_is_there_to_what_is_wanted(there: dict[str, frozenset[str]],
                                                                wanted: dict[str, frozenset[str]]) -> None:
    changes = differences(there, wanted)
    assert changed(there, changes) == wanted
    assert not differences(wanted, wanted)
    assert (digest_of(there) == digest_of(wanted)) == (there == wanted)


def test_portions_hold_all_changes_once() -> None:
    changes = {f"m{n}": frozenset({"10.0.0.1"}) for n in range(2 * NAMES_IN_UPDATE + 1)}
    portions = list(in_updates(changes))
    assert [len(portion) for portion in portions] == [NAMES_IN_UPDATE, NAMES_IN_UPDATE, 1]
    assert {name: addresses for portion in portions for name, addresses in portion.items()} == changes


@given(st.text(max_size=80))
def test_a_mark_of_somebody_else_s_is_no_error(text: str) -> None:
    mark = Mark.parse(text)
    assert mark is None or mark.owner


def test_a_mark_is_read_as_it_was_written() -> None:
    mark = Mark("a" * 32, "b" * 32)
    assert Mark.parse(mark.text()) == mark


@pytest.mark.parametrize("text", [
    'key "publisher" {\n\talgorithm hmac-sha256;\n\tsecret "c2VjcmV0";\n};\n',  # tsig-keygen publisher
    "key publisher { secret c2VjcmV0; algorithm hmac-sha256; };",
    # keymgr -t publisher
    "# hmac-sha256:publisher:c2VjcmV0\nkey:\n- id: publisher\n  algorithm: hmac-sha256\n  secret: c2VjcmV0\n",
    "hmac-sha256:publisher:c2VjcmV0",
])
def test_keys_as_the_servers_tools_write_them(text: str) -> None:
    key = parse_key(text, "key")
    assert (key.name.to_text(), key.algorithm.to_text(), key.secret) == ("publisher.", "hmac-sha256.", b"secret")


@pytest.mark.parametrize(("text", "meaning"), [
    ("", "holds no key"),
    ("key publisher { algorithm hmac-sha256; };", "has no algorithm, or no secret"),
    ("hmac-rot13:publisher:c2VjcmV0", "no algorithm is called hmac-rot13"),
    ("hmac-sha256:publisher:c2VjcmV", "key: "),
    ("hmac-sha256:pub..lisher:c2VjcmV0", "key: "),
])
def test_what_is_no_key_is_told(text: str, meaning: str) -> None:
    with pytest.raises(InvalidKey, match=meaning):
        parse_key(text, "key")


def test_a_key_that_all_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("hmac-sha256:publisher:c2VjcmV0")
    file.chmod(0o644)
    with pytest.raises(InvalidKey, match="can be read by all"):
        load_key(str(file))
    file.chmod(0o640)
    assert load_key(str(file)).secret == b"secret"


@given(st.text(max_size=200))
def test_whatever_a_key_file_holds(text: str) -> None:
    try:
        parse_key(text, "key")
    except InvalidKey:
        pass
