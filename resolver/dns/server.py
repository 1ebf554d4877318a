# SPDX-License-Identifier: MIT
"""The server as its options say: sockets, and what they share."""

from resolver.dns.forward import Forwarder
from resolver.dns.limiter import Limiter
from resolver.dns.options import Listen, Options
from resolver.dns.responder import Responder, Table
from resolver.dns.tcp import TcpSocket
from resolver.dns.udp import UdpSocket
from resolver.varlink.loop import EventLoop


class DnsServer:
    """Answers at each address, by UDP and TCP, until close(). OSError from the constructor where one cannot be had."""

    def __init__(self, loop: EventLoop, options: Options, table: Table, unavailable: type[Exception]) -> None:
        forwards = bool(options.forward)
        responder = Responder(options.make_zone(), table, unavailable, forwards)
        limiter = Limiter()
        self._forwarder = Forwarder(loop, options.forward, options.forward_for) if forwards else None
        self._sockets: list[UdpSocket | TcpSocket] = []
        self.ports: list[int] = []
        """Of each address; where an option says 0, the kernel chooses."""
        try:
            for listen in options.listen:
                tcp = TcpSocket(loop, listen, responder, self._forwarder)
                self._sockets.append(tcp)
                self.ports.append(tcp.port)
                same_port = Listen(listen.host, tcp.port, listen.interface)
                self._sockets.append(UdpSocket(loop, same_port, responder, limiter, self._forwarder))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._forwarder is not None:
            self._forwarder.close()
        for one in self._sockets:
            one.close()
        self._sockets.clear()
