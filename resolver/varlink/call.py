# SPDX-License-Identifier: MIT
"""What a handler is given, and what it gives back."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol


class Caller(Protocol):
    """Who is at the other end, as the kernel tells it (SO_PEERCRED, unix(7)): as of connect(2), not of now."""

    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def pid(self) -> int: ...
    @property
    def pidfd(self) -> int | None:
        """The process that connected; None, or readable, where it is gone (pidfd_open(2)). Goes with the connection."""


class Call(NamedTuple):
    """One call. `parameters` is checked against the interface before a handler sees it."""

    method: str
    parameters: dict[str, Any]
    caller: Caller
    more: bool = False
    oneway: bool = False
    upgrade: bool = False


class Reply(NamedTuple):
    """One reply, where a dict does not say it all.

    `fds` go with it and are closed behind it, sent or not. `continues` says that another reply will follow some day:
    it is sent at once. Where it is false, a reply of a generator waits until the generator has yielded the next or
    has ended, for only then is it known which one is the last.
    """

    parameters: dict[str, Any]
    fds: tuple[int, ...] = ()
    continues: bool = False


class Pause(NamedTuple):
    """What a generator yields that has nothing to say yet: it is asked again when what `call_once` got is called.

    `forget` takes that back, where the caller has gone before.
    """

    call_once: Callable[[Callable[[], object]], object]
    forget: Callable[[Callable[[], object]], object]


def as_reply(result: "dict[str, Any] | Reply | None") -> Reply:
    """What a handler returned or yielded, as a Reply; None is one without parameters."""
    if isinstance(result, Reply):
        return result
    return Reply(result or {})
