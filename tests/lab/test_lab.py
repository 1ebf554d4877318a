# SPDX-License-Identifier: MIT
"""The lab keeps its promises: else no other test's result means anything."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeContainer, MakeHost
from tests.lab import FIRST_CONTAINER_ID, Container, TestHost, Unavailable, cgroups, leftovers, wait_for
from tests.lab.processes import is_alive, members, namespace

NOTIFYING = """
import os, signal, socket, sys
print("starting", flush=True)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.sendto(b"STATUS=up\\nREADY=1\\n", os.environ["NOTIFY_SOCKET"])
signal.sigwait([signal.SIGTERM])
"""

# A name service module of our own making: it knows the user `lab-user`, uid 4242, and nobody else.
MODULE = r"""
#include <errno.h>
#include <nss.h>
#include <pwd.h>
#include <string.h>
enum nss_status _nss_mymachines_getpwnam_r(const char *name, struct passwd *pw, char *buf, size_t size, int *err) {
    (void) err;
    if (strcmp(name, "lab-user") != 0 || size < 64) return NSS_STATUS_NOTFOUND;
    strcpy(buf, "lab-user");
    pw->pw_name = buf; pw->pw_passwd = pw->pw_gecos = pw->pw_dir = pw->pw_shell = buf + 8;
    pw->pw_uid = pw->pw_gid = 4242;
    return NSS_STATUS_SUCCESS;
}
"""


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_module(tmp_path_factory.mktemp("module"), "lab-user")


def build_module(folder: Path, user: str) -> Path:
    folder.joinpath("module.c").write_text(MODULE.replace("lab-user", user))
    argv = ["cc", "-shared", "-fPIC", "-Wl,-soname,libnss_mymachines.so.2", "-o", "libnss_mymachines.so.2", "module.c"]
    subprocess.run(argv, cwd=folder, check=True, timeout=60)
    return folder


@pytest.fixture
def web(make_container: MakeContainer) -> Container:
    return make_container("web")


# --- the host ---

def test_host_has_its_own_run_network_and_name(host: TestHost) -> None:
    assert host.run(["ls", "-A", "/run"], check=True).stdout == ""
    assert host.run(["hostname"], check=True).stdout == "labhost\n"
    links = host.run(["ip", "-oneline", "link"], check=True).stdout.splitlines()
    assert [line.split()[1] for line in links] == ["lo:"]
    assert "UP" in links[0]
    assert host.run(["cat", "/etc/nsswitch.conf"]).stdout.startswith("passwd: files mymachines systemd\n")


def test_host_disturbs_nothing_of_the_machine(host: TestHost) -> None:
    host.run(["touch", "/run/lab-was-here"], check=True)
    host.run(["sh", "-c", "echo spoilt >/etc/nsswitch.conf"], check=True)
    host.run(["ip", "link", "add", "lab0", "type", "veth", "peer", "name", "lab1"], check=True)
    host.run(["hostname", "other"], check=True)
    assert not Path("/run/lab-was-here").exists()
    assert "spoilt" not in Path("/etc/nsswitch.conf").read_text()
    assert "lab0" not in [name for _, name in socket.if_nameindex()]
    assert socket.gethostname() != "other"


def test_a_file_that_the_machine_lacks_can_be_placed(make_host: MakeHost) -> None:
    target = "/etc/lab-is-here"
    host = make_host(files={target: "yes\n", f"{target}-too": "no\n"})
    seen = host.run(["cat", target, f"{target}-too", "/etc/hosts"], check=True).stdout
    assert seen.startswith("yes\nno\n127.0.0.1 localhost\n")
    assert host.run(["cat", "/etc/nsswitch.conf"], check=True).stdout.startswith("passwd: files mymachines systemd\n")
    assert host.run(["ls", "-A", "/run"], check=True).stdout == ""
    assert not Path(target).exists()


def test_two_hosts_are_apart(make_host: MakeHost) -> None:
    one, other = make_host(), make_host(hosts="files")
    one.run(["touch", "/run/one"], check=True)
    assert other.run(["ls", "-A", "/run"], check=True).stdout == ""
    assert "hosts: files\n" in other.run(["cat", "/etc/nsswitch.conf"]).stdout


def test_unmodified_programs_find_the_module_first(make_host: MakeHost, module_folder: Path) -> None:
    host = make_host(passwd="files mymachines", shim_folders=[module_folder])
    assert host.run(["getent", "passwd", "lab-user"], check=True).stdout == "lab-user::4242:4242:::\n"
    assert host.run(["id", "-u", "lab-user"], check=True).stdout == "4242\n"
    cache = host.run(["sh", "-c", "PATH=$PATH:/sbin; ldconfig -p | grep nss_mymachines"], check=True).stdout
    assert cache.splitlines()[0].endswith(f"=> {module_folder}/libnss_mymachines.so.2")
    assert subprocess.run(["getent", "passwd", "lab-user"]).returncode == 2      # not on the machine itself


def test_the_first_folder_wins(make_host: MakeHost, module_folder: Path, tmp_path: Path) -> None:
    """As against Debian's libnss-mymachines: of two libraries with one name the linker takes the first in its cache."""
    other = build_module(tmp_path, "bad-user")
    for folders, found in (([module_folder, other], 0), ([other, module_folder], 2)):
        host = make_host(passwd="mymachines", shim_folders=folders)
        assert host.run(["getent", "passwd", "lab-user"]).returncode == found


def test_a_command_that_hangs_is_ended(host: TestHost) -> None:
    begun = time.monotonic()
    with pytest.raises(AssertionError, match=r"took more than 0\.2 s"):
        host.run(["sleep", "1000"], timeout=0.2)
    assert time.monotonic() - begun < 5


def test_commands_as_other_users(host: TestHost) -> None:
    assert host.run(["id", "-u"], uid=4242).stdout == "4242\n"
    assert host.run(["id", "-G"], uid=4242, gid=43).stdout == "43\n"


def test_what_runs_on_a_host_ends_with_it(make_host: MakeHost) -> None:
    host = make_host()
    child = host.popen(["sleep", "1000"])
    container = host.container("web")
    inside = container.popen(["sleep", "1000"])
    own = {namespace(host.pid, "mnt"), namespace(container.leader, "mnt")}
    wait_for(lambda: len(members(own)) == 6)    # holder, sleep, leader, its starter, nsenter and sleep
    host.close()
    assert members(own) == []
    assert child.returncode == -signal.SIGKILL
    assert inside.returncode is not None


def test_a_stray_on_a_host_is_reported_and_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.lab.host.STRAY_TIMEOUT", 0.1)
    with pytest.raises(AssertionError, match=r"left behind on the test host: \d+ \(sleep 1001\)"), TestHost() as host:
        host.run(["sh", "-c", "sleep 1001 >/dev/null 2>&1 & :"], check=True)
    assert leftovers.Machine().leftovers() == []


def test_all_ends_with_a_killed_test_run() -> None:
    code = (
        "from tests.lab import TestHost\n"
        "import time\n"
        "with TestHost() as host:\n"
        "    web = host.container('web')\n"
        "    host.popen(['sleep', '1000']); web.popen(['sleep', '1000'])\n"
        "    print(host.pid, web.leader, flush=True)\n"
        "    time.sleep(60)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert run.stdout is not None
    spaces = {namespace(int(pid), "mnt") for pid in run.stdout.readline().split()}
    # a command dies with its parent from its last exec on, not before
    wait_for(lambda: [Path(f"/proc/{pid}/comm").read_text() for pid in members(spaces)].count("sleep\n") == 2)
    run.kill()
    run.wait()
    run.stdout.close()
    wait_for(lambda: members(spaces) == [], 5)


# --- the daemon ---

def test_daemon_is_awaited_stopped_and_killed(host: TestHost) -> None:
    daemon = host.start_daemon([sys.executable, "-c", NOTIFYING])
    assert daemon.log == "starting\n"
    daemon.assert_alive()
    daemon.sigstop()
    daemon.sigcont()
    assert daemon.stop() == 0
    again = host.start_daemon([sys.executable, "-c", NOTIFYING])
    again.kill9()
    assert not is_alive(again.pid)


def test_daemon_that_dies_or_is_mute_shows_its_log(host: TestHost) -> None:
    with pytest.raises(AssertionError, match=r"ended with 3 instead of ready\nno luck\n"):
        host.start_daemon(["sh", "-c", "echo no luck; exit 3"])
    with pytest.raises(AssertionError, match=r"was not ready within 0\.2 s\nthinking\n"):
        host.start_daemon(["sh", "-c", "echo thinking; exec sleep 1000"], ready_timeout=0.2)


# --- containers ---

def test_container_has_namespaces_of_its_own(host: TestHost, make_container: MakeContainer) -> None:
    host.run(["touch", "/run/a-socket-of-the-host"], check=True)
    web = make_container("web")
    for kind in ("user", "net", "mnt", "pid", "uts", "ipc"):
        assert namespace(web.leader, kind) not in ("", namespace(host.pid, kind)), kind
    assert web.exec(["hostname"], check=True).stdout == "web\n"
    assert web.exec(["sh", "-c", "echo /proc/[0-9]*"], check=True).stdout.startswith("/proc/1 ")
    assert web.exec(["ls", "-A", "/run"], check=True).stdout == ""
    assert web.has_user_namespace_of_its_own()


def test_container_answers_on_both_families(host: TestHost, web: Container) -> None:
    assert (web.ipv4, web.ipv6) == ("10.213.1.2", "fd00:213:1::2")
    for address in (web.ipv4, web.ipv6):
        assert host.run(["ping", "-nc1", "-W5", address]).returncode == 0
    link = host.run(["ip", "-oneline", "link", "show", "dev", "ve-web"], check=True).stdout
    assert link.startswith(f"{web.host_ifindex}: ve-web@")


def test_no_address_is_tentative(host: TestHost, web: Container) -> None:
    assert "tentative" not in web.exec(["ip", "-6", "address"], check=True).stdout
    assert "tentative" not in host.run(["ip", "-6", "address"], check=True).stdout


def test_addresses_come_and_go(web: Container) -> None:
    web.add_address("10.9.8.7/24")
    web.add_address("fd00:9::7/64")
    assert "10.9.8.7/24" in web.exec(["ip", "address"]).stdout
    web.del_address("10.9.8.7/24")
    assert "10.9.8.7/24" not in web.exec(["ip", "address"]).stdout


def test_users_inside_are_other_users_outside(web: Container, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    web.exec(["touch", tmp_path / "file"], uid=1000, gid=100, check=True)
    status = tmp_path.joinpath("file").stat()
    assert (status.st_uid, status.st_gid) == (web.host_uid(1000), web.host_gid(100))
    assert web.host_uid(1000) == FIRST_CONTAINER_ID + 1000


def test_maps_of_many_extents(make_container: MakeContainer) -> None:
    uid_map = [(0, 200000, 10), (10, 300000, 1), (1000, 400000, 500)]
    many = make_container("many", uid_map=uid_map, gid_map=[(i * 2, 500000 + i, 1) for i in range(300)])
    rows = Path(f"/proc/{many.leader}/uid_map").read_text().splitlines()
    assert [tuple(map(int, row.split())) for row in rows] == uid_map
    assert len(Path(f"/proc/{many.leader}/gid_map").read_text().splitlines()) == 300
    assert many.exec(["id", "-u"], uid=1499).stdout == "1499\n"
    with pytest.raises(Unavailable, match="no id 11"):
        many.exec(["id"], uid=11)


def test_containers_without_one_namespace(host: TestHost, make_container: MakeContainer) -> None:
    users = make_container("users", user_namespace=False)
    assert not users.has_user_namespace_of_its_own()
    assert users.exec(["id", "-u"], uid=1000).stdout == "1000\n"
    net = make_container("net", network_namespace=False)
    assert namespace(net.leader, "net") == namespace(host.pid, "net")
    assert "ve-users@" in net.exec(["ip", "link"]).stdout


def test_an_interface_name_is_cut_to_what_the_kernel_takes(host: TestHost, make_container: MakeContainer) -> None:
    long = make_container("a-name-of-some-length")
    assert long.host_interface == "ve-a-name-of-so"
    assert long.host_ifindex > 1


def test_death_of_the_leader(host: TestHost, web: Container) -> None:
    pidfd = os.pidfd_open(web.leader)
    sleeper = web.popen(["sleep", "1000"])
    web.kill()
    assert not Path(f"/proc/{web.leader}").exists()
    sleeper.wait(5)
    with pytest.raises(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, 0)
    os.close(pidfd)


def test_leader_heeds_a_polite_signal(web: Container) -> None:
    os.kill(web.leader, signal.SIGTERM)
    wait_for(lambda: not is_alive(web.leader))


# --- units ---

@pytest.fixture
def state_files(host: TestHost) -> None:
    """What mymachinesd would write for a machine `web` in the unit web.scope, sd-login's format, by hand."""
    host.run(["mkdir", "-p", "/run/systemd/machines"], check=True)
    host.run(["sh", "-c", "printf 'NAME=web\\nCLASS=container\\nSCOPE=web.scope\\n' >/run/systemd/machines/web"])
    host.run(["ln", "-s", "web", "/run/systemd/machines/unit:web.scope"], check=True)


def test_libsystemd_sees_the_machine_of_a_process_in_a_scope(
    host: TestHost, make_container: MakeContainer, state_files: None
) -> None:
    """`ps` asks sd_pid_get_machine_name(3): control group -> unit -> state file."""
    web = make_container("web", scope="web.scope")
    web.popen(["sleep", "1000"], uid=1000)
    plain = make_container("plain")

    def rows() -> dict[int, list[str]]:
        done = host.run(["ps", "-eo", "pid,machine,comm"], check=True)
        return {int(row[0]): row[1:] for row in map(str.split, done.stdout.splitlines()[1:])}

    wait_for(lambda: ["web", "sleep"] in rows().values(), what="ps to show the machine")
    assert rows()[web.leader] == ["web", "sh"]
    assert rows()[plain.leader] == ["-", "sh"]


def test_a_scope_is_removed_with_its_container(make_container: MakeContainer) -> None:
    web = make_container("web", scope="web.scope")
    assert cgroups.leftovers()
    web.close()
    assert not cgroups.leftovers()


# --- leftovers ---

def test_what_a_test_leaves_behind_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "GRACE", 0.05)
    machine = leftovers.Machine()
    orphan = int(subprocess.check_output(["sh", "-c", "sleep 1002 >/dev/null & echo $!"]))
    with pytest.raises(AssertionError, match=rf"left behind: process {orphan} \(sleep 1002\)$"):
        machine.assert_as_before()
    wait_for(lambda: not is_alive(orphan))
    machine.assert_as_before()


def test_interfaces_mounts_and_groups_left_behind_are_found(tmp_path: Path) -> None:
    """On a machine of its own, so that this test itself leaves nothing."""
    code = (
        "import subprocess, sys\n"
        "from tests.lab import cgroups, leftovers\n"
        "leftovers.GRACE = 0.05\n"
        "machine = leftovers.Machine()\n"
        "subprocess.run(['ip', 'link', 'add', 'lab0', 'type', 'veth', 'peer', 'name', 'lab1'], check=True)\n"
        "subprocess.run(['mount', '-t', 'tmpfs', 'none', sys.argv[1]], check=True)\n"
        "try:\n"
        "    machine.assert_as_before()\n"
        "except AssertionError as error:\n"
        "    print(error)\n"
    )
    with TestHost() as host:
        done = host.python(code, str(tmp_path), cwd=Path(__file__).parents[2], check=True)
    assert done.stdout == f"left behind: interface lab0; interface lab1; mount {tmp_path}\n"


# --- without root ---

@pytest.fixture
def lab_for_all() -> Iterator[Path]:
    """A copy of the lab that anybody can read; the checkout may lie in a home folder that only its owner enters."""
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        os.chmod(folder, 0o755)
        shutil.copytree(Path(__file__).parent, Path(folder) / "tests" / "lab")
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_unprivileged_users_get_a_host_too(lab_for_all: Path) -> None:
    """Names and addresses work in a user namespace with one id."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests.lab import TestHost\n"
        "with TestHost() as host:\n"
        "    web = host.container('web')\n"
        "    assert host.spare_ids == (0, 0) and web.uid_map == [(0, 0, 1)]\n"
        "    print(web.exec(['id', '-u'], check=True).stdout.strip())\n"
        "    print(host.run(['ping', '-nc1', '-W5', web.ipv4]).returncode)\n"
        "    print(host.run(['cat', '/etc/hostname', '/proc/sys/kernel/hostname']).stdout.split()[-1])\n"
    )
    words = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "/usr/bin/python3", "-B", "-c", code]
    done = subprocess.run([*words, str(lab_for_all)], capture_output=True, text=True, timeout=60, cwd="/")
    assert done.stdout.split() == ["0", "0", "labhost"], done.stderr
