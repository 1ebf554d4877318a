# SPDX-License-Identifier: MIT
"""Workers, each a real process: what they are given, what they give, and that none of them stays."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from resolver.core.errors import InvalidArgument, NoSuchMachine, NotAvailable
from resolver.worker import run
from resolver.worker.run import Result, Workers
from tests.lab import wait_for
from tests.lab.processes import children, is_alive

PATIENCE = 30.0
AT_WORK = (str(Path(__file__).with_name("at_work.py")),)

Ask = Callable[..., Coroutine[Any, Any, Result]]


@asynccontextmanager
async def asking(maximum: int) -> AsyncIterator[Ask]:
    before = set(children())    # others' of this process, such as a booted host that several tests share
    workers = Workers(maximum)

    async def ask(do: str, *, patience: float = PATIENCE, descriptors: tuple[int, ...] = (), on_progress: Any = None,
                  **fields: Any) -> Result:
        return await workers.run(AT_WORK, {"do": do, **fields}, descriptors, patience=patience,
                                 on_progress=on_progress)

    yield ask
    await workers.close()
    assert not [pid for pid in children() if pid not in before and is_alive(pid)]


def trying(steps: Callable[[Ask], Awaitable[None]], maximum: int = 8) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE), asking(maximum) as ask:
            await steps(ask)

    asyncio.run(main())


async def appears(file: Path, text: str = "") -> str:
    """What the file holds, once it holds this."""
    def look() -> str:
        content = file.read_text() if file.exists() else ""
        return content if text in content else ""

    return await asyncio.to_thread(wait_for, look, PATIENCE)


async def gone(*pids: int) -> None:
    await asyncio.to_thread(wait_for, lambda: not any(is_alive(pid) for pid in pids), PATIENCE)


def test_an_answer_with_its_descriptors() -> None:
    async def steps(ask: Ask) -> None:
        read, write = os.pipe()
        result = await ask("echo", text="grüß", descriptors=(write,))
        os.close(write)
        assert result.fields == {"said": "grüß"}
        assert [os.get_inheritable(each) for each in result.descriptors] == [False]
        os.write(result.descriptors[0], b"x")
        assert os.read(read, 10) == b"x"
        os.close(result.descriptors[0])
        os.close(read)

    trying(steps)


def test_progress_is_told_in_its_order() -> None:
    async def steps(ask: Ask) -> None:
        numbers: list[dict[str, int]] = []
        await ask("count", to=1000, on_progress=numbers.append)
        assert [each["number"] for each in numbers] == list(range(1000))

    trying(steps)


def test_nothing_of_the_daemon_s_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("PYTHONPATH", "/tmp")

    async def steps(ask: Ask) -> None:
        with (tmp_path / "of the daemon").open("w"):
            fields = (await ask("environment")).fields
        assert not {"LD_PRELOAD", "PYTHONPATH", "NOTIFY_SOCKET"} & set(fields["environment"])
        assert not [each for each in fields["descriptors"] if "of the daemon" in each]
        assert len({each for each in fields["descriptors"] if each.startswith("socket:")}) == 1, fields

    trying(steps)


@pytest.mark.parametrize(("do", "error", "text"), [
    ("no machine", NoSuchMachine, "none such"),
    ("bad argument", InvalidArgument, "path: not absolute"),
    ("os error", NotAvailable, "/nowhere: No such file or directory"),
    ("bug", NotAvailable, "the daemon's log says why"),
    ("die", NotAvailable, "has ended without an answer"),
])
def test_errors_arrive_as_what_they_are(do: str, error: type[Exception], text: str) -> None:
    async def steps(ask: Ask) -> None:
        with pytest.raises(error) as raised:
            await ask(do)
        assert type(raised.value) is error
        assert text in str(raised.value)

    trying(steps)


def test_one_that_says_nothing_is_killed_with_its_children(tmp_path: Path) -> None:
    async def steps(ask: Ask) -> None:
        file = tmp_path / "pids"
        with pytest.raises(NotAvailable, match=r"no answer within 0\.5 s"):
            await ask("hang", file=str(file), patience=0.5)
        pids = [int(pid) for pid in (await appears(file)).split()]
        await gone(*pids)

    trying(steps)


def test_one_that_is_not_wanted_any_more_tidies_up(tmp_path: Path) -> None:
    async def steps(ask: Ask) -> None:
        file = tmp_path / "pids"
        asked = asyncio.create_task(ask("hang", file=str(file)))
        _, child = (await appears(file)).split()
        asked.cancel()
        await appears(file, "tidied up")
        await gone(int(child))

    trying(steps)


def test_one_that_does_not_tidy_up_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "TIDY_SECONDS", 0.2)

    async def steps(ask: Ask) -> None:
        file = tmp_path / "pid"
        asked = asyncio.create_task(ask("deaf", file=str(file)))
        pid = int(await appears(file))
        asked.cancel()
        await gone(pid)

    trying(steps)


def test_there_are_never_more_than_a_few() -> None:
    async def steps(ask: Ask) -> None:
        first = asyncio.create_task(ask("count", to=1))
        await asyncio.sleep(0)
        with pytest.raises(NotAvailable, match="no more are taken"):
            await ask("count", to=1)
        await first

    trying(steps, maximum=1)


def test_a_request_that_is_too_long_is_refused() -> None:
    async def steps(ask: Ask) -> None:
        with pytest.raises(NotAvailable):
            await ask("echo", text="x" * 2**20)

    trying(steps)
