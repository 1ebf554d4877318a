# SPDX-License-Identifier: MIT
"""mymachinesctl doctor on a test host where each thing is broken for real: found, and mended by what it says."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.dbus.bus import Bus
from tests.endtoend.conftest import MACHINE_SOCKET, MakeHost, World
from tests.lab import BUILD, Container, TestHost, command, wait_for
from tests.lab.waiting import Lines

ALL_SECONDS = 60.0
"""For all checks where everything is mute; a healthy host takes one or two."""

MACHINED = Path("/lib/systemd/systemd-machined")
USERDB = "/run/systemd/userdb"
HOOKS = "/run/systemd/resolve.hook"

CODES = {"ok": 0, "note": 0, "warning": 6, "broken": 7}

LISTENER = """
import os, socket, sys
sock = socket.socket(socket.AF_UNIX)
os.makedirs(os.path.dirname(sys.argv[1]), exist_ok=True)
sock.bind(sys.argv[1])
sock.listen(8)
print("listening", flush=True)
sys.stdin.read()
"""
"""Takes connections, as the kernel does for it, and says nothing."""


class Report:
    """What the command found."""

    def __init__(self, found: list[dict[str, Any]], code: int) -> None:
        self.found, self.code = found, code
        assert code == max(CODES[finding["level"]] for finding in found), found
        for finding in found:
            assert CODES[finding["level"]] == 0 or (finding["meaning"] and finding["mend"]), finding

    def bad(self) -> list[tuple[str, str]]:
        return [(f["level"], f["check"]) for f in self.found if f["level"] in ("warning", "broken")]

    def one(self, said: str) -> dict[str, Any]:
        """The one finding that says so."""
        [finding] = [finding for finding in self.found if said in finding["text"]]
        return finding


def doctor(host: TestHost, *arguments: str, env: Mapping[str, str] | None = None) -> Report:
    done = host.run([*command("mymachinesctl"), "doctor", "--json", *arguments], timeout=ALL_SECONDS, env=env)
    assert done.stdout, done.stderr
    return Report(json.loads(done.stdout), done.returncode)


def check(host: TestHost, *checks: str, env: Mapping[str, str] | None = None) -> Report:
    return doctor(host, *(f"--check={name}" for name in checks), env=env)


def well(host: TestHost, *checks: str, name: str | None = None) -> Report:
    """Nothing is wrong: at once, or when a busy machine lets whoever is asked answer in time."""
    def look() -> Report | None:
        report = doctor(host, *([name] if name else []), *(f"--check={check}" for check in checks))
        seen.append(report.bad())
        return None if report.bad() else report

    seen: list[list[tuple[str, str]]] = []
    report = wait_for(look, ALL_SECONDS, f"all to be well; it was {seen}")
    assert report is not None
    assert report.code == 0
    return report


def shell(host: TestHost, script: str) -> None:
    host.run(["sh", "-c", script], check=True)


def listen_mutely(host: TestHost, path: str, program: str = sys.executable) -> "subprocess.Popen[bytes]":
    process = host.popen([program, "-c", LISTENER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert Lines(process).next(10) == "listening"
    return process


# --- all is well ---

def test_where_all_is_well_it_says_so(make_host: MakeHost) -> None:
    host = make_host(hosts="files mymachines dns")
    world = World(host, host.start_daemon())
    web = world.machine("web")
    report = well(host, name="web")
    assert {finding["check"] for finding in report.found} == {
        "caches", "nsswitch", "library", "table", "daemon", "userdb", "hook", "sockets", "machined", "families",
        "strangers", "path"}
    path = {finding["text"] for finding in report.found if finding["check"] == "path"}
    both = f"{web.ipv4}, {web.ipv6}"
    assert {f"registered: web, container, leader {web.leader}", f"table: {both}", f"shim: {both}",
            f"getaddrinfo: {web.ipv6}, {web.ipv4}", f"getaddrinfo with AI_ADDRCONFIG: {web.ipv6}, {web.ipv4}",
            f"reverse: {web.ipv4} is web", f"reverse: {web.ipv6} is web", "users: getpwuid: vu-web-0",
            f"users: getpwnam: {web.host_uid(0)}", "users: getgrgid: vg-web-0",
            f"users: getgrnam: {web.host_gid(0)}", "users: userdb: vu-web-0"} <= path
    assert all(finding["seconds"] > 0 for finding in report.found if finding["check"] == "path")
    # People get the same, without JSON and, since it is no terminal, without colour.
    text = world.ctl("doctor", "--check=nsswitch")
    assert text.splitlines() == ["ok       nsswitch: passwd: files mymachines systemd",
                                 "ok       nsswitch: group: files mymachines systemd",
                                 "ok       nsswitch: hosts: files mymachines dns", "3 ok"]
    assert world.ctl("doctor", "--check=nonsense", check=False).startswith("1: mymachinesctl: there is no check")
    # Who is not root is told all the same; the interpreter may lie where only root can read it.
    unprivileged = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=+dac_read_search",
                    "--ambient-caps=+dac_read_search"]
    words = [*unprivileged, *command("mymachinesctl"), "doctor", "web"]
    wait_for(lambda: host.run(words, timeout=ALL_SECONDS).returncode == 0, ALL_SECONDS, "all to be well for anybody")


# --- nsswitch.conf, the library, the table ---

def test_nsswitch_conf_is_mended_by_what_it_says(host: TestHost) -> None:
    for wrong, said in (("hosts: files resolve [!UNAVAIL=return] mymachines dns", "ends the look-up"),
                        ("hosts: files dns", "mymachines is not asked"),
                        ("passwd: files mymachines [NOTFOUND=return] systemd", "[NOTFOUND=return] behind"),
                        ("group: files systemd", "mymachines is not asked")):
        shell(host, f"""sed 's/^{wrong.partition(":")[0]}:.*/{wrong}/' /etc/nsswitch.conf >/run/new &&
                        cat /run/new >/etc/nsswitch.conf""")
        report = check(host, "nsswitch")
        assert report.bad() == [("broken", "nsswitch")]
        mend = report.one(said)["mend"]
        # The file is a mount on this host and cannot be renamed over, as sed -i would.
        shell(host, mend.replace("sed -i", "sed") + " >/run/new && cat /run/new >/etc/nsswitch.conf")
        well(host, "nsswitch")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a module of our module's name that is somebody else's."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "module.c").write_text("int _nss_mymachines_getpwuid_r(void) { return -1; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-Wl,-soname,libnss_mymachines.so.2", "-o",
                    folder / "libnss_mymachines.so.2", folder / "module.c"], check=True)
    return folder


def test_which_library_is_loaded(make_host: MakeHost, foreign: Path) -> None:
    host = make_host(shim_folders=[foreign, BUILD])
    finding = check(host, "library").one(f"programs load {foreign}/libnss_mymachines.so.2, which is not ours")
    assert finding["level"] == "broken"
    assert finding["mend"] == f"echo {BUILD} >/etc/ld.so.conf.d/00-mymachines.conf && ldconfig"
    without = make_host(shim_folders=[])
    # systemd's, where that is installed
    theirs = "libnss_mymachines" in without.run(["ldconfig", "-p"], check=True).stdout
    said = "which is not ours" if theirs else "no libnss_mymachines.so.2 can be loaded"
    assert check(without, "library").one(said)["level"] == "broken"


def test_the_table_is_whole_open_and_as_the_daemon_says(world: World) -> None:
    table, host = "/run/mymachines/table-2", world.host
    web = world.machine("web")
    well(host, "table").one("the table is what mymachinesd says")

    shell(host, "chmod 700 /run/mymachines")
    finding = check(host, "table").one("cannot be read by all users")
    assert finding["level"] == "broken"
    shell(host, finding["mend"])

    # Of another time: a copy in its place, while the daemon writes the one that nobody finds any more.
    shell(host, f"cp -p {table} /run/old && mv {table} /run/new && mv /run/old {table}")
    world.machine("db", link=False)
    web.add_address("10.213.1.77/24")
    wait_for(lambda: "10.213.1.77" in world.ctl("explain", "web"))
    finding = check(host, "table").one("the table and mymachinesd disagree about db, web")
    assert finding["level"] == "broken"
    shell(host, f"mv /run/new {table}")
    well(host, "table")

    shell(host, f"chmod 666 {table}")
    check(host, "table").one("not a file that root alone can write")
    shell(host, f"chmod 644 {table} && printf nonsense | dd of={table} conv=notrunc status=none")
    assert "damaged" in check(host, "table").found[0]["text"]
    shell(host, f"rm {table}")
    assert check(host, "table").one(f"{table} is not there")["level"] == "broken"


# --- processes and sockets ---

def test_the_daemon_is_away_mute_or_another(world: World) -> None:
    host = world.host
    world.daemon.sigstop()
    report = check(host, "daemon", "sockets")
    assert report.one("mymachinesd, pid ")["level"] == "broken"
    assert report.one(f"{MACHINE_SOCKET}: pid {world.daemon.pid} (mymachinesd) does not answer")["level"] == "broken"
    world.daemon.sigcont()
    world.daemon.kill9()
    report = check(host, "daemon", "userdb", "table")
    assert ("broken", "daemon") in report.bad()
    report.one("mymachinesd does not run: its socket is left")
    assert report.one("the table cannot be compared")["level"] == "warning"
    report.one("mymachines-userdb: ")   # outlives its daemon
    world.restart()
    shell(host, f"ln -sf {USERDB}/io.systemd.Machine {MACHINE_SOCKET}")
    assert check(host, "daemon").one("which is mymachines-userdb")["level"] == "broken"
    world.daemon.stop()
    shell(host, f"rm -f {MACHINE_SOCKET}")
    report = check(host, "daemon", "userdb", "table")
    assert report.one("mymachinesd does not run: its socket is not there")["level"] == "broken"
    assert report.one("mymachines-userdb does not run")["level"] == "warning"
    world.restart()
    shell(host, "rm /run/mymachines/nss.sock")
    assert check(host, "daemon").one("nss.sock: No such file")["level"] == "warning"


def test_a_mute_userdb_socket_hangs_logins_and_nothing_here(world: World) -> None:
    """Somebody else's. libnss_systemd would wait for 45 s."""
    host = world.host
    mute = listen_mutely(host, f"{USERDB}/io.example.Mute")
    started = time.monotonic()
    report = check(host, "sockets", "strangers", "userdb")
    assert time.monotonic() - started < 40
    finding = report.one(f"io.example.Mute: pid {mute.pid} (")
    assert finding["level"] == "broken"
    assert "logins hang" in finding["meaning"]
    assert f"kill -KILL {mute.pid}" in finding["mend"] or "systemctl restart" in finding["mend"]
    assert report.one("looking up a user that nobody knows does not end")["level"] == "broken"
    mute.kill()
    mute.wait()
    dead = well(host, "sockets", "strangers")
    assert dead.one("io.example.Mute: nobody listens")["level"] == "note"


def test_our_own_userdb_process_is_mute(world: World) -> None:
    pid = world.host.run(["cut", "-d ", "-f1", "/run/mymachines/userdb.pid"], check=True).stdout.strip()
    shell(world.host, f"kill -STOP {pid}")
    finding = check(world.host, "userdb").one("mymachines-userdb, pid ")
    assert finding["level"] == "broken"
    shell(world.host, f"kill -CONT {pid}")
    well(world.host, "userdb")


def test_resolveds_hook(world: World) -> None:
    """Debian 12's resolved asks no hooks: a socket stands in for it, and nothing asks that."""
    host = world.host
    resolved = listen_mutely(host, "/run/systemd/resolve/io.systemd.Resolve")
    assert check(host, "hook").one("does not ask hooks")["level"] == "note"
    shell(host, f"mkdir {HOOKS}")
    assert check(host, "hook").one("mymachines-resolve-hook does not")["level"] == "warning"
    hook = host.popen(command("mymachines-resolve-hook"))
    wait_for(lambda: host.run(["test", "-S", f"{HOOKS}/io.systemd.Machine"]).returncode == 0)
    well(host, "hook", "sockets")
    hook.kill()
    hook.wait()
    finding = check(host, "sockets").one(f"{HOOKS}/io.systemd.Machine: nobody listens")
    assert (finding["level"], finding["mend"]) == ("broken", f"rm {HOOKS}/io.systemd.Machine")
    shell(host, finding["mend"])
    mute = listen_mutely(host, f"{HOOKS}/io.example.Mute")
    assert "DNS hangs" in check(host, "sockets").one("io.example.Mute")["meaning"]
    for process in (mute, resolved):
        process.kill()
        process.wait()
    assert check(host, "hook").one("no hook is needed")["level"] == "ok"  # its socket is left


# --- others in the way ---

@pytest.fixture
def bus() -> Iterator[Bus]:
    with Bus() as bus:
        yield bus


def test_a_real_machined_is_in_the_way(world: World, bus: Bus) -> None:
    host, env = world.host, {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": bus.address}
    if not MACHINED.exists() or shutil.which("busctl") is None:
        pytest.skip("systemd-container is not installed")
    assert check(host, "machined", env=env).one("nobody owns org.freedesktop.machine1")["level"] == "note"
    machined = host.popen([MACHINED], env=env, stderr=subprocess.DEVNULL)
    wait_for(lambda: "org.freedesktop.machine1" in bus.busctl("list").stdout, what="systemd-machined")
    finding = check(host, "machined", env=env).one(
        f"org.freedesktop.machine1 is systemd-machined's, pid {machined.pid}")
    assert finding["level"] == "broken"
    assert "systemctl enable --now mymachinesd" in finding["mend"]
    # Without a bus it is seen all the same.
    assert check(host, "machined").one(f"systemd-machined runs, pid {machined.pid}")["level"] == "warning"
    machined.kill()
    machined.wait()
    bus.freeze()
    assert check(host, "machined", env=env).one("the bus does not answer")["level"] == "note"


NSCD = "".join(f"enable-cache {database} yes\npersistent {database} no\nshared {database} no\n"
               for database in ("passwd", "group", "hosts"))


def test_nscd_answers_in_between(world: World) -> None:
    nscd = shutil.which("nscd", path="/usr/sbin:/usr/bin")
    if nscd is None:
        pytest.skip("nscd is not installed")
    host = world.host
    well(host, "caches")
    shell(host, f"mkdir /run/nscd && cat >/run/nscd.conf <<'EOF'\n{NSCD}EOF")
    process = host.popen([nscd, "--foreground", "--config-file", "/run/nscd.conf"], stderr=subprocess.DEVNULL)
    wait_for(lambda: host.run(["test", "-S", "/run/nscd/socket"]).returncode == 0)
    finding = check(host, "caches").one(f"nscd, pid {process.pid}, answers in between and keeps answers")
    assert finding["level"] == "warning"
    process.terminate()
    process.wait()
    well(host, "caches")
    # nsncd is in no Debian. This has its name and its socket, which is all that is looked at.
    shell(host, f"rm -f /run/nscd/socket && ln -s {os.path.realpath(sys.executable)} /run/nsncd")
    stand_in = listen_mutely(host, "/run/nscd/socket", program="/run/nsncd")
    assert check(host, "caches").one(f"nsncd, pid {stand_in.pid}, answers in between")["level"] == "note"


def test_a_machine_of_a_family_that_the_host_has_not(world: World) -> None:
    """The host reaches it by a route to its link alone; AI_ADDRCONFIG asks for addresses."""
    host = world.host
    web = world.machine("web", addresses=["10.99.0.2/24"], host_addresses=[])
    shell(host, f"ip route add 10.99.0.0/24 dev {web.host_interface}")
    wait_for(lambda: "10.99.0.2" in world.ctl("resolve", "web", check=False))
    report = doctor(host, "web", "--check=families", "--check=path")
    finding = report.one("this host has no IPv4 address but loopback's, and web no other")
    assert finding["level"] == "warning"
    report.one("getaddrinfo: 10.99.0.2")
    assert report.one("getaddrinfo with AI_ADDRCONFIG: ")["level"] == "broken"
    shell(host, finding["mend"])
    well(host, "families", "path", name="web")


# --- the path of a name ---

def test_where_the_path_of_a_name_ends(world: World) -> None:
    host = world.host

    def path(name: str) -> Report:
        return doctor(host, name, "--check=path")

    assert path("absent").one("registered: absent is no machine")["level"] == "broken"
    web = world.machine("web")
    shell(host, "echo 192.0.2.80 web >>/etc/hosts")
    report = path("web")
    assert report.one("getaddrinfo: 192.0.2.80 is not what the table has")["level"] == "warning"
    report.one(f"shim: {web.ipv4}, {web.ipv6}")
    local = world.machine("local", addresses=[], host_addresses=[])     # link-local alone, with its scope
    found = well(host, "path", name="local")
    assert f"%{local.host_ifindex}" in found.one("getaddrinfo: fe80:")["text"]
    bare = world.machine("bare", link=False)
    assert path("bare").one("addresses: none of")["level"] == "broken"
    assert_users(path("bare"), bare)
    world.machine("plain", network_namespace=False, user_namespace=False)
    plain = well(host, "path", name="plain")
    plain.one("it has the host's network")
    plain.one("users: it has no root of its own")
    twin = world.machine("twin", uid_map=[(0, bare.host_uid(0), 65536)])
    assert path("twin").one(f"users: uid {twin.host_uid(0)} is vu-bare-0")["level"] == "warning"
    world.daemon.sigstop()
    assert path("web").one("mymachinesd cannot be asked")["level"] == "broken"
    world.daemon.sigcont()


def assert_users(report: Report, container: Container) -> None:
    report.one("users: getpwuid: vu-bare-0")
    report.one(f"users: getpwnam: {container.host_uid(0)}")


def test_nothing_hangs_where_everything_is_mute(world: World) -> None:
    """Every socket that is asked takes connections and says nothing."""
    host = world.host
    world.machine("web", link=False)
    world.daemon.sigstop()
    pid = host.run(["cut", "-d ", "-f1", "/run/mymachines/userdb.pid"], check=True).stdout.strip()
    shell(host, f"kill -STOP {pid}")
    for path in (f"{USERDB}/a", f"{USERDB}/b", f"{HOOKS}/c", "/run/nscd/socket", "/run/dbus/system_bus_socket"):
        listen_mutely(host, path)
    report = doctor(host, "web")        # within ALL_SECONDS
    assert report.code == 7
    assert {("broken", check) for check in ("daemon", "userdb", "sockets", "strangers", "path")} <= set(report.bad())
    shell(host, f"kill -CONT {pid}")
    world.daemon.sigcont()
