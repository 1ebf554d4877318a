# SPDX-License-Identifier: MIT
"""A small client that blocks: for commands and tests. One call at a time, each within one absolute deadline."""

import socket
import struct
import time
from collections.abc import Iterator
from typing import Any, Self

from resolver.varlink.codec import REPLY_MAX, Decoder, ProtocolError, encode, parse_reply
from resolver.varlink.errors import VarlinkError, expected_more

READ_SIZE = 64 * 1024

_TIMEVAL = struct.Struct("ll")
_UCRED = struct.Struct("iII")


class Client:
    """A connection to the service at `path`.

    Everything raises TimeoutError where `timeout` seconds were not enough for the whole of it, and ConnectionError (or
    the OSError of connect(2)) where the service is not there, hangs up or does not speak Varlink. After either of
    these, the connection is closed.
    """

    def __init__(self, path: str, timeout: float = 10.0) -> None:
        self._timeout = timeout
        self._decoder = Decoder(REPLY_MAX)
        self._sock = _connect(path, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._sock.close()

    def call(self, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        """The parameters of the one reply. Raises VarlinkError for an error reply."""
        *_, last = self._call(method, parameters, more=False)
        return last

    def call_more(self, method: str, parameters: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """The parameters of each reply, as they come; the deadline is that of the last one.

        Who stops before the end has to close the client.
        """
        return self._call(method, parameters, more=True)

    def call_oneway(self, method: str, parameters: dict[str, Any] | None = None) -> None:
        """Send the call; nothing comes back."""
        self._send({"method": method, "parameters": parameters or {}, "oneway": True},
                   time.monotonic() + self._timeout)

    def start_more(self, method: str, parameters: dict[str, Any] | None = None) -> None:
        """Send a call whose replies take() gives, for who waits for other things too."""
        self._send({"method": method, "parameters": parameters or {}, "more": True},
                   time.monotonic() + self._timeout)

    def fileno(self) -> int:
        """Readable when take() has something to do."""
        return self._sock.fileno()

    def peer(self) -> tuple[int, int]:
        """Who listens: pid and uid (SO_PEERCRED, unix(7)), of when it began to."""
        credentials = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, _ = _UCRED.unpack(credentials)
        return pid, uid

    def take(self) -> list[dict[str, Any]]:
        """The parameters of the replies that have come. Reads once, and does not wait.

        Errors as for everything else; ConnectionError too where a reply was the last.
        """
        try:
            self._sock.setblocking(False)
            self._read()
            replies = []
            while (message := self._decoder.next_message()) is not None:
                error, reply, continues = parse_reply(message)
                if error is not None:
                    raise VarlinkError(error, reply)
                replies.append(reply)
                if not continues:
                    raise ConnectionResetError("the service has ended the call")
        except BlockingIOError:
            return []
        except ProtocolError as error:
            self.close()
            raise ConnectionError(f"the service does not speak Varlink: {error}") from error
        except OSError:
            self.close()
            raise
        return replies

    def _call(self, method: str, parameters: dict[str, Any] | None, more: bool) -> Iterator[dict[str, Any]]:
        deadline = time.monotonic() + self._timeout
        message: dict[str, Any] = {"method": method, "parameters": parameters or {}}
        if more:
            message["more"] = True
        self._send(message, deadline)
        continues = True
        while continues:
            error, reply, continues = self._receive(deadline)
            if error is not None:
                raise VarlinkError(error, reply)
            if continues and not more:
                self.close()
                raise expected_more()
            yield reply

    def _send(self, message: dict[str, Any], deadline: float) -> None:
        try:
            self._sock.settimeout(_remaining(deadline))
            self._sock.sendall(encode(message))
        except OSError:
            self.close()
            raise

    def _receive(self, deadline: float) -> tuple[str | None, dict[str, Any], bool]:
        try:
            while (message := self._decoder.next_message()) is None:
                self._sock.settimeout(_remaining(deadline))
                self._read()
            return parse_reply(message)
        except ProtocolError as error:
            self.close()
            raise ConnectionError(f"the service does not speak Varlink: {error}") from error
        except OSError:
            self.close()
            raise

    def _read(self) -> None:
        data = self._sock.recv(READ_SIZE)
        if not data:
            raise ConnectionResetError("the service has closed the connection")
        self._decoder.feed(data)


def _connect(path: str, timeout: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # Not settimeout(): connect(2) on a Unix socket that does not block fails at once where the backlog is full.
        # SO_SNDTIMEO makes it wait, with an end (socket(7)).
        seconds, fraction = divmod(timeout, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(seconds), int(fraction * 1e6)))
        sock.connect(path)
    except BlockingIOError:
        sock.close()
        raise TimeoutError(f"{path} does not accept connections") from None
    except BaseException:
        sock.close()
        raise
    return sock


def _remaining(deadline: float) -> float:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError("the service has not answered in time")
    return remaining
