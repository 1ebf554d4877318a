# SPDX-License-Identifier: MIT
"""Somebody who tries things: a program that runs in the booted host, or in a container of it, and makes calls as users.

A JSON object a line on standard input, one on standard output for each: {"error": name, empty where there was none,
"reply": values}. Each call is made by a process of its own, as the user that `uid` names:

    {"uid": 1000, "varlink": socket, "method": ..., "parameters": {...}, "more": false}
    {"uid": 1000, "dbus": path, "method": interface and member, "signature": "", "arguments": [...], "pidfds": [pids]}
    {"uid": 1000, "nss": name}      {"dns": address, "query": the message in hexadecimal digits}
    {"uid": 1000, "open": path, "write": false}
    {"uid": 1000, "leader": true}   starts what can be a machine's leader, of this user's, and replies its pid
    {"end": pid}                    kills it
    {"picture": pid}                what must not have changed where a call was refused; `pid` is the leader's
"""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CALL_SECONDS = 15.0     # longer than what any call here may take
BUS = "unix:path=/run/dbus/system_bus_socket"
NSS = "/run/mymachines/nss.sock"

GIFT, TAKEN = "/var/tmp/gift", "/var/tmp/taken"     # what is copied in or mounted, and what a copy out becomes
IN_MACHINE = ("/run/given", "/run/mounted")         # and where these are then, in the machine
IMAGES = "/var/lib/machines"
MACHINES = "/run/systemd/machines"

LEADER = """
mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts && mount -t tmpfs tmpfs /run && echo mine >/run/mine &&
trap 'exit 0' USR1 && echo ready && while :; do sleep 1000 & wait; done
"""
"""In namespaces of its own, of which its user is root. SIGUSR1 ends it."""


def varlink(request: Mapping[str, Any]) -> tuple[str, object]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(CALL_SECONDS)
        connection.connect(request["varlink"])
        message = {"method": request["method"], "parameters": request["parameters"], "more": bool(request.get("more"))}
        connection.sendall(json.dumps(message).encode() + b"\0")
        data = b""
        while b"\0" not in data:
            chunk = connection.recv(1 << 16)
            if not chunk:
                return "closed", None
            data += chunk
    reply = json.loads(data.partition(b"\0")[0])
    return reply.get("error", ""), reply.get("parameters")


async def dbus(request: Mapping[str, Any]) -> tuple[str, object]:
    from dbus_fast import Message
    from dbus_fast.aio import MessageBus
    from dbus_fast.auth import UID_NOT_SPECIFIED, AuthExternal

    # Who one is, the kernel says: inside a container one has another number than the bus sees.
    bus = await MessageBus(BUS, auth=AuthExternal(UID_NOT_SPECIFIED), negotiate_unix_fd=True).connect()
    try:
        interface, _, member = request["method"].rpartition(".")
        reply = await asyncio.wait_for(bus.call(Message(
            "org.freedesktop.machine1", request["dbus"], interface, member, signature=request.get("signature", ""),
            body=[decoded(argument) for argument in request.get("arguments", [])],
            unix_fds=[os.pidfd_open(pid) for pid in request.get("pidfds", [])])), CALL_SECONDS)
        assert reply is not None
        return reply.error_name or "", plain(reply.body)
    finally:
        bus.disconnect()


def decoded(argument: Any) -> Any:
    """JSON has neither bytes nor variants: {"bytes": hex}, {"variant": [signature, value]}."""
    from dbus_fast import Variant

    if isinstance(argument, list):
        return [decoded(each) for each in argument]
    if isinstance(argument, dict):
        return bytes.fromhex(argument["bytes"]) if "bytes" in argument else Variant(*argument["variant"])
    return argument


def plain(value: Any) -> Any:
    """What JSON can hold of a reply."""
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    return value if isinstance(value, str | int) else plain(value.value) if hasattr(value, "value") else str(value)


def nss(name: str) -> tuple[str, object]:
    sys.path.insert(0, "/usr/src/mymachines")
    from resolver._table import ffi, lib

    question = ffi.new("struct question *", {"layout": lib.PACKET_LAYOUT, "kind": lib.QUESTION_HOST_BY_NAME,
                                             "name": name.encode()})
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(CALL_SECONDS)
        connection.connect(NSS)
        connection.send(bytes(ffi.buffer(question)))
        return "", connection.recv(1 << 16).hex()


def dns(address: str, query: str) -> tuple[str, object]:
    """The error is the response code's number (RFC 1035, 4.1.1), where it is not 0."""
    with socket.create_connection((address, 53), CALL_SECONDS) as connection:
        message = bytes.fromhex(query)
        connection.sendall(len(message).to_bytes(2, "big") + message)
        reply = connection.recv(1 << 16)
    return f"rcode {reply[5] & 15}" if reply[5] & 15 else "", reply.hex()


def opened(path: str, write: bool) -> tuple[str, object]:
    try:
        os.close(os.open(path, os.O_RDWR if write else os.O_RDONLY))
    except PermissionError:
        return "EACCES", None
    return "", None


def perform(request: Mapping[str, Any]) -> tuple[str, object]:
    if "varlink" in request:
        return varlink(request)
    if "dbus" in request:
        return asyncio.run(dbus(request))
    if "nss" in request:
        return nss(request["nss"])
    if "dns" in request:
        return dns(request["dns"], request["query"])
    return opened(request["open"], bool(request.get("write")))


def in_a_process(request: Mapping[str, Any]) -> Mapping[str, object]:
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            become(request.get("uid"))
            error, reply = perform(request)
            answer = {"error": error, "reply": reply}
        except BaseException as failure:  # noqa: BLE001 - the test is to see it
            answer = {"error": f"failed: {failure!r}", "reply": None}
        with open(writing, "w") as pipe:
            json.dump(answer, pipe)
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    answer = json.loads(text)
    assert isinstance(answer, dict)
    return answer


def become(uid: int | None) -> None:
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


leaders: list[subprocess.Popen[bytes]] = []     # not waited for by who forgets them


def start_leader(uid: int) -> int:
    words = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--net", "--fork", "--kill-child=KILL", "sh",
             "-c", LEADER]
    drop = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid else []
    starter = subprocess.Popen(["setpriv", "--pdeathsig=KILL", *drop, *words], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE)
    leaders.append(starter)
    assert starter.stdout is not None
    assert starter.stdout.readline() == b"ready\n"
    return int(Path(f"/proc/{starter.pid}/task/{starter.pid}/children").read_text().split()[0])


def picture(leader: int) -> Sequence[object]:
    root = f"/proc/{leader}/root"
    images = sorted(path.name for path in Path(IMAGES).iterdir() if not path.name.startswith("."))
    attributes = subprocess.run(["lsattr", "-d", f"{IMAGES}/gift"], capture_output=True, text=True).stdout.split()[:1]
    return [os.path.exists(root), [name for name in IN_MACHINE if os.path.lexists(root + name)],
            os.path.lexists(TAKEN), images, attributes, sorted(os.listdir(MACHINES)),
            entries("/dev/pts"), entries(f"{root}/dev/pts")]


def entries(folder: str) -> Sequence[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return ()


def main() -> None:
    ctypes.CDLL(None).prctl(1, 9)      # PR_SET_PDEATHSIG, SIGKILL: with who started it
    import dbus_fast.aio  # noqa: F401 - once, before it forks

    for line in sys.stdin:
        request = json.loads(line)
        if "leader" in request:
            answer: Mapping[str, object] = {"error": "", "reply": start_leader(request["uid"])}
        elif "end" in request:
            with contextlib.suppress(ProcessLookupError):
                os.kill(request["end"], signal.SIGKILL)
            answer = {"error": "", "reply": None}
        elif "picture" in request:
            answer = {"error": "", "reply": picture(request["picture"])}
        else:
            answer = in_a_process(request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
