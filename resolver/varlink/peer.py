# SPDX-License-Identifier: MIT
"""Who is at the other end of a Unix socket, as the kernel vouches for it (unix(7))."""

import os
import select
import socket
import struct

SO_PEERPIDFD = 77
"""asm-generic/socket.h, Linux 6.5. The pidfd of the process that called connect(2), whatever took its number since."""

_UCRED = struct.Struct("iII")  # struct ucred: pid, uid, gid


class Peer:
    """The process that connected; a Caller (resolver.varlink.call)."""

    def __init__(self, sock: socket.socket) -> None:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        self.pid, self.uid, self.gid = _UCRED.unpack(credentials)
        self._sock = sock
        self._pidfd: int | None = None

    @property
    def pidfd(self) -> int | None:
        """Opened when first asked for: most calls never do. None, or readable, where the process is gone."""
        if self._pidfd is None:
            self._pidfd = _peer_pidfd(self._sock, self.pid, self.uid)
        return self._pidfd

    def close(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


def _peer_pidfd(sock: socket.socket, pid: int, uid: int) -> int | None:
    try:
        pidfd: int = sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
        os.set_inheritable(pidfd, False)
        return pidfd
    except ProcessLookupError:
        return None
    except OSError:
        pass  # an older kernel; also what 6.5 says of a peer that is gone, which the checks below find too
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    # The number may have a new owner. As long as the peer lives and has kept its socket, it cannot: so look, now that
    # the process is held, whether the connection is still up and the process still the peer's user's.
    try:
        if not hung_up(sock) and os.stat(f"/proc/{pid}").st_uid == uid:
            return pidfd
    except OSError:
        pass
    os.close(pidfd)
    return None


def hung_up(sock: socket.socket) -> bool:
    """Whether the other end is closed altogether, not only for writing: nobody will read a reply."""
    poll = select.poll()
    poll.register(sock, 0)  # POLLHUP and POLLERR come unasked
    return bool(poll.poll(0))
