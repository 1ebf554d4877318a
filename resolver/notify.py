# SPDX-License-Identifier: MIT
"""Tell the service manager how it goes (sd_notify(3))."""

import logging
import os
import socket

_log = logging.getLogger(__name__)


def notify(state: str) -> bool:
    """Send `state`, such as `READY=1`, to NOTIFY_SOCKET. False where nobody listens; never fails, never blocks."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False  # not set, or of another family: vsock is for virtual machines' own managers
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
            sock.sendto(state.encode(), address)
    except OSError as error:
        _log.warning("cannot notify the service manager at %s: %s", address.replace("\0", "@"), error)
        return False
    return True
