# SPDX-License-Identifier: MIT
"""What people use today, real and on test hosts of its own: systemd-machined, SSSD, /etc/hosts."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.dbus.bus import CONFIG
from tests.lab import TestHost, Unavailable, wait_for

MACHINED = "/lib/systemd/systemd-machined"
BUS = "/run/dbus/system_bus_socket"
USERDB = "/run/systemd/userdb/io.systemd.Machine"
START_SECONDS = 30.0
"""SSSD starts a process after the other, on a busy machine."""

SSSD_FOLDERS = ("db", "mc", "pipes/private", "pubconf/krb5.include.d", "gpo_cache", "secrets", "deskprofile", "keytabs")
SSSD_CONF = """[sssd]
services = nss
domains = bench
[nss]
[domain/bench]
id_provider = files
passwd_files = /etc/sssd/passwd
group_files = /etc/sssd/group
"""


def inside(host: TestHost, path: str) -> Path:
    """A path of the test host's, from outside."""
    return Path(f"/proc/{host.pid}/root{path}")


def module_folder(package: str) -> Path:
    """Where Debian's module is; said to the linker, so that ours, if it is installed, is not taken for it."""
    done = subprocess.run(["dpkg-query", "--listfiles", package], capture_output=True, text=True, check=False)
    found = [Path(line) for line in done.stdout.splitlines() if "/libnss_" in line]
    if not found:
        raise Unavailable(f"{package} is not installed")
    return found[0].parent


@contextmanager
def machined_host() -> Iterator[TestHost]:
    """A host with dbus-daemon, systemd-machined and Debian's modules."""
    if not Path(MACHINED).exists() or not shutil.which("dbus-daemon"):
        raise Unavailable("systemd-machined or dbus-daemon is not installed")
    with TestHost(passwd="files systemd", hosts="files mymachines", run_size="1g",
                  shim_folders=[module_folder("libnss-mymachines")]) as host:
        host.run(["mkdir", "-p", "/run/dbus", "/run/systemd/machines"], check=True)
        inside(host, "/run/dbus/bench.conf").write_text(CONFIG.format(socket=BUS))
        bus = host.popen(["dbus-daemon", "--config-file=/run/dbus/bench.conf", "--nofork", "--nopidfile", "--nosyslog"],
                         stderr=subprocess.DEVNULL)
        wait_for(inside(host, BUS).is_socket, START_SECONDS, "dbus-daemon")
        machined = host.popen([MACHINED], stderr=subprocess.DEVNULL)
        wait_for(inside(host, USERDB).is_socket, START_SECONDS, "systemd-machined")
        try:
            yield host
        finally:
            machined.kill()
            bus.kill()


@contextmanager
def sssd_host(users: Sequence[tuple[str, int]]) -> Iterator[TestHost]:
    """A host with SSSD and these users, and groups of the same names and ids, from files of its own."""
    if not shutil.which("sssd", path="/usr/sbin:/usr/bin"):
        raise Unavailable("sssd is not installed")
    if not list(Path("/usr/lib").glob("*/sssd/libsss_files.so")):
        raise Unavailable("this sssd has no files provider")
    with TestHost(passwd="files sss", shim_folders=[module_folder("libnss-sss")]) as host:
        for folder in ("/var/lib/sss", "/etc/sssd", "/var/log/sssd"):
            host.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder], check=True)
        host.run(["mkdir", "-p", "/etc/sssd/conf.d", *(f"/var/lib/sss/{name}" for name in SSSD_FOLDERS)], check=True)
        inside(host, "/etc/sssd/passwd").write_text("".join(
            f"{name}:x:{uid}:65534:UID:/:/usr/sbin/nologin\n" for name, uid in users))
        inside(host, "/etc/sssd/group").write_text("".join(f"{name}:x:{uid}:\n" for name, uid in users))
        conf = inside(host, "/etc/sssd/sssd.conf")
        conf.touch(0o600)
        conf.write_text(SSSD_CONF)
        daemon = host.popen(["sssd", "--interactive", "--logger=stderr"], stderr=subprocess.DEVNULL)
        wait_for(lambda: host.run(["getent", "passwd", users[0][0]]).stdout, START_SECONDS, "SSSD")
        try:
            yield host
        finally:
            daemon.terminate()      # kills its own children first
            daemon.wait(START_SECONDS)


@contextmanager
def files_host(names: Mapping[str, Sequence[str]]) -> Iterator[TestHost]:
    """A host whose /etc/hosts alone has the names and their addresses."""
    lines = "".join(f"{address} {name}\n" for name, addresses in names.items() for address in addresses)
    with TestHost(hosts="files", files={"/etc/hosts": lines}) as host:
        yield host


