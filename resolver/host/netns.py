# SPDX-License-Identifier: MIT
"""Opening a netlink socket in a machine's network namespace.

A socket stays in the namespace that it was made in. So the loop's own thread goes there, makes the socket and comes
back, with nothing in between: 15 us, where a thread for the purpose takes 70 us, and twice that on a busy host.
setns(2) and socket(2) wait for nobody: they count references, and hold no lock that a guest could keep.

Who may not come back sends a thread, which enters the namespace, makes the socket and ends: in a user namespace that
does not own our network namespace. Whether that is so is tried first.
"""

import _thread
import asyncio
import ctypes
import logging
import os
import socket

OPEN_SECONDS = 1.0
"""Entering and opening takes 0.1 ms. What takes a thousand times as long hangs in the kernel."""

OPENING_MAX = 4
"""Threads at the same time: what hangs in the kernel is a bounded number of threads, all of them idle."""

TURN_SECONDS = 10.0
"""Waiting for one of them: ten thousand machines, found at a start, take two seconds."""

RECEIVE_BUFFER = 128 * 1024
"""Bytes that the kernel keeps for one namespace: some 150 events, as it counts them. Beyond, we ask anew (ENOBUFS)."""

EXIT_ASTRAY = os.EX_OSERR
"""The kernel does not let us back. What we took for the host's from then on would be a guest's, so the process ends."""

_OWN_NAMESPACE = "/proc/thread-self/ns/net"
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h; also above net.core.rmem_max

_libc = ctypes.CDLL(None, use_errno=True)
_log = logging.getLogger(__name__)


class NetlinkOpener:
    """Opens netlink sockets in machines' network namespaces, for one event loop, in whose thread it is made. To be
    closed."""

    def __init__(self, by_thread: bool | None = None) -> None:
        """`by_thread`: None finds out whether it has to be."""
        # Kept: to open it each time takes as long as the ways there and back.
        self._home = os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        self._by_thread = not _may_come_back(self._home) if by_thread is None else by_thread
        self._turns = asyncio.Semaphore(OPENING_MAX)

    def close(self) -> None:
        """Open no more."""
        os.close(self._home)

    async def open(self, namespace: int, groups: int) -> socket.socket:
        """A non-blocking NETLINK_ROUTE socket in the network namespace that the descriptor is of, member of the
        RTMGRP_* `groups`.

        TimeoutError where the kernel lets us wait for OPEN_SECONDS, or others for TURN_SECONDS, OSError as the kernel
        says.
        """
        if self._by_thread:
            return await self._open_by_thread(namespace, groups)
        return _visit(namespace, self._home, groups)

    async def _open_by_thread(self, namespace: int, groups: int) -> socket.socket:
        if self._turns.locked():
            async with asyncio.timeout(TURN_SECONDS):
                await self._turns.acquire()
        else:
            await self._turns.acquire()  # at once
        opened: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        try:
            namespace = os.dup(namespace)  # the thread's, which may outlive the caller's patience
            try:
                # Without threading's Thread, which makes us wait until it runs: half the time of it all.
                _thread.start_new_thread(self._work, (namespace, groups, opened))
            except RuntimeError as error:  # no more threads
                os.close(namespace)
                raise OSError(str(error)) from error
        except BaseException:
            self._turns.release()
            raise
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                return await opened
        except BaseException:
            # It may have come when nobody waited any more, and nobody knows of it but us.
            if opened.done() and not opened.cancelled() and opened.exception() is None:
                opened.result().close()
            raise

    def _work(self, namespace: int, groups: int, opened: asyncio.Future[socket.socket]) -> None:
        result: socket.socket | OSError
        try:
            result = _open(namespace, groups)
        except OSError as error:
            result = error
        finally:
            os.close(namespace)
        try:
            opened.get_loop().call_soon_threadsafe(self._deliver, result, opened)
        except RuntimeError:  # the loop was closed
            if isinstance(result, socket.socket):
                result.close()

    def _deliver(self, result: socket.socket | OSError, opened: asyncio.Future[socket.socket]) -> None:
        self._turns.release()  # not sooner: a thread that hangs keeps its turn
        if isinstance(result, OSError):
            if not opened.done():
                opened.set_exception(result)
        elif opened.done():  # too late, nobody waits any more
            result.close()
        else:
            opened.set_result(result)


def _visit(namespace: int, home: int, groups: int) -> socket.socket:
    """In the namespace, and then in our own again."""
    _enter(namespace)
    try:
        return netlink_socket(groups)
    finally:
        _come_back(home)


def _come_back(home: int) -> None:
    try:
        _enter(home)
    except OSError as error:  # no memory
        _log.critical("Cannot leave the network namespace of a machine: %s", error)
        os._exit(EXIT_ASTRAY)


def _may_come_back(home: int) -> bool:
    try:
        _enter(home)
        return True
    except OSError:
        return False


def _open(namespace: int, groups: int) -> socket.socket:
    """In a thread that has no other use: it stays in the namespace until it ends."""
    _enter(namespace)
    return netlink_socket(groups)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def netlink_socket(groups: int = 0, buffer: int | None = None) -> socket.socket:
    """A non-blocking NETLINK_ROUTE socket in the calling thread's network namespace; `buffer` is RECEIVE_BUFFER's."""
    buffer = RECEIVE_BUFFER if buffer is None else buffer
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    try:
        try:
            opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer)
        except PermissionError:  # in a user namespace: as much as everybody may have
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        opened.bind((0, groups))
    except BaseException:
        opened.close()
        raise
    return opened
