# SPDX-License-Identifier: MIT
"""Metrics of a real daemon, as scrapers get them: the library's own parser, curl, and a real Prometheus."""

import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from resolver.metrics.serve import REQUEST_SECONDS, REQUESTS_MAX
from tests.endtoend.conftest import World
from tests.lab import PROJECT, Daemon, TestHost, command, wait_for

PORT = 9797
PLACE = f"127.0.0.1:{PORT}"
SCRAPE_SECONDS = 30.0

DASHBOARD = PROJECT / "docs/grafana-dashboard.json"

Metrics = dict[str, float]


class Scraped(World):
    """A World with mymachines-metrics at PLACE and at the path `socket`, both in the host's namespaces."""

    def __init__(self, host: TestHost, daemon: Daemon, socket: Path) -> None:
        super().__init__(host, daemon)
        self.socket = socket
        self.server = host.start_daemon(command("mymachines-metrics"), f"--listen={PLACE}", f"--listen={socket}")

    def curl(self, *words: str) -> str:
        return self.host.run(["curl", "--silent", "--show-error", "--max-time", "20", *words], check=True).stdout

    def text(self) -> str:
        return self.curl("--header", "Accept: application/openmetrics-text; version=1.0.0", f"http://{PLACE}/metrics")

    def metrics(self) -> Metrics:
        """By name, with labels as they are written."""
        return {sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
                for family in text_string_to_metric_families(self.text())  # type: ignore[no-untyped-call]
                for sample in family.samples}

    def until(self, right: Callable[[Metrics], bool], what: str) -> None:
        wait_for(lambda: right(self.metrics()), SCRAPE_SECONDS, f"{what} in\n{self.text()}")


@pytest.fixture
def scraped(host: TestHost, tmp_path: Path) -> Scraped:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    return Scraped(host, host.start_daemon(None, "--no-dbus"), tmp_path / "metrics.sock")


def test_what_machines_do_is_counted(scraped: Scraped) -> None:
    scraped.until(lambda found: found["mymachines_machines{container}"] == 0, "no machines")
    web = scraped.machine("web")
    scraped.machine("vm", "--class", "vm", network_namespace=False)
    scraped.until(lambda found: found["mymachines_machines{vm}"] == 1, "both machines")
    found = scraped.metrics()
    assert found["mymachines_up"] == 1
    assert found["mymachines_machines{container}"] == 1
    assert found["mymachines_machines_registered_total"] == 2
    assert found["mymachines_machine_addresses{ipv4}"] == 1
    assert found["mymachines_machines_contested"] == 0
    assert found["mymachines_table_bytes"] > 4096
    assert found["mymachines_table_withdrawn"] == 0
    assert found["mymachines_calls_total{io.systemd.Machine.Register}"] == 2
    assert found["mymachinesd_process_resident_memory_bytes"] > 1e6
    assert found["mymachines_userdb_process_resident_memory_bytes"] > 1e6
    scraped.ctl("show", "nobody", check=False)
    changes = found["mymachines_machine_changes_total"]
    web.exec(["ip", "address", "add", "10.213.1.77/24", "dev", "host0"], check=True)
    scraped.until(lambda found: found["mymachines_machine_addresses{ipv4}"] == 2, "the new address")
    assert scraped.metrics()["mymachines_machine_changes_total"] > changes
    assert scraped.metrics()["mymachines_errors_total{io.systemd.Machine.NoSuchMachine}"] == 1
    web.kill()
    scraped.until(lambda found: found["mymachines_machines_gone_total"] == 1, "the machine's end")
    found = scraped.metrics()
    assert found["mymachines_machines{container}"] == found["mymachines_machine_addresses{ipv4}"] == 0


def test_machines_of_before_count_and_a_daemon_that_is_gone_is_told(scraped: Scraped) -> None:
    scraped.machine("web")
    scraped.daemon.kill9()
    scraped.until(lambda found: found["mymachines_up"] == 0, "that it is down")
    assert not [name for name in scraped.metrics() if name.startswith("mymachines_machines")]
    scraped.restart()
    scraped.until(lambda found: found["mymachines_up"] == 1, "that it is up")
    found = scraped.metrics()
    assert (found["mymachines_machines{container}"], found["mymachines_machines_registered_total"]) == (1, 0)


def test_places_and_paths(scraped: Scraped) -> None:
    by_path = scraped.curl("--unix-socket", str(scraped.socket), "http://localhost/metrics")
    assert "# TYPE mymachines_up gauge" in by_path
    assert "mymachines_up 1.0" in by_path
    status = scraped.curl("--output", "/dev/null", "--write-out", "%{http_code}", f"http://{PLACE}/etc/passwd")
    assert status == "404"
    assert scraped.text().endswith("# EOF\n")
    assert scraped.server.stop() == 0
    assert not scraped.socket.exists()


def test_who_asks_without_end_keeps_nobody_waiting(scraped: Scraped) -> None:
    """More connections than there are places, none of which says anything, on the path; the port still answers, and the
    path does when they have gone."""
    with ExitStack() as silent:
        for _ in range(REQUESTS_MAX + 5):
            silent.enter_context(socket.socket(socket.AF_UNIX)).connect(str(scraped.socket))
        assert scraped.metrics()["mymachines_up"] == 1
        # The port's last request may not have ended yet. The silent ones are not given up before.
        wait_for(lambda: len(os.listdir(f"/proc/{scraped.server.pid}/task")) <= REQUESTS_MAX + 3, REQUEST_SECONDS / 2,
                 "no more threads than places")

    def answers() -> bool:
        done = scraped.host.run(["curl", "--silent", "--max-time", "20", "--unix-socket", str(scraped.socket),
                                 "http://localhost/"])
        return "mymachines_up 1.0" in done.stdout

    wait_for(answers, SCRAPE_SECONDS, "an answer at the path")


def test_configured_places(host: TestHost, tmp_path: Path) -> None:
    path, place = tmp_path / "c.toml", tmp_path / "place.sock"
    path.write_text(f"metrics.listen = ['{place}']\n")
    server = host.start_daemon(command("mymachines-metrics"), "--config", str(path))
    assert place.is_socket()
    server.kill9()
    assert host.start_daemon(command("mymachines-metrics"), "--config", str(path)).pid   # over the socket of before
    for words, status in ((["--listen=nowhere"], 2), (["--listen=/nowhere/at/all"], 1), (["--listen=127.0.0.1:0"], 2)):
        done = host.run([*command("mymachines-metrics"), *words])
        assert done.returncode == status, done
        assert "Traceback" not in done.stderr


PROMETHEUS = f"""
global: {{scrape_interval: 1s}}
scrape_configs: [{{job_name: mymachines, static_configs: [{{targets: ['{PLACE}']}}]}}]
"""


@pytest.fixture
def prometheus(scraped: Scraped, tmp_path: Path) -> Iterator[Callable[[str], list[dict[str, object]]]]:
    """A real one, scraping. Gives a function that asks it."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    config = tmp_path / "prometheus.yml"
    config.write_text(PROMETHEUS)
    with (tmp_path / "log").open("wb") as log:
        process = scraped.host.popen(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}",
             "--web.listen-address=127.0.0.1:9090"], stdout=log, stderr=log)

    def ask(query: str) -> list[dict[str, object]]:
        done = scraped.host.run(["curl", "--silent", "--get", "--data-urlencode", f"query={query}", "--max-time", "20",
                                 "http://127.0.0.1:9090/api/v1/query"])
        answer = json.loads(done.stdout) if done.returncode == 0 and done.stdout.startswith("{") else {}
        assert answer.get("status") != "error", answer
        found: list[dict[str, object]] = answer.get("data", {}).get("result", [])
        return found

    yield ask
    process.terminate()
    process.wait(SCRAPE_SECONDS)


def test_prometheus_and_the_dashboard(scraped: Scraped, prometheus: Callable[[str], list[dict[str, object]]]) -> None:
    """Each query of the dashboard is one that Prometheus takes, and of metrics that there are."""
    scraped.machine("web")
    scraped.ctl("show", "nobody", check=False)      # an error, so that there is one to be counted
    wait_for(lambda: [each["value"][1] for each in prometheus('mymachines_machines{class="container"}')] == ["1"],  # type: ignore[index]
             SCRAPE_SECONDS, "the machine in Prometheus")
    names = {re.sub(r"\{.*", "", name) for name in scraped.metrics()}
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(queries) >= 8
    for query in queries:
        used = set(re.findall(r"\bmymachines\w*", query))
        assert used, query
        assert used <= names, query
        prometheus(query.replace("$__rate_interval", "1m").replace("$instance", ".*"))


def test_promtool_finds_nothing_to_say(scraped: Scraped) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    done = scraped.host.run(["promtool", "check", "metrics"], input=scraped.curl(f"http://{PLACE}/metrics"))
    assert done.returncode == 0, done.stdout + done.stderr
