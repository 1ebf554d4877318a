# SPDX-License-Identifier: MIT
"""HTTP for scrapers, at Unix sockets and ports. http.server does it: it is asked a few times a minute."""

import logging
import os
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import BaseServer, TCPServer, ThreadingMixIn, UnixStreamServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from resolver.config.values import endpoint

REQUESTS_MAX = 16
"""At a time, of one place; more are closed at once. One scraper has one."""

REQUEST_SECONDS = 10.0
"""For each read and write, of a request that is a kilobyte and an answer that is a few."""

_log = logging.getLogger(__name__)


class _Threads(ThreadingMixIn):
    """A thread for each request, and not more of them than that."""

    daemon_threads = True   # who is slow does not keep us from ending

    def __init__(self, *arguments: Any) -> None:
        self._places = threading.BoundedSemaphore(REQUESTS_MAX)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        assert isinstance(self, BaseServer)
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        _log.debug("A scraper has gone", exc_info=True)


class _Port(_Threads, TCPServer):
    allow_reuse_address = True
    request_queue_size = REQUESTS_MAX


class _Port6(_Port):
    address_family = socket.AF_INET6


class _Path(_Threads, UnixStreamServer):
    request_queue_size = REQUESTS_MAX

    def server_bind(self) -> None:
        try:
            os.unlink(str(self.server_address))     # of a process that was killed
        except FileNotFoundError:
            pass
        super().server_bind()
        os.chmod(str(self.server_address), 0o666)  # noqa: S103 - what is told is no secret (docs/metrics.md)

    def server_close(self) -> None:
        super().server_close()
        try:
            os.unlink(str(self.server_address))
        except FileNotFoundError:
            pass


def open_place(place: str, registry: CollectorRegistry) -> TCPServer:
    """Listen at `/PATH` or `ADDRESS:PORT`. OSError where that cannot be had."""
    handler = _handler(registry)
    if place.startswith("/"):
        return _Path(place, handler)
    address, port = endpoint(place)
    return (_Port6 if ":" in address else _Port)((address, port), handler)


def _handler(registry: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_SECONDS
        server_version = "mymachines-metrics"
        sys_version = ""

        def do_GET(self) -> None:
            if self.path.partition("?")[0] not in ("/", "/metrics"):
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            body = encode(registry)
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            peer: Any = self.client_address     # empty where it has no name
            return str(peer[0]) if peer else "a Unix socket"

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - its name in http.server
            _log.debug("%s: %s", self.address_string(), format % arguments)

    return Handler
