# SPDX-License-Identifier: MIT
"""make demo: what mymachines does, on two real containers. Each output is checked: status 1 where one is wrong."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.lab import Container, TestHost, Unavailable, command, wait_for
from tests.lab.processes import children

USER = 1000         # of the container; its user on the host is vu-web-1000
GONE_TIMEOUT = 10.0 # seconds, from the leader's death until its name is gone; takes a few milliseconds

BOLD, RED, PLAIN = ("\033[1m", "\033[31m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


class Demo:
    """Runs commands on a test host as a person would type them, and counts those that went wrong."""

    def __init__(self, host: TestHost) -> None:
        self.host = host
        self.wrong = 0
        self.left_out: list[str] = []

    def say(self, text: str) -> None:
        print(f"\n# {text}", flush=True)

    def show(self, line: str, *expected: str, status: int = 0, cwd: str | None = None) -> None:
        """Runs `line`, no shell, and prints it with its output, in which each regular expression must be found."""
        done = run_line(self.host.run, line, cwd)
        output = (done.stdout + done.stderr).rstrip("\n")
        print(f"{BOLD}$ {line}{PLAIN}" + (f"\n{output}" if output else ""), flush=True)
        missing = [pattern for pattern in expected if not re.search(pattern, output, re.MULTILINE)]
        if missing or done.returncode != status:
            self.wrong += 1
            what = f"status {done.returncode} instead of {status}" if done.returncode != status else f"no {missing}"
            print(f"{RED}^ this is wrong: {what}{PLAIN}", flush=True)

    def show_if(self, program: str, line: str, *expected: str, cwd: str | None = None) -> None:
        """As `show`, where the program is installed."""
        if shutil.which(program):
            self.show(line, *expected, cwd=cwd)
        else:
            self.left_out.append(f"{program}: it is not installed")


Run = Callable[..., subprocess.CompletedProcess[str]]


def run_line(run: Run, line: str, cwd: str | None) -> subprocess.CompletedProcess[str]:
    program, *arguments = shlex.split(line)
    argv = command(program) if program == "mymachinesctl" else [program]
    return run([*argv, *arguments], cwd=cwd)


@contextmanager
def sleeper(web: Container) -> Iterator[int]:
    """A process of the container's user; its pid on the host."""
    nsenter = web.popen(["sleep", "600"], uid=USER, gid=USER)
    try:
        wait_for(lambda: [pid for pid in children(nsenter.pid) if comm(pid) == "sleep"], what="the container's process")
        yield children(nsenter.pid)[0]
    finally:
        nsenter.kill()


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def names_and_addresses(demo: Demo, machines: Iterable[Container]) -> None:
    web, db = machines
    demo.say("Two containers run, made of namespaces and nothing else. Once registered, their names are known.")
    demo.show("getent ahosts web", status=2)
    for machine in (web, db):
        demo.show(f"mymachinesctl register {machine.name} --leader {machine.leader} --interface ve-{machine.name}")
    demo.show("mymachinesctl list", r"^web\b", r"^db\b")
    demo.say("Every program of the host that looks up names finds them.")
    demo.show("getent ahosts web", *(rf"^{address}\s+STREAM\b" for address in web.plain_addresses), r"STREAM web$")
    demo.show_if("ping", "ping -n -c 1 db", r"\b1 received")
    demo.show(f"getent hosts {web.ipv4}", rf"^{web.ipv4}\s+web$")
    demo.say("An address that is new inside is there at once, one that has gone is not.")
    new = web.ipv4.rpartition(".")[0] + ".77"
    web.add_address(f"{new}/24")
    wait_for(lambda: new in demo.host.run(["getent", "ahostsv4", "web"]).stdout, what="the new address")
    demo.show("getent ahostsv4 web", rf"^{new}\s+STREAM\b")
    web.del_address(f"{new}/24")
    wait_for(lambda: new not in demo.host.run(["getent", "ahostsv4", "web"]).stdout, what="it to go")
    demo.show("getent ahostsv4 web", rf"^{web.ipv4}\s+STREAM\b", rf"\A(?!(.|\n)*{new})")


def users(demo: Demo, web: Container, folder: Path) -> None:
    uid, gid = web.host_uid(USER), web.host_gid(USER)
    demo.say("A container's users have names on the host, in place of bare numbers.")
    demo.show(f"getent passwd vu-web-{USER}", rf"^vu-web-{USER}:\S*:{uid}:65534:UID {USER} of Container web:")
    demo.show(f"getent passwd {uid}", rf"^vu-web-{USER}:")
    demo.show(f"getent group {gid}", rf"^vg-web-{USER}:\S*:{gid}:")
    web.exec(["touch", folder / "made-inside"], uid=USER, gid=USER, check=True)
    demo.show("ls -l made-inside", rf"\bvu-web-{USER}\s+vg-web-{USER}\b", cwd=str(folder))
    demo.show_if("userdbctl", f"userdbctl user vu-web-{USER}", rf"\b{uid}\b", r"Service: io\.systemd\.Machine$")
    processes(demo, web)


def processes(demo: Demo, web: Container) -> None:
    version = subprocess.run(["ps", "--version"], capture_output=True, text=True) if shutil.which("ps") else None
    if version is None or "procps" not in version.stdout:
        demo.left_out.append("ps: procps is not installed")
        return
    with sleeper(web) as pid:
        row = rf"^vu-web-{USER}\s+{'web' if web.has_scope else '-'}\s+{pid}\s+sleep$"
        demo.show(f"ps -o user:20,machine,pid,comm -p {pid}", row)


def death(demo: Demo, web: Container) -> None:
    demo.say("The container's first process ends: so does its name. Nobody had to tell.")
    print(f"{BOLD}$ kill -KILL {web.leader}{PLAIN}")
    web.kill()
    wait_for(lambda: demo.host.run(["getent", "ahosts", "web"]).returncode == 2, GONE_TIMEOUT, "the name to be gone")
    demo.show("getent ahosts web", status=2)
    demo.show("mymachinesctl list", r"^db\b", r"\A(?!(.|\n)*^web\b)")


def start_containers(host: TestHost, demo: Demo) -> Sequence[Container]:
    try:
        return host.container("web", scope="web.scope"), host.container("db")
    except Unavailable as reason:
        demo.left_out.append(f"the machine of a process, as ps shows it: {reason}")
        return host.container("web"), host.container("db")


def main() -> int:
    print("# A host of its own: network, /run, nsswitch.conf. Programs are this machine's, which stays as it is.")
    try:
        with TestHost() as host, tempfile.TemporaryDirectory(prefix="mymachines-demo-") as folder:
            os.chmod(folder, 0o777)
            demo = Demo(host)
            print(f"{BOLD}$ mymachinesd &{PLAIN}", flush=True)
            host.start_daemon()
            web, db = start_containers(host, demo)
            names_and_addresses(demo, (web, db))
            if host.spare_ids[1]:
                users(demo, web, Path(folder))
            else:
                demo.left_out.append("containers' users: they take root, or ids in /etc/subuid and newuidmap (uidmap)")
            death(demo, web)
    except Unavailable as reason:
        print(f"The demo cannot run here: {reason}", file=sys.stderr)
        return 1
    for thing in demo.left_out:
        print(f"\n# Left out: {thing}.")
    print(f"\n# {demo.wrong} of these outputs are wrong." if demo.wrong else "\n# All as it should be.")
    return 1 if demo.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
