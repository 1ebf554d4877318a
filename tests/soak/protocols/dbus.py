# SPDX-License-Identifier: MIT
"""python -m tests.soak.protocols.dbus SECONDS SEED SOCKET: hostile calls over a bus to the daemon, as nobody.

Debian has no dfuzzer. This does what that does: it reads the introspection of each object and calls each method with
values of its types, odd ones among them; and beyond that with other signatures, on objects that are not there, with
properties that are none. Each call has one reply. In between an honest question has its answer.
"""

import json
import os
import random
import sys
import time
import xml.etree.ElementTree as ET
from typing import Any

from dbus_fast import Message, MessageType, SignatureTree, Variant

from resolver.dbus.errors import unexpected
from resolver.dbus.reader import Reader
from tests.soak.callers.doors import doors
from tests.soak.callers.world import HOSTILE_UID

NAME = "org.freedesktop.machine1"
PATHS = ["/", "/org/freedesktop/machine1", "/org/freedesktop/machine1/machine/web",
         "/org/freedesktop/machine1/machine/_2ehost", "/org/freedesktop/machine1/image", "/org/freedesktop/LogControl1"]
ELSEWHERE = ["/org/freedesktop/machine1/machine/nobody", "/org/freedesktop/machine1/machine/" + "_ff" * 60, "/a"]
HONEST_EVERY = 200
TEXTS = ["", "web", ".host", "WEB", "nobody", "/", "/etc/shadow", "../x", "x" * 65, "é", "a\nb", "%s%n", "container",
         "vm", "root", "vu-web-0", "org.freedesktop.machine1.Machine", "Name", "Leader", "-1", "x" * 5000]
NUMBERS = [0, 1, 2, 3, 17, 1000, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]
WIDTHS = {"y": (0, 2**8), "n": (-2**15, 2**15), "q": (0, 2**16), "i": (-2**31, 2**31), "u": (0, 2**32),
          "x": (-2**63, 2**63), "t": (0, 2**64)}
SIGNATURES = ["s", "u", "ay", "a{sv}", "v", "(ss)", "as", "d", "b", "o", "g", "aai", "h", "a(sv)", "t", "x"]


class Wrong(Exception):
    """What the daemon said and must not."""


def value(dice: random.Random, kind: Any) -> Any:
    """Of that type, a dbus_fast.SignatureType."""
    match kind.token:
        case "b":
            return dice.random() < 0.5
        case "d":
            return dice.choice((0.0, -1.5, 1e308, float("inf"), float("nan")))
        case "s":
            return dice.choice(TEXTS)
        case "o":
            return dice.choice(PATHS)
        case "g":
            return dice.choice(("", "s", "a{sv}"))
        case "h":
            return dice.choice((0, 1, 2**31))   # of no descriptor: none is sent along
        case "v":
            signature = dice.choice(SIGNATURES)
            return Variant(signature, value(dice, SignatureTree(signature).types[0]))
        case "a":
            child, count = kind.children[0], dice.choice((0, 1, 2, 3, 16, 17, 300))
            if child.token == "y":
                return dice.randbytes(count)
            if child.token == "{":
                return {value(dice, child.children[0]): value(dice, child.children[1]) for _ in range(count % 4)}
            return [value(dice, child) for _ in range(count % 20)]
        case "(":
            return [value(dice, child) for child in kind.children]
    low, end = WIDTHS[kind.token]
    number = dice.choice(NUMBERS)
    return number if low <= number < end else dice.choice((low, 0, end - 1))


class Caller:
    """A connection to the bus."""

    def __init__(self, place: str, dice: random.Random) -> None:
        self._dice = dice
        self._door = doors()["dbus"]._replace(place=place)
        self._sock = self._door.connect()
        self._reader = Reader(self._sock)
        self._serial = 10
        self.methods: list[tuple[str, str, str, str]] = []
        self.properties: list[tuple[str, str, str]] = []
        for path in PATHS:
            text = self.call(path, "org.freedesktop.DBus.Introspectable", "Introspect", "", []).body[0]
            for interface in ET.fromstring(text).findall("interface"):
                name = interface.get("name", "")
                for method in interface.findall("method"):
                    signature = "".join(argument.get("type", "") for argument in method.findall("arg")
                                        if argument.get("direction") == "in")
                    self.methods.append((path, name, method.get("name", ""), signature))
                self.properties += [(path, name, each.get("name", "")) for each in interface.findall("property")]

    def close(self) -> None:
        self._reader.close()
        self._sock.close()

    def call(self, path: str, interface: str | None, member: str, signature: str, body: list[Any]) -> Message:
        self._serial += 1
        message = Message(NAME, path, interface, member, signature=signature, body=body, serial=self._serial)
        self._sock.sendall(bytes(message._marshall(False)))
        while True:
            received = self._reader.read()
            if received is None:
                raise TimeoutError
            reply = received.message
            answers = reply.message_type in (MessageType.METHOD_RETURN, MessageType.ERROR)
            for descriptor in reply.unix_fds:
                os.close(descriptor)
            if answers and reply.reply_serial == self._serial:
                return reply

    def hostile(self) -> str:
        """One call; the error's name."""
        dice = self._dice
        if dice.random() < 0.2:
            path, interface, name = dice.choice(self.properties)
            setting = dice.random() < 0.5
            body = [interface if dice.random() < 0.9 else dice.choice(TEXTS),
                    name if dice.random() < 0.9 else dice.choice(TEXTS)]
            kind = SignatureTree("v").types[0]
            reply = self.call(path, "org.freedesktop.DBus.Properties", "Set" if setting else "Get",
                              "ssv" if setting else "ss", [*body, value(dice, kind)] if setting else body)
        else:
            path, interface, name, signature = dice.choice(self.methods)
            if dice.random() < 0.1:
                path = dice.choice(ELSEWHERE)
            if dice.random() < 0.1:
                signature = "".join(dice.choices(SIGNATURES, k=dice.randrange(4)))
            reply = self.call(path, None if dice.random() < 0.1 else interface, name, signature,
                              [value(dice, kind) for kind in SignatureTree(signature).types])
        if reply.error_name == unexpected()[0]:
            raise Wrong(f"{interface}.{name} at {path}: {reply.body}")
        return reply.error_name or ""

    def honest(self) -> None:
        reply = self.call("/org/freedesktop/machine1", f"{NAME}.Manager", "GetMachine", "s", ["web"])
        if reply.body != ["/org/freedesktop/machine1/machine/web"]:
            raise Wrong(f"an honest question is answered {reply.body!r}")


def talk(seconds: float, seed: int, place: str) -> dict[str, Any]:
    caller = Caller(place, random.Random(seed))
    calls, errors, until = 0, dict[str, int](), time.monotonic() + seconds
    while time.monotonic() < until:
        error = caller.hostile()
        calls += 1
        errors[error] = errors.get(error, 0) + 1
        if calls % HONEST_EVERY == 0:
            caller.honest()
    caller.close()
    return {"calls": calls, "methods": len(caller.methods), "properties": len(caller.properties), "errors": errors}


def main() -> None:
    os.setgroups([])
    os.setresgid(HOSTILE_UID, HOSTILE_UID, HOSTILE_UID)
    os.setresuid(HOSTILE_UID, HOSTILE_UID, HOSTILE_UID)
    print(json.dumps(talk(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))


if __name__ == "__main__":
    main()
