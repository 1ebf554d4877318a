# SPDX-License-Identifier: MIT
"""python -m tests.soak.callers.hog DOOR PLACE HOW COUNT UID: holds connections until its standard input ends.

HOW: `idle` says nothing; `half` says half a question; `slow` asks for more than a socket holds, and reads a byte now
and then; `mixed` is a third of each. Whoever is hung up on comes again, though not without a pause. Says "ready N":
of so many connections, so many were open at that moment.
"""

import os
import resource
import select
import socket
import sys
import time

from tests.soak.callers.doors import SLOW_BYTES, Door, doors

TICK = 0.1
TURNS = 50
"""Connections looked at in a tick: a byte is read from who is slow, who was hung up on comes again."""

OPEN_SECONDS = 30.0
"""For all to be open. Where the server takes no more, the rest is left."""


class Hog:
    def __init__(self, door: Door, how: str, count: int) -> None:
        self._door = door
        self._hows = ["idle", "half", "slow"] if how == "mixed" else [how]
        self.connections: list[socket.socket | None] = [None] * count
        self.refused = 0

    def open(self, number: int) -> None:
        try:
            sock = self._door.connect(hostile=True)
            match self._hows[number % len(self._hows)]:
                case "half":
                    sock.sendall(self._door.half)
                case "slow":
                    self._ask_ahead(sock)
            sock.setblocking(False)
            self.connections[number] = sock
        except OSError:
            self.refused += 1

    def _ask_ahead(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        data = self._door.slow
        if self._door.kind == socket.SOCK_STREAM and "more" not in data.decode("latin-1"):
            data *= max(1, SLOW_BYTES // len(data))
        try:
            sock.send(data)
        except BlockingIOError:
            pass

    def look_after(self, number: int) -> None:
        sock = self.connections[number]
        if sock is not None:
            try:
                # One that is slow takes a byte. Of others nothing can be read but that they were hung up on.
                if sock.recv(1):
                    return
            except BlockingIOError:
                return
            except OSError:
                pass
            sock.close()
            self.connections[number] = None
        self.open(number)

    def held(self) -> int:
        """Of those that were opened, those that nobody has closed at the other end."""
        poll = select.poll()
        for sock in self.connections:
            if sock is not None:
                poll.register(sock, 0 if sock.family == socket.AF_UNIX else select.POLLRDHUP)
        return sum(sock is not None for sock in self.connections) - len(poll.poll(0))


def main() -> None:
    name, place, how, count, uid = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
    door = doors()[name]._replace(place=place)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 64, count + 64))
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)     # here: the interpreter may lie where only root can read it
    hog = Hog(door, how, count)
    until = time.monotonic() + OPEN_SECONDS
    for number in range(count):
        if time.monotonic() > until:
            break
        hog.open(number)
    print(f"ready {hog.held()}", flush=True)
    number = 0
    while not select.select([sys.stdin], [], [], TICK)[0]:
        for _ in range(TURNS):
            hog.look_after(number)
            number = (number + 1) % count


if __name__ == "__main__":
    main()
