# SPDX-License-Identifier: MIT
"""What Watch says, as events; over the loss of the connection none is lost."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from resolver.cli.following import Event, Known


def told(name: str, leader: int = 2, *addresses: str) -> dict[str, Any]:
    return {"name": name, "class": "container", "leader": leader, "addresses": list(addresses)}


COMPLETE = {"complete": True}


def events(known: Known, *replies: dict[str, Any]) -> list[Event]:
    return [event for reply in replies for event in known.add(reply)]


def test_those_there_and_then_each_change() -> None:
    known = Known()
    assert events(known, told("web"), told("db", 3)) == []
    assert events(known, COMPLETE) == [Event("present", None, told("web")), Event("present", None, told("db", 3)),
                                       Event("ready")]
    assert events(known, told("late", 4)) == [Event("added", None, told("late", 4))]
    assert events(known, told("web", 2, "10.0.0.1")) == [Event("changed", told("web"), told("web", 2, "10.0.0.1"))]
    assert events(known, {"name": "web", "gone": True}) == [Event("removed", told("web", 2, "10.0.0.1"))]
    assert sorted(known.machines) == ["db", "late"]


def test_what_is_as_it_was_is_no_event() -> None:
    known = Known()
    events(known, told("web"), COMPLETE)
    assert events(known, told("web")) == []
    assert events(known, {"name": "never", "gone": True}) == []


def test_another_leader_is_another_machine() -> None:
    known = Known()
    events(known, told("web"), COMPLETE)
    assert events(known, told("web", 9)) == [Event("removed", told("web")), Event("added", None, told("web", 9))]


def test_a_connection_that_is_lost_twice_is_told_once() -> None:
    known = Known()
    assert known.lost() == []   # before anything was known
    events(known, told("web"), COMPLETE)
    assert known.lost() == [Event("lost")]
    assert events(known, told("half", 7)) == []
    assert known.lost() == []
    assert events(known, told("web"), COMPLETE) == [Event("back"), Event("ready")]
    assert list(known.machines) == ["web"]


MACHINES = st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(1, 3), st.sampled_from(["", "10.0.0.1"])))


@given(st.lists(MACHINES, min_size=1, max_size=4))
def test_events_alone_tell_all_machines_over_any_number_of_losses(snapshots: list[dict[str, tuple[int, str]]]) -> None:
    known = Known()
    mirror: dict[str, Any] = {}
    for snapshot in snapshots:
        replies = [told(name, leader, *filter(None, [address])) for name, (leader, address) in snapshot.items()]
        for event in [*events(known, *replies, COMPLETE), *known.lost()]:
            if event.before is not None:
                assert mirror.pop(event.name) == event.before
            if event.after is not None:
                mirror[event.name] = event.after
        assert mirror == known.machines == {reply["name"]: reply for reply in replies}
