# SPDX-License-Identifier: MIT
"""What tests run in namespaces of its own: inside.py recycle | full | sdlogin UNIT PID ..."""

import ctypes
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from resolver.core.machine import Machine, MachineClass, ProcessId
from resolver.host import process as process_module
from resolver.host.process import NoSuchProcess, Process
from resolver.host.state_files import StateFiles


def sleep() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", "100"])


@contextmanager
def fails(kind: type[Exception], text: str = "") -> Iterator[None]:
    """As pytest.raises, without pytest."""
    try:
        yield
    except kind as error:
        assert text in str(error)  # noqa: PT017
    else:
        raise AssertionError(f"no {kind.__name__}")


def recycle() -> None:
    """In a pid namespace of our own: another process gets the number of one that was registered."""
    for have_ids in {False, process_module.have_pidfd_ids()}:
        setattr(process_module, "have_pidfd_ids", lambda have_ids=have_ids: have_ids)  # noqa: B010
        first = sleep()
        with Process.open(first.pid) as held:
            identity = held.identity()
            assert (identity.pidfd_id is not None) == have_ids
            end(first)
            second = successor(identity)
            with fails(NoSuchProcess, "another process"):
                Process.from_identity(identity)
            for ask in (held.start_time, held.unit, held.id_maps, held.identity, lambda held=held: held.send_signal(9)):
                with fails(NoSuchProcess):
                    ask()
            assert second.poll() is None
            end(second)


def successor(identity: ProcessId) -> "subprocess.Popen[bytes]":
    """A process of the same number, started in a later tick of the clock of start times."""
    while True:
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(identity.pid - 1))
        child = sleep()
        assert child.pid == identity.pid
        with Process.open(child.pid) as process:
            if process.start_time() != identity.start_time:
                return child
        end(child)


def end(child: "subprocess.Popen[bytes]") -> None:
    child.kill()
    child.wait()


def full() -> None:
    """In a mount namespace of our own: the disk is full."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", "/run"], check=True)
    files = StateFiles()
    machine = Machine("web", MachineClass.CONTAINER, ProcessId(os.getpid()), unit="web.scope", root_directory="/old")
    files.save(machine)
    before = Path("/run/systemd/machines/web").read_bytes()
    with open("/run/filler", "wb", buffering=0) as filler, fails(OSError, "No space left"):
        while filler.write(b"x" * 4096):
            pass
    with fails(OSError, "No space left"):
        files.save(Machine("web", MachineClass.CONTAINER, ProcessId(os.getpid()), unit="web.scope"))
    assert Path("/run/systemd/machines/web").read_bytes() == before
    assert sorted(os.listdir("/run/systemd/machines")) == ["unit:web.scope", "web"]
    assert os.listdir("/run/systemd/mymachines") == ["web"]
    files.remove("web", "web.scope")  # needs no room
    assert os.listdir("/run/systemd/machines") == os.listdir("/run/systemd/mymachines") == []


def sdlogin(unit: str, pid: str) -> None:
    """In a mount namespace of our own: what libsystemd makes of our files."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    lib = ctypes.CDLL("libsystemd.so.0")
    files = StateFiles()
    monitor = ctypes.c_void_p()
    assert lib.sd_login_monitor_new(b"machine", ctypes.byref(monitor)) >= 0
    poll = select.poll()
    poll.register(lib.sd_login_monitor_get_fd(monitor), select.POLLIN)

    def noticed() -> bool:
        happened = bool(poll.poll(0))
        lib.sd_login_monitor_flush(monitor)
        return happened

    assert not noticed()
    machine = Machine("web", MachineClass.VM, ProcessId(int(pid)), unit=unit, root_directory='/a "b"\nCLASS=container',
                      service="x y", network_interfaces=(7, 9))
    files.save(machine)
    answers: dict[str, object] = {"saved": noticed(), "names": [], "class": "", "interfaces": [], "machine": ""}
    # What a crash may leave behind is no machine.
    for folder in ("/run/systemd/machines", "/run/systemd/mymachines"):
        Path(folder, ".#mymachinesd").write_text("NAME=torn\n")
    names = ctypes.POINTER(ctypes.c_char_p)()
    count = lib.sd_get_machine_names(ctypes.byref(names))
    answers["names"] = [os.fsdecode(names[i] or b"") for i in range(count)]
    text = ctypes.c_char_p()
    assert lib.sd_machine_get_class(b"web", ctypes.byref(text)) >= 0
    answers["class"] = os.fsdecode(text.value or b"")
    indices = ctypes.POINTER(ctypes.c_int)()
    count = lib.sd_machine_get_ifindices(b"web", ctypes.byref(indices))
    answers["interfaces"] = [indices[i] for i in range(count)]
    assert lib.sd_pid_get_unit(int(pid), ctypes.byref(text)) >= 0
    answers["unit"] = os.fsdecode(text.value or b"")
    assert lib.sd_pid_get_machine_name(int(pid), ctypes.byref(text)) >= 0
    answers["machine"] = os.fsdecode(text.value or b"")
    noticed()
    files.remove("web", unit)
    answers["removed"] = noticed()
    answers["left"] = lib.sd_get_machine_names(None)
    print(json.dumps(answers))


if __name__ == "__main__":
    programs: dict[str, Callable[..., None]] = {"recycle": recycle, "full": full, "sdlogin": sdlogin}
    programs[sys.argv[1]](*sys.argv[2:])
