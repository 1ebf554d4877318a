# SPDX-License-Identifier: MIT
"""The replies of a generator: which one is the last, and whether the caller may have more than one."""

from typing import Any

from resolver.varlink.call import Call, Reply, as_reply
from resolver.varlink.errors import expected_more

Continued = tuple[Reply, bool]
"""A reply that can be sent, and whether another one follows it."""


class Replies:
    """Fed with what a generator yields, gives back what may be sent by now."""

    def __init__(self, call: Call) -> None:
        self._more = call.more
        self._held: Reply | None = None
        self._any_sent = False

    def next(self, item: "dict[str, Any] | Reply | None") -> list[Continued]:
        """What the generator has yielded. Raises ExpectedMore where the caller cannot be told that more follow."""
        reply = as_reply(item)
        if not self._more and (reply.continues or self._held is not None):
            raise expected_more()
        out = self._give_held(True)
        if reply.continues:
            out.append((reply, True))
        else:
            self._held = reply
        self._any_sent = self._any_sent or bool(out)
        return out

    def failed(self) -> list[Continued]:
        """An error is the last reply: what was held goes out before it, if the caller takes several."""
        return self._give_held(True) if self._more else []

    def end(self) -> list[Continued]:
        """The generator has ended. Empty where it had promised another reply: the connection says so by its end."""
        if self._held is None and not self._any_sent:
            raise RuntimeError("a handler ended without a reply")
        return self._give_held(False)

    def _give_held(self, continues: bool) -> list[Continued]:
        held, self._held = self._held, None
        return [] if held is None else [(held, continues)]
