# SPDX-License-Identifier: MIT
"""Reading real containers' os-release, whatever they make of it."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from resolver.core.errors import MachineError, NoOSRelease, NoSuchMachine, NotAvailable
from resolver.guest import read, readers
from resolver.guest.metadata import GuestFiles, host_os_release
from resolver.guest.os_release import parse_os_release
from resolver.host.process import Process
from tests.guest.processes import reading
from tests.lab import PROJECT, Container, TestHost, Unavailable, wait_for
from tests.lab.processes import describe

T = TypeVar("T")
MakeGuest = Callable[..., Container]

# Its /etc is its own; $1 is where a host's file may lie.
OWN_ETC = "set -e; mount -t tmpfs tmpfs /etc; "
WITHOUT_FALLBACK = "; mount -t tmpfs tmpfs /usr/lib"  # the last command: there is no libc then


@pytest.fixture
def guest(host: TestHost) -> MakeGuest:
    """guest("mkfifo /etc/os-release") starts a container whose /etc holds nothing but what that makes."""

    def make(script: str, *arguments: object, **options: bool) -> Container:
        container = host.container(f"guest{host.next_number()}", link=False, **options)
        container.exec(["sh", "-c", OWN_ETC + script, "sh", *map(str, arguments)], check=True)
        return container

    return make


@pytest.fixture
def secret() -> Iterator[Path]:
    """A file of root's alone, in a directory that everybody may enter."""
    directory = Path(tempfile.mkdtemp(prefix="mymachines-test-"))
    directory.chmod(0o755)
    file = directory / "secret"
    file.touch(mode=0o600)
    file.write_text("SECRET=1\n")
    yield file
    shutil.rmtree(directory)


def with_files(use: Callable[[GuestFiles], Awaitable[T]]) -> T:
    """What `use` returns, and no reader is left."""

    async def main() -> T:
        files = GuestFiles()
        try:
            return await use(files)
        finally:
            files.close()

    try:
        return asyncio.run(main())
    finally:
        assert reading() == []


async def ask(files: GuestFiles, container: Container) -> dict[str, str]:
    with Process.open(container.leader) as process:
        return await files.os_release(process)


def os_release(container: Container) -> dict[str, str]:
    return with_files(lambda files: ask(files, container))


def test_the_first_of_two_files(guest: MakeGuest) -> None:
    assert os_release(guest("echo ID=guest >/etc/os-release")) == {"ID": "guest"}
    fallback = parse_os_release(Path("/usr/lib/os-release").read_bytes())
    for script in (":", "ln -s nowhere /etc/os-release"):
        assert os_release(guest(script)) == fallback
    assert os_release(guest(": >/etc/os-release")) == {}


def test_a_host_without_user_namespace(guest: MakeGuest) -> None:
    assert os_release(guest("echo ID=guest >/etc/os-release", user_namespace=False)) == {"ID": "guest"}


def test_the_hosts_own() -> None:
    assert host_os_release() == parse_os_release(Path("/etc/os-release").read_bytes())


@pytest.mark.parametrize("link", ["/etc/shadow", "../../../../../../etc/shadow", "/etc/a"])
def test_a_link_leads_nowhere_but_inside(guest: MakeGuest, link: str) -> None:
    web = guest(f"ln -s {link} /etc/os-release; ln -s ../etc/shadow /etc/a; echo ID=guest >/etc/shadow")
    assert os_release(web) == {"ID": "guest"}


@pytest.mark.parametrize(("script", "why"), [
    ("mkfifo /etc/os-release", "no regular file"),
    ("ln -s /dev/zero /etc/os-release", "no regular file"),
    ("mkdir /etc/os-release", "no regular file"),
    ("truncate -s 10G /etc/os-release", "longer than"),
    (f"head -c {read.OS_RELEASE_MAX + 1} /dev/zero >/etc/os-release", "longer than"),
    ("ln -s os-release /etc/os-release", "symbolic links"),
    ("echo ID=x >/etc/x; ln -s /proc/1/root/etc/x /etc/os-release", "symbolic links"),
    ("echo ID=x >/etc/x; exec 3</etc/x; ln -s /proc/1/fd/0 /etc/os-release", "symbolic links"),
])
@pytest.mark.parametrize("user_namespace", [True, False])
def test_what_is_no_file_to_read(guest: MakeGuest, script: str, why: str, user_namespace: bool) -> None:
    began = time.monotonic()
    with pytest.raises(NotAvailable, match=why):
        os_release(guest(script, user_namespace=user_namespace))
    assert time.monotonic() - began < readers.DEADLINE_SECONDS


def test_no_file_at_all(guest: MakeGuest) -> None:
    with pytest.raises(NoOSRelease):
        os_release(guest(":" + WITHOUT_FALLBACK))


def test_the_longest_file(guest: MakeGuest) -> None:
    web = guest(f"(echo ID=guest; head -c {read.OS_RELEASE_MAX - 9} /dev/zero) >/etc/os-release")
    assert os_release(web) == {"ID": "guest"}


def test_bytes_that_are_no_text(guest: MakeGuest) -> None:
    assert os_release(guest(r"printf 'ID=a\377\nNAME=\033[2J\n' >/etc/os-release")) == {"ID": "a\ufffd"}


def test_a_guest_sees_no_more_of_the_host_through_us(guest: MakeGuest, secret: Path) -> None:
    """Who has a user namespace can mount a file over another that it may not read. Nor may it have us read it."""
    web = guest("touch /etc/os-release; mount --bind \"$1\" /etc/os-release", secret)
    assert web.exec(["cat", "/etc/os-release"]).returncode != 0
    with pytest.raises(NotAvailable, match="Permission denied"):
        os_release(web)
    secret.chmod(0o644)
    assert os_release(web) == {"SECRET": "1"}


def test_a_stopped_leader_is_read(guest: MakeGuest) -> None:
    web = guest("echo ID=guest >/etc/os-release")
    os.kill(web.leader, signal.SIGSTOP)
    assert os_release(web) == {"ID": "guest"}


def test_a_leader_that_has_gone(guest: MakeGuest) -> None:
    web = guest("echo ID=guest >/etc/os-release")

    async def use(files: GuestFiles) -> None:
        with Process.open(web.leader) as process:
            assert await files.os_release(process) == {"ID": "guest"}
            web.kill()
            with pytest.raises(NoSuchMachine):
                await files.os_release(process)

    with_files(use)


def test_an_answer_about_a_leader_that_has_gone_is_nobodys(guest: MakeGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may have been another one's when the file was read."""
    web = guest(":")

    async def read_late(*_: object) -> bytes:
        web.kill()
        return b"=ID=another"

    monkeypatch.setattr(readers.Readers, "read", read_late)
    with pytest.raises(NoSuchMachine):
        os_release(web)


def test_processes_are_used_again_and_end_idle(guest: MakeGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "IDLE_SECONDS", 0.2)
    guests = [guest(f"echo ID=guest{n} >/etc/os-release") for n in range(3)]

    async def use(files: GuestFiles) -> None:
        used = set()
        for _ in range(10):
            for n, container in enumerate(guests):
                assert await ask(files, container) == {"ID": f"guest{n}"}
            used |= set(reading())
        assert len(used) == 1
        deadline = time.monotonic() + 5
        while reading():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        # And one that somebody else has killed is no one's answer.
        assert await ask(files, guests[0]) == {"ID": "guest0"}
        os.kill(reading()[0], signal.SIGKILL)
        wait_for(lambda: not reading())  # before the loop can have noticed
        assert await ask(files, guests[0]) == {"ID": "guest0"}

    with_files(use)


def test_a_reader_that_does_not_answer_is_killed(guest: MakeGuest) -> None:
    """At the deadline as promised, whoever waits for it; who asks about others waits for nothing."""
    slow, other = (guest("echo ID=guest >/etc/os-release") for _ in range(2))

    async def use(files: GuestFiles) -> None:
        assert await ask(files, slow) == {"ID": "guest"}
        [reader] = reading()
        os.kill(reader, signal.SIGSTOP)
        began = time.monotonic()
        hanging = [asyncio.create_task(ask(files, slow)) for _ in range(100)]
        gave_up = asyncio.create_task(ask(files, slow))
        await asyncio.sleep(0)
        gave_up.cancel()
        for _ in range(20):
            assert await asyncio.wait_for(ask(files, other), 1) == {"ID": "guest"}
        assert len(reading()) == 2  # a hundred who ask about one guest cost one process
        for answer in await asyncio.gather(*hanging, return_exceptions=True):
            assert isinstance(answer, NotAvailable)
        assert readers.DEADLINE_SECONDS - 0.1 < time.monotonic() - began < readers.DEADLINE_SECONDS + 0.5
        await asyncio.wait_for(asyncio.gather(*files._readers._tasks), 5)  # the killed one has gone
        assert reader not in reading()
        assert await ask(files, slow) == {"ID": "guest"}

    with_files(use)


def test_many_that_hang_delay_nobody(guest: MakeGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than there are turns; and beyond READERS_MAX no process is started."""
    monkeypatch.setattr(readers, "READERS_MAX", 10)
    monkeypatch.setattr(readers, "TURN_SECONDS", 0.1)
    hanging = [guest("echo ID=guest >/etc/os-release") for _ in range(12)]
    good = guest("echo ID=guest >/etc/os-release")
    # As if the guest hung: the reader stops itself.
    monkeypatch.setattr(read, "__file__", make_stopping_reader({c.leader for c in hanging}))

    async def use(files: GuestFiles) -> None:
        began = time.monotonic()
        asked = [asyncio.create_task(ask(files, c)) for c in hanging[:9]]
        assert await ask(files, good) == {"ID": "guest"}
        assert time.monotonic() - began < 2
        asked += [asyncio.create_task(ask(files, c)) for c in hanging[9:]]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(answer, MachineError) for answer in answers)
        assert sum("no more are asked" in str(answer) for answer in answers) == 2
        await asyncio.wait_for(asyncio.gather(*files._readers._tasks), 5)
        assert await ask(files, good) == {"ID": "guest"}

    try:
        with_files(use)
    finally:
        os.unlink(read.__file__)


def make_stopping_reader(leaders: set[int]) -> str:
    """A reader that stops itself where it is asked about one of these."""
    code = Path(read.__file__).read_text().replace(
        "def answer(pid: int) -> bytes:\n",
        f"def answer(pid: int) -> bytes:\n    if pid in {leaders!r}:\n        os.kill(os.getpid(), signal.SIGSTOP)\n")
    with tempfile.NamedTemporaryFile("w", suffix=".py", delete=False) as file:
        file.write(code)
    return file.name


# A file system that answers its mount, and then nobody. linux/fuse.h: FUSE_INIT is 26; the reply to it has 64 bytes.
FUSE = r"""
import ctypes, os, struct, sys, time
device = os.open("/dev/fuse", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
os.mkdir("/etc/fuse")
options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
if libc.mount(b"fuse", b"/etc/fuse", b"fuse", 6, options):
    sys.exit(os.strerror(ctypes.get_errno()))
if sys.argv[1] == "answer-the-mount":
    request = os.read(device, 1 << 20)
    unique = struct.unpack_from("=Q", request, 8)[0]
    init = struct.pack("=IIIIHHIIHHI7I", 7, 31, 65536, 0, 16, 12, 65536, 1, 0, 0, 0, *[0] * 7)
    os.write(device, struct.pack("=IiQ", 16 + len(init), 0, unique) + init)
os.symlink("/etc/fuse/os-release", "/etc/os-release")
print("ready", flush=True)
while True:
    if sys.argv[1] == "answer-the-mount":
        os.read(device, 1 << 20)
    time.sleep(1000)
"""


@pytest.mark.parametrize("kind", ["answer-nothing", "answer-the-mount"])
def test_a_file_system_that_hangs(guest: MakeGuest, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """FUSE of root in a container without a user namespace. The kernel may not even let the reader be killed."""
    if not os.path.exists("/dev/fuse"):
        raise Unavailable("this kernel has no fuse")
    monkeypatch.setattr(readers, "DEADLINE_SECONDS", 0.5)
    web, other = guest(":", user_namespace=False), guest("echo ID=other >/etc/os-release")
    server = web.popen([sys.executable, "-c", FUSE, kind], stdout=-1)
    assert server.stdout is not None
    wait_for(lambda: os.path.lexists(f"/proc/{web.leader}/root/etc/os-release"), what="the file system")

    async def use(files: GuestFiles) -> None:
        began = time.monotonic()
        hanging = asyncio.create_task(ask(files, web))
        await asyncio.sleep(0)
        assert await ask(files, other) == {"ID": "other"}
        for asked in (hanging, ask(files, web), ask(files, web)):
            with pytest.raises(NotAvailable):
                await asked
        assert time.monotonic() - began < 5
        assert len(reading()) <= 2
        server.kill()
        web.kill()  # which ends the file system, and whoever waits for it
        while len(reading()) > 1:
            await asyncio.sleep(0.01)
            assert time.monotonic() - began < 10, [describe(pid) for pid in reading()]

    with_files(use)


@pytest.mark.parametrize("busy", [False, True])
def test_readers_end_with_the_daemon(guest: MakeGuest, busy: bool) -> None:
    """However it ends, and whatever they are doing: a stopped one does not see the end of its input."""
    web = guest("echo ID=guest >/etc/os-release")
    code = ("import asyncio, os, signal\nfrom resolver.guest.metadata import GuestFiles\n"
            "from resolver.host.process import Process\nfrom tests.guest.processes import reading\n"
            f"async def main():\n with Process.open({web.leader}) as p:\n  print(await GuestFiles().os_release(p))\n"
            f"  if {busy}: os.kill(reading()[0], signal.SIGSTOP)\n"
            "  print(len(reading()), flush=True)\n"
            "  os.kill(os.getpid(), signal.SIGKILL)\nasyncio.run(main())")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, cwd=PROJECT)
    assert done.stdout == "{'ID': 'guest'}\n1\n", done.stderr
    wait_for(lambda: not reading(), 5, "the reader's end")
