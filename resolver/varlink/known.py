# SPDX-License-Identifier: MIT
"""Replies that were given, for callers who ask the same, byte for byte, while nothing has changed.

`ls`, `ps` and `id` ask for the same few users in process after process, and most of what a small answer costs is JSON.
"""

from collections.abc import Callable

KNOWN_MAX = 512
"""Replies: so many users are seen at a time. Whoever asks for ids that nobody has fills this with rubbish, so it is
small, and thrown away whole when it is full."""

SIZE_MAX = 1024
"""Bytes of a call and its reply together. A user record and its question are some 400."""


class KnownReplies:
    """`changed` tells whether what replies depend on has changed since it was called before; while it has not, equal
    calls have equal replies, whoever asks."""

    def __init__(self, changed: Callable[[], bool]) -> None:
        self._changed = changed
        self._replies: dict[bytes, bytes] = {}

    def get(self, call: bytes) -> bytes | None:
        """The reply to a call, its zero byte included, where it is known."""
        if self._changed():
            self._replies.clear()
        return self._replies.get(call)

    def keep(self, call: bytes, reply: bytes) -> None:
        """Keep what the call that get() did not know has got. Where something has changed since get(), the next one
        throws it away: what replies are of is never older than what get() saw."""
        if len(call) + len(reply) > SIZE_MAX:
            return
        if len(self._replies) >= KNOWN_MAX:
            self._replies.clear()
        self._replies[call] = reply
