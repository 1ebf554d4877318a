# SPDX-License-Identifier: MIT
"""python -m tests.soak.protocols.varlink SECONDS SEED: hostile calls to our sockets, on a test host, as nobody.

Which calls there are is read from the services' own descriptions: each method with values of its types, with odd ones
in their place, with fields too many or missing; and whole messages whose JSON or bytes were changed. Each reply has to
be one: parameters, or an error that somebody meant to send. In between an honest question has its answer.
"""

import json
import os
import random
import socket
import sys
import time
from typing import Any

import varlink.scanner

from resolver.varlink.client import Client
from resolver.varlink.codec import encode
from tests.soak.callers.doors import PATIENCE, doors
from tests.soak.callers.world import HOSTILE_UID
from tests.soak.protocols.changes import ODD, change_json

SOCKETS = {name: doors()[name] for name in ("machine", "userdb", "hook")}
HONEST_EVERY = 200
ODD_SHARE = 0.1
"""Of all values."""

TEXTS = ["web", "WEB.", ".host", "vu-web-0", "vg-web-7", "container", "vm", "io.systemd.Machine", "/", "/etc/passwd",
         "web.machines.internal", "root", "", "x" * 65, "a\0b", "é"]


class Wrong(Exception):
    """What a service said and must not."""


class Caller:
    """One that knows what the services at a socket describe."""

    def __init__(self, path: str, dice: random.Random) -> None:
        self._dice = dice
        self._path = path
        self.methods: dict[str, Any] = {}
        self._types: dict[str, dict[str, Any]] = {}
        with Client(path, PATIENCE) as client:
            for name in client.call("org.varlink.service.GetInfo")["interfaces"]:
                text = client.call("org.varlink.service.GetInterfaceDescription", {"interface": name})["description"]
                members = varlink.scanner.Interface(text).members
                self._types[name] = members
                self.methods |= {f"{name}.{member}": kind.in_type for member, kind in members.items()
                                 if isinstance(kind, varlink.scanner._Method)}

    def call(self) -> tuple[bytes, str]:
        """A call's bytes, and how it ends: `answered`, `oneway`, or `changed`: who knows."""
        dice = self._dice
        method = dice.choice(list(self.methods))
        message: dict[str, Any] = {"method": method,
                                   "parameters": self._value(self.methods[method], method.rpartition(".")[0], 0)}
        flag = dice.choice(("more", "oneway", "upgrade", "", "", "", "", ""))
        if flag:
            message[flag] = True
        try:
            data = encode(message)
        except ValueError:
            data = json.dumps(message).encode() + b"\0"
        if dice.random() < 0.3:
            return change_json(dice, data), "changed"
        return data, "oneway" if flag == "oneway" else "answered"

    def _value(self, kind: Any, interface: str, depth: int) -> Any:
        scanner, dice = varlink.scanner, self._dice
        if dice.random() < ODD_SHARE and depth:
            return dice.choice(ODD)
        match kind:
            case bool():
                return dice.random() < 0.5
            case int():
                return dice.choice((0, 1, 2, 3, 17, 1000, 65535, 1587086312, -1, 2**31, 2**32, 2**63, 2**64 - 1))
            case float():
                return dice.random()
            case str():
                return dice.choice(TEXTS)
            case scanner._Maybe():
                return None if dice.random() < 0.5 else self._value(kind.element_type, interface, depth + 1)
            case scanner._Array():
                return [self._value(kind.element_type, interface, depth + 1) for _ in range(dice.randrange(4))]
            case scanner._Dict():
                return {"a": self._value(kind.element_type, interface, depth + 1)}
            case scanner._Enum():
                return dice.choice([*kind.fields])
            case scanner._Struct():
                fields = {name: self._value(field, interface, depth + 1) for name, field in kind.fields.items()}
                return {name: value for name, value in fields.items() if value is not None or dice.random() < 0.2}
            case scanner._CustomType():
                return self._value(self._types[interface][kind.name].type, interface, depth + 1)
        return {}

    def receive(self, sock: socket.socket) -> tuple[bool, str]:
        """Whether the connection is of further use, and the error's name."""
        answer = b""
        while b"\0" not in answer:
            data = sock.recv(65536)
            if not data:
                return False, ""    # it may hang up on what is no Varlink
            answer += data
        reply = json.loads(answer.partition(b"\0")[0])
        error = reply.get("error", "")
        if error == "io.systemd.System" and reply["parameters"].get("errno") == 5:
            raise Wrong(f"{self._path}: {answer!r}")    # what nobody meant to raise
        if error not in ("", None) and "." not in error:
            raise Wrong(f"{self._path}: {answer!r}")
        return not reply.get("continues", False), error or ""


def talk(seconds: float, seed: int) -> dict[str, Any]:
    dice = random.Random(seed)
    callers = {name: Caller(door.place, dice) for name, door in SOCKETS.items()}
    connections: dict[str, socket.socket] = {}
    calls, errors, until = 0, dict[str, int](), time.monotonic() + seconds
    while time.monotonic() < until:
        name = dice.choice(list(SOCKETS))
        sock = connections.get(name) or SOCKETS[name].connect()
        connections[name] = sock
        data, end = callers[name].call()
        calls += 1
        try:
            sock.sendall(data)
            # What was changed may have become one that listens: such a connection answers nothing more.
            useful, error = callers[name].receive(sock) if end == "answered" else (end == "oneway", "")
        except TimeoutError:
            raise Wrong(f"{name}: no answer to {data!r}") from None
        except OSError:
            useful, error = False, ""
        except Wrong as wrong:
            raise Wrong(f"{wrong} for {data!r}") from None
        errors[error] = errors.get(error, 0) + 1
        if not useful:
            connections.pop(name).close()
        if calls % HONEST_EVERY == 0:
            for each in SOCKETS.values():
                with each.connect() as honest:
                    answer = each.ask(honest)
                    if b'"error"' in answer:
                        raise Wrong(f"{each.place} answers an honest question {answer!r}")
    for sock in connections.values():
        sock.close()
    return {"calls": calls, "methods": sum(len(caller.methods) for caller in callers.values()), "errors": errors}


def main() -> None:
    os.setgroups([])
    os.setresgid(HOSTILE_UID, HOSTILE_UID, HOSTILE_UID)
    os.setresuid(HOSTILE_UID, HOSTILE_UID, HOSTILE_UID)
    print(json.dumps(talk(float(sys.argv[1]), int(sys.argv[2]))))


if __name__ == "__main__":
    main()
