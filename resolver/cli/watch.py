# SPDX-License-Identifier: MIT
"""`mymachinesctl watch`: a line for each change, until nobody reads it."""

import argparse
import json
import select
import sys
from datetime import datetime
from typing import Any

from resolver.cli.following import Event, Following, Machine
from resolver.cli.output import printable


def do_watch(options: argparse.Namespace) -> None:
    following = Following()
    try:
        while True:
            for event in _wait(following):
                now = datetime.now().astimezone()
                # Flushed: whoever reads a pipe wants the line now.
                print(_json(event, now) if options.json else _text(event, now), flush=True)
    finally:
        following.close()


def _wait(following: Following) -> list[Event]:
    """The next events, some time. BrokenPipeError where nobody reads standard output any more."""
    poll = select.poll()
    output = sys.stdout.fileno()
    poll.register(output, 0)  # errors alone: a pipe whose reader has gone, without a line to tell it by
    descriptor = following.fileno()
    if descriptor is not None:
        poll.register(descriptor, select.POLLIN)
    seconds = following.seconds()
    for ready, happened in poll.poll(None if seconds is None else seconds * 1000 + 1):
        if ready == output and happened & select.POLLERR:
            raise BrokenPipeError
    return following.events()


def _json(event: Event, now: datetime) -> str:
    line: dict[str, Any] = {"time": now.isoformat(timespec="milliseconds"), "event": event.kind}
    if event.name:
        line |= {"name": event.name, "before": event.before, "after": event.after}
    return json.dumps(line)


_TEXTS = {"ready": "these are all machines", "lost": "mymachinesd is away", "back": "mymachinesd is back"}


def _text(event: Event, now: datetime) -> str:
    stamp = now.isoformat(" ", "milliseconds")
    if not event.name:
        return f"{stamp} {event.kind}: {_TEXTS[event.kind]}"
    parts = [_described(machine) for machine in (event.before, event.after) if machine is not None]
    return f"{stamp} {event.kind} {printable(event.name)}: {' -> '.join(parts)}"


def _described(machine: Machine) -> str:
    return f"{machine['class']} {machine['leader']}, {' '.join(machine['addresses']) or 'no addresses'}"
