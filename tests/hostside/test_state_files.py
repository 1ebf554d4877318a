# SPDX-License-Identifier: MIT
import ctypes
import errno
import json
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from resolver.core.errors import InvalidArgument
from resolver.core.machine import Machine, MachineClass, ProcessId
from resolver.host import process as process_module
from resolver.host import state_files as state_files_module
from resolver.host.process import NoSuchProcess, Process
from resolver.host.state_files import StateFiles
from tests.hostside.worlds import needs_root, run_inside
from tests.lab.cgroups import Scope
from tests.lab.killing import killed_at_each_line


@pytest.fixture
def leader() -> Iterator[ProcessId]:
    with subprocess.Popen(["sleep", "1000"]) as child:
        with Process.open(child.pid) as process:
            yield process.identity()
        child.kill()


@pytest.fixture
def public(tmp_path: Path) -> Path:
    return tmp_path / "run/machines"


@pytest.fixture
def private(tmp_path: Path) -> Path:
    return tmp_path / "run/private"


@pytest.fixture
def files(public: Path, private: Path) -> StateFiles:
    return StateFiles(public, private)


@pytest.fixture
def web(leader: ProcessId) -> Machine:
    return Machine("web", MachineClass.CONTAINER, leader, service="test", id=bytes(range(16)), root_directory="/a\nb",
                   network_interfaces=(3,), unit="web.scope", owner=1000, realtime=time.time_ns() // 1000,
                   monotonic=time.monotonic_ns() // 1000, ssh_private_key_path="/key")


@pytest.fixture
def plain(web: Machine) -> Machine:
    """Of this one there is nothing that the public file has no place for."""
    return replace(web, root_directory="/a b", owner=0, ssh_private_key_path="")


with_pidfd_ids = pytest.mark.skipif(not process_module.have_pidfd_ids(), reason="Linux before 6.9 has no pidfd ids")


def listed(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_what_was_saved_is_loaded(files: StateFiles, web: Machine, public: Path, private: Path) -> None:
    files.save(web)
    assert listed(public) == ["unit:web.scope", "web"]
    assert os.readlink(public / "unit:web.scope") == "web"
    assert listed(private) == ["web"]
    assert files.load() == ([web], [], {"web"})
    files.save(replace(web, service="later"))
    assert files.load() == ([replace(web, service="later")], [], {"web"})


@with_pidfd_ids
def test_what_the_public_file_has_room_for_is_in_no_private_one(files: StateFiles, plain: Machine, public: Path,
                                                                private: Path) -> None:
    files.save(plain)
    assert listed(public) == ["unit:web.scope", "web"]
    assert listed(private) == []
    assert files.load() == ([plain], [], {"web"})
    Process.from_identity(plain.leader).close()
    files.remove("web", "web.scope")
    assert listed(public) == []


@with_pidfd_ids
def test_a_public_file_that_says_all_is_of_this_boot(files: StateFiles, plain: Machine) -> None:
    files.save(replace(plain, leader=plain.leader._replace(boot_id="0" * 32)))
    ((machine,), _, _) = files.load()
    with pytest.raises(NoSuchProcess):
        Process.from_identity(machine.leader)


@with_pidfd_ids
def test_a_private_file_beside_a_public_one_that_says_all_is_nobodys(files: StateFiles, plain: Machine,
                                                                     private: Path) -> None:
    files.save(replace(plain, owner=4711))
    before = (private / "web").read_bytes()
    files.save(plain)
    assert (private / "web").read_bytes() == before  # of the same registration, even
    assert files.load().machines == [plain]
    files.remove("web", "web.scope")
    assert listed(private) == []


def test_files_of_a_daemon_that_wrote_both_are_read(files: StateFiles, web: Machine, plain: Machine, public: Path,
                                                    private: Path) -> None:
    """With a start time beside the pidfd's id, and without the key by which a public file says all."""
    before = replace(plain, leader=plain.leader._replace(start_time=1041))
    files.save(before)
    assert listed(private) == ["web"]
    assert b"BOOT_ID" not in (public / "web").read_bytes()
    assert files.load() == ([before], [], {"web"})


def test_machines_come_in_the_order_of_their_registration(files: StateFiles, web: Machine) -> None:
    machines = [replace(web, name=name, monotonic=n, unit="") for n, name in enumerate(["c", "a", "b"], 1)]
    for machine in reversed(machines):
        files.save(machine)
    assert files.load().machines == machines


def test_who_may_read(web: Machine, public: Path, private: Path) -> None:
    old = os.umask(0o077)
    try:
        StateFiles(public, private).save(web)
    finally:
        os.umask(old)
    modes = [stat.S_IMODE(os.stat(path).st_mode) for path in (public, public / "web", private, private / "web")]
    assert [oct(mode) for mode in modes] == ["0o755", "0o644", "0o700", "0o600"]


def test_removing_leaves_nothing(files: StateFiles, web: Machine, public: Path, private: Path) -> None:
    files.save(web)
    files.remove("web", "web.scope")
    assert listed(public) == listed(private) == []
    files.remove("web", "web.scope")


def test_the_link_of_another_machine_in_the_same_unit_stays(files: StateFiles, web: Machine, public: Path) -> None:
    files.save(web)
    files.save(replace(web, name="second"))
    files.remove("web", "web.scope")
    assert os.readlink(public / "unit:web.scope") == "second"


def test_the_directory_comes_back(files: StateFiles, web: Machine, public: Path) -> None:
    public.rmdir()
    files.save(web)
    assert files.load().machines == [web]


@pytest.mark.parametrize("name", ["../web", "a/b", "", ".web", "unit:x", "a\0b"])
def test_a_name_that_is_no_machines_never_becomes_a_path(files: StateFiles, web: Machine, name: str) -> None:
    with pytest.raises(InvalidArgument):
        files.save(replace(web, name=name))
    with pytest.raises(InvalidArgument):
        files.remove(name)


@pytest.mark.parametrize("unit", ["a/../../b.service", "a\0.service", "x" * 251])
def test_a_unit_that_can_be_no_file_has_no_link(files: StateFiles, web: Machine, public: Path, unit: str) -> None:
    files.save(replace(web, unit=unit))
    assert listed(public) == ["web"]
    files.remove("web", unit)


def test_a_symbolic_link_in_the_way_is_replaced_and_not_followed(files: StateFiles, web: Machine, public: Path,
                                                                 private: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("whole")
    for folder in (public, private):
        for name in ("web", ".#mymachinesd", "unit:web.scope"):
            (folder / name).symlink_to(victim)
    files.save(web)
    assert victim.read_text() == "whole"
    assert files.load().machines == [web]
    assert listed(public) == ["unit:web.scope", "web"]


def test_what_appears_in_the_way_at_the_last_moment_is_not_written_to(
        files: StateFiles, web: Machine, public: Path, private: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("whole")
    (private / ".#mymachinesd").symlink_to(victim)
    monkeypatch.setattr(os, "unlink", lambda _: None)
    with pytest.raises(FileExistsError):
        files.save(web)
    assert victim.read_text() == "whole"
    assert listed(public) == []


def test_a_fifo_that_says_the_right_thing_is_refused(files: StateFiles, web: Machine, public: Path) -> None:
    files.save(web)
    text = (public / "web").read_bytes()
    (public / "web").unlink()
    os.mkfifo(public / "web")
    fd = os.open(public / "web", os.O_RDWR)
    os.write(fd, text)
    try:
        loaded = files.load()
    finally:
        os.close(fd)
    assert loaded.machines == []
    assert [name for name, _ in loaded.errors] == ["web"]


def test_what_is_no_file_of_a_machine_hinders_no_other(files: StateFiles, web: Machine, public: Path, private: Path,
                                                       tmp_path: Path) -> None:
    files.save(web)
    whole = (public / "web").read_bytes()
    (tmp_path / "elsewhere").write_bytes(whole.replace(b"=web", b"=link"))
    (public / "link").symlink_to(tmp_path / "elsewhere")
    (public / "empty").touch()
    (public / "torn").write_bytes(whole[:20])
    (public / "binary").write_bytes(bytes(range(256)) * 10)
    (public / "other").write_bytes(whole)
    (public / "long").write_bytes(whole.replace(b"=web", b"=long") + b"#" * 70000)
    (public / "folder").mkdir()
    os.mkfifo(public / "fifo")
    (public / ".#mymachinesd").write_bytes(whole)
    (public / "unit:foo.service").symlink_to("nothing")
    os.mkfifo(private / "torn")
    loaded = files.load()
    assert loaded.machines == [web]
    assert [name for name, _ in loaded.errors] == ["binary", "empty", "fifo", "folder", "link", "long", "other", "torn"]


def test_a_damaged_private_file_leaves_what_the_public_one_says(files: StateFiles, web: Machine, private: Path) -> None:
    files.save(web)
    (private / "web").write_bytes(b'{"name": "we')
    loaded = files.load()
    # The public file has LEADER_PIDFDID, or the start time serves; the owner is root now, who may do most.
    assert loaded.machines == [replace(web, owner=0, root_directory="", ssh_private_key_path="")]
    assert [name for name, _ in loaded.errors] == ["web"]


@pytest.mark.parametrize("change", [{"monotonic": 1}, {"leader": ProcessId(1)}])
def test_a_private_file_of_an_earlier_registration_is_not_believed(files: StateFiles, web: Machine, public: Path,
                                                                   private: Path, change: dict[str, object]) -> None:
    files.save(replace(web, owner=4711, **change))  # type: ignore[arg-type]
    earlier = (private / "web").read_bytes()
    files.save(web)
    (private / "web").write_bytes(earlier)
    assert files.load().machines[0].owner == 0


def machineds(leader: int, monotonic: int) -> str:
    return f"# a comment\nNAME=web\nLEADER={leader}\nCLASS=container\nREALTIME=1\nMONOTONIC={monotonic}\n"


def test_machineds_leader_is_believed_if_it_started_before(files: StateFiles, public: Path, leader: ProcessId) -> None:
    (public / "web").write_text(machineds(leader.pid, time.monotonic_ns() // 1000))
    ((machine,), errors, ours) = files.load()
    assert (errors, ours) == ([], set())
    assert machine.leader == leader
    Process.from_identity(machine.leader).close()


def test_machineds_leader_is_not_believed_if_it_started_after(files: StateFiles, public: Path,
                                                              leader: ProcessId) -> None:
    (public / "web").write_text(machineds(leader.pid, time.monotonic_ns() // 1000 - 5_000_000))
    ((machine,), errors, ours) = files.load()
    assert (errors, ours) == ([], set())
    with pytest.raises(NoSuchProcess):
        Process.from_identity(machine.leader)


def test_a_host_that_slept_keeps_its_machines(files: StateFiles, public: Path, leader: ProcessId,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """It slept before all this: CLOCK_MONOTONIC is behind the clock of start times."""
    slept = 20 * 10**9
    clock = time.clock_gettime_ns
    (public / "web").write_text(machineds(leader.pid, (time.monotonic_ns() - slept) // 1000))
    monkeypatch.setattr(time, "clock_gettime_ns",
                        lambda which: clock(which) - (slept if which == time.CLOCK_MONOTONIC else 0))
    assert files.load().machines[0].leader == leader


@with_pidfd_ids
def test_a_pidfd_id_is_what_counts(files: StateFiles, public: Path, leader: ProcessId) -> None:
    assert leader.pidfd_id is not None
    for pidfd_id, believed in ((leader.pidfd_id, True), (leader.pidfd_id + 1, False)):
        (public / "web").write_text(machineds(leader.pid, 2**50) + f"LEADER_PIDFDID={pidfd_id}\n")
        assert files.load().machines[0].leader == (leader if believed else ProcessId(leader.pid))


def test_an_older_kernel_falls_back_on_the_start_time(files: StateFiles, web: Machine, private: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "have_pidfd_ids", lambda: False)
    with Process.open(web.leader.pid) as process:
        leader = process.identity()
    files.save(replace(web, leader=leader))
    ((machine,), _, _) = files.load()
    assert machine.leader == leader
    Process.from_identity(machine.leader).close()
    (private / "web").unlink()
    Process.from_identity(files.load().machines[0].leader).close()


def test_a_file_that_would_not_be_read_is_not_written(files: StateFiles, web: Machine) -> None:
    files.save(web)
    with pytest.raises(OSError, match="web") as caught:
        files.save(replace(web, network_interfaces=tuple(range(1, 20000))))
    assert caught.value.errno == errno.EFBIG
    assert files.load().machines == [web]


@pytest.mark.parametrize("call", ["rename", "symlink", "open"])
def test_a_failure_half_way_leaves_the_old_file_and_no_other(files: StateFiles, web: Machine, public: Path,
                                                             private: Path, call: str,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    files.save(web)
    before = (public / "web").read_bytes(), listed(public), listed(private)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "no luck")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="no luck"):
        files.save(web if call == "symlink" else replace(web, service="new"))  # the link comes last
    monkeypatch.undo()
    assert ((public / "web").read_bytes(), listed(public), listed(private)) == before


def tree(*folders: Path) -> dict[str, bytes | str]:
    return {f"{folder.name}/{path.name}": os.readlink(path) if path.is_symlink() else path.read_bytes()
            for folder in folders for path in folder.iterdir()}


STEPS = (StateFiles.save, StateFiles.link, StateFiles.remove, StateFiles._remove_what_goes_with,
         state_files_module._write, state_files_module._link)


@pytest.mark.parametrize("kind", ["web", "plain"])
@pytest.mark.parametrize("act", ["save", "remove"])
def test_killed_at_each_step_leaves_what_was_before_or_after(files: StateFiles, public: Path, private: Path, act: str,
                                                             kind: str, request: pytest.FixtureRequest) -> None:
    web: Machine = request.getfixturevalue(kind)
    other = replace(web, name="other", unit="other.scope", monotonic=1)
    files.save(other)
    without = tree(public, private)
    files.save(web)
    states = {"save": (without, tree(public, private)), "remove": (tree(public, private), without)}[act]
    seen = []

    def prepare() -> None:
        if act == "save":
            files.remove(web.name, web.unit)
        else:
            files.save(web)

    prepare()
    call = {"save": lambda: files.save(web), "remove": lambda: files.remove(web.name, web.unit)}[act]
    for _ in killed_at_each_line(call, *STEPS):
        loaded = files.load()
        assert loaded.errors == []
        files.tidy(loaded.machines)
        found = tree(public, private)
        assert found in states, (act, sorted(found))
        seen.append(states.index(found))
        prepare()
    print(len(seen) - 1, "deaths")
    assert seen == sorted(seen)  # before, then after
    assert set(seen) == {0, 1}


@pytest.mark.parametrize("kind", ["web", "plain"])
def test_a_new_machine_that_could_not_be_saved_has_left_nothing(files: StateFiles, public: Path, private: Path,
                                                                kind: str, request: pytest.FixtureRequest,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    web: Machine = request.getfixturevalue(kind)
    for call in ("symlink", "rename", "open"):
        for failing in range(1, 4):
            left = failing

            def fail(*arguments: object, real: object = getattr(os, call), **options: object) -> object:
                nonlocal left
                left -= 1
                if left == 0:
                    raise OSError(errno.ENOSPC, "no room")
                return real(*arguments, **options)  # type: ignore[operator]

            with monkeypatch.context() as patch:
                patch.setattr(os, call, fail)
                try:
                    files.save(web)
                except OSError:
                    assert tree(public, private) == {}
            files.remove(web.name, web.unit)


def test_what_belongs_to_others_is_not_tidied(files: StateFiles, web: Machine, public: Path, private: Path) -> None:
    files.save(web)
    (public / "machineds").write_text("of a later version")
    (public / "unit:machineds.scope").symlink_to("machineds")
    (private / "machineds").write_text("and its other half")
    before = tree(public, private)
    files.tidy([web])
    assert tree(public, private) == before
    (public / "machineds").unlink()
    files.tidy([web])
    assert len(tree(public, private)) == 3


def test_a_link_that_is_missing_is_made(files: StateFiles, web: Machine, public: Path) -> None:
    """Of two machines in a unit the second one's takes over; a daemon was killed between the two steps."""
    files.save(web)
    (public / "unit:web.scope").unlink()
    files.save(replace(web, name="without"), linked=False)
    files.tidy([web])
    assert os.readlink(public / "unit:web.scope") == "web"


def test_a_link_that_leads_nowhere_is_made_anew(files: StateFiles, web: Machine, public: Path) -> None:
    files.save(web)
    (public / "unit:web.scope").unlink()
    (public / "unit:web.scope").symlink_to("gone")
    (public / "unit:gone.scope").symlink_to("gone")
    files.tidy([web])
    assert {link.name: os.readlink(link) for link in public.glob("unit:*")} == {"unit:web.scope": "web"}


@needs_root
def test_a_full_disk_leaves_the_old_files_whole() -> None:
    run_inside(["-m"], "full")


@needs_root
def test_libsystemd_reads_our_files() -> None:
    try:
        ctypes.CDLL("libsystemd.so.0")
    except OSError:
        pytest.skip("no libsystemd here")
    unit = "machine-we\\x2db.scope"
    scope = Scope(unit)
    try:
        with subprocess.Popen(["sleep", "1000"]) as child:
            scope.add(child.pid)
            answers = json.loads(run_inside(["-m"], "sdlogin", unit, str(child.pid)))
            child.kill()
    finally:
        scope.close()
    assert answers == {"saved": True, "names": ["web"], "class": "vm", "interfaces": [7, 9], "unit": unit,
                       "machine": "web", "removed": True, "left": 0}
