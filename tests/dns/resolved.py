# SPDX-License-Identifier: MIT
"""python -m tests.dns.resolved ROOT: the hook, asked by a real systemd-resolved of 259 or later.

Debian 13 has 257. ROOT is a tree that has a newer one, made so, which takes some minutes and is why this is a test only
where MYMACHINES_TEST_RESOLVED=ROOT says so:

    debootstrap --variant=minbase --include=systemd,systemd-resolved forky ROOT

As root. resolved runs in namespaces of its own, with dnsmasq as the DNS server of the world; dig asks it.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.dns.serving import Process, Table
from tests.lab import wait_for

MORTAL = "setpriv", "--pdeathsig=KILL"
"""What is started so ends with this process, whatever ends it."""

INSIDE = "MYMACHINES_INSIDE_NAMESPACES"
CONFIGURATION = "[Resolve]\nDNS=127.0.0.1:5300\nFallbackDNS=\nLLMNR=no\nMulticastDNS=no\nDNSSEC=no\nCache=no\n"
NETWORK = ("link set lo up", "link add one type veth peer name two", "link set one up", "link set two up",
           "address add 10.7.7.1/24 dev one", "route add default via 10.7.7.2")
WORLD = {"www.nic.ai": "192.0.2.80", "nic.ai": "192.0.2.82", "example.com": "192.0.2.81"}


def dig(name: str, rdtype: str = "A") -> str:
    """Status, then the data of the answer."""
    done = subprocess.run(["dig", "+time=3", "+tries=1", "@127.0.0.53", name, rdtype], capture_output=True, text=True,
                          check=False).stdout
    status = re.search(r"status: (\w+)", done)
    data = re.findall(rf"^\S+\s+\d+\s+IN\s+{rdtype}\s+(\S+)$", done, re.MULTILINE)
    return " ".join([status[1] if status else "none", *sorted(data)])


@contextmanager
def running(*words: str) -> Iterator[None]:
    process = subprocess.Popen([*MORTAL, *words], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def expect(name: str, rdtype: str, wanted: str) -> None:
    try:
        wait_for(lambda: dig(name, rdtype) == wanted, 5)
    except AssertionError:
        raise AssertionError(f"{name} {rdtype}: {dig(name, rdtype)!r}, not {wanted!r}") from None
    print(f"{name} {rdtype}: {wanted}")


def the_world_goes_on() -> None:
    for name, address in WORLD.items():
        expect(name, "A", f"NOERROR {address}")


def check(root: Path) -> None:
    for line in NETWORK:
        subprocess.run(["ip", *line.split()], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root / "run"], check=True)
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    subprocess.run(["mount", "--bind", "/dev", root / "dev"], check=True)
    configuration = root / "run/systemd/resolved.conf.d/test.conf"
    for folder in (configuration.parent, root / "run/systemd/resolve.hook", root / "run/systemd/resolve"):
        folder.mkdir(parents=True)
    configuration.write_text(CONFIGURATION)
    subprocess.run(["chroot", root, "chown", "systemd-resolve:", "/run/systemd/resolve"], check=True)
    table = Table(root / "run/table-2")
    table.add("web", "10.1.2.3", "fd00::1")
    table.add("ai", "10.1.2.4")
    socket = root / "run/systemd/resolve.hook/io.systemd.Machine"
    arguments = "resolver.hook", f"--socket={socket}", f"--table={table.path}"
    with ExitStack() as stack:
        stack.callback(table.close)
        stack.enter_context(running(
            "dnsmasq", "--keep-in-foreground", "--port=5300", "--no-resolv", "--no-hosts", "--listen-address=127.0.0.1",
            "--bind-interfaces", "--conf-file=/dev/null", "--pid-file=", "--user=root",
            *(f"--host-record={name},{address}" for name, address in WORLD.items())))
        hook = stack.enter_context(Process(*arguments, before=MORTAL))
        stack.enter_context(running("chroot", str(root), "/usr/lib/systemd/systemd-resolved"))
        the_world_goes_on()
        expect("web", "A", "NOERROR 10.1.2.3")
        expect("web", "AAAA", "NOERROR fd00::1")
        expect("web", "SRV", "NOERROR")
        expect("ai", "A", "NOERROR 10.1.2.4")
        expect("ai", "AAAA", "NOERROR")
        expect("WEB.machines.internal", "A", "NOERROR 10.1.2.3")
        expect("nobody.machines.internal", "A", "NXDOMAIN")
        table.add("later", "10.1.2.9")
        expect("later", "A", "NOERROR 10.1.2.9")
        table.remove("later")
        expect("later", "A", "REFUSED")     # resolved asks no DNS server for a single label
        print("the hook is killed, and leaves its socket")
        hook.process.send_signal(signal.SIGKILL)
        hook.process.communicate()
        the_world_goes_on()
        expect("web", "A", "REFUSED")
        print("it is started again")
        with Process(*arguments, before=MORTAL) as again:
            expect("web", "A", "NOERROR 10.1.2.3")
            the_world_goes_on()
            again.stop()
        assert not socket.exists()
        the_world_goes_on()


def main() -> None:
    if INSIDE not in os.environ:
        os.execvpe("unshare", ["unshare", "--mount", "--net", "--propagation=private", sys.executable, "-m",
                               "tests.dns.resolved", sys.argv[1]], {**os.environ, INSIDE: "1"})
    check(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
