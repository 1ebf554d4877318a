# SPDX-License-Identifier: MIT
"""The daemon's statistics as the Prometheus client library has metrics."""

import os
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from resolver import __version__
from resolver.table import TABLE_PATH
from resolver.varlink import MACHINE_SOCKET
from resolver.varlink.client import Client
from resolver.varlink.errors import VarlinkError

PREFIX = "mymachines"

ASK_SECONDS = 2.0
"""For the daemon's answer. Prometheus gives up after ten, and shall hear that the daemon is down."""

KEEP_SECONDS = 0.5
"""How long an answer serves: whoever scrapes without end does not ask the daemon without end."""

_KINDS = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}

PROCESSES = {"mymachinesd": MACHINE_SOCKET, "mymachines_userdb": "/run/systemd/userdb/io.systemd.Machine"}
"""By the prefix of their metrics: the socket that each of them listens at."""


class MachinesCollector(Collector):
    """Asks at each scrape. Where nobody answers, `mymachines_up` is 0 and the rest is missing."""

    def __init__(self, socket: str = MACHINE_SOCKET, table: str = TABLE_PATH) -> None:
        self._socket = socket
        self._table = table
        self._lock = threading.Lock()
        self._asked = -KEEP_SECONDS
        self._families: list[dict[str, Any]] | None = None

    def collect(self) -> Iterator[Metric]:
        families = self._ask()
        yield InfoMetricFamily(PREFIX, "Which version serves these metrics.", value={"version": __version__})
        yield GaugeMetricFamily(f"{PREFIX}_up", "1 where mymachinesd answers.", value=families is not None)
        yield GaugeMetricFamily(f"{PREFIX}_table_bytes", "Size of the table; 0 where there is none.",
                                value=_size(self._table))
        for family in families or ():
            if family["kind"] in _KINDS:    # a newer daemon may have others
                yield _metric(family)

    def _ask(self) -> list[dict[str, Any]] | None:
        with self._lock:
            if time.monotonic() - self._asked >= KEEP_SECONDS:
                try:
                    with Client(self._socket, ASK_SECONDS) as client:
                        self._families = client.call("io.mymachines.Machines.Statistics")["families"]
                except (OSError, VarlinkError, KeyError):
                    self._families = None
                self._asked = time.monotonic()
            return self._families


class ServerCollector(Collector):
    """Processor time, memory and descriptors of who listens at a socket, as Prometheus' libraries name them; nothing
    where nobody does."""

    def __init__(self, name: str, socket: str) -> None:
        self._socket = socket
        self._process = ProcessCollector(namespace=name, pid=lambda: self._pid, registry=None)
        self._pid = 0

    def collect(self) -> Iterable[Metric]:
        try:
            with Client(self._socket, ASK_SECONDS) as client:
                self._pid, _ = client.peer()
            return self._process.collect()
        except OSError:
            return ()


def _metric(family: dict[str, Any]) -> Metric:
    labels = [family["label"]] if family["label"] else []
    make: type[CounterMetricFamily | GaugeMetricFamily] = _KINDS[family["kind"]]
    metric = make(f"{PREFIX}_{family['name']}", family["help"], labels=labels)
    for sample in family["samples"]:
        metric.add_metric([sample["label"]] if labels else [], sample["value"])
    return metric


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
