# SPDX-License-Identifier: MIT
"""What an image says of itself; it may be laid out by an enemy."""

import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from machine_images import discovery, metadata
from machine_images.image import NoSuchImage
from resolver.core.errors import NotSupported

ID = "0123456789abcdef0123456789abcdef"
SECRET = "only root may read this"


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(discovery, "SEARCH_PATH", (str(tmp_path),))
    (tmp_path / "web/etc").mkdir(parents=True)
    (tmp_path / "web/usr/lib").mkdir(parents=True)
    return tmp_path / "web"


def put(web: Path, **files: str | bytes) -> None:
    for name, text in files.items():
        (web / "etc" / name.replace("_", "-")).write_bytes(text.encode() if isinstance(text, str) else text)


def test_all_that_there_is(web: Path) -> None:
    assert metadata.read("web") == {}
    put(web, hostname="web.example.\n", machine_id=f"{ID}\n", machine_info="CHASSIS=vm\n",
        os_release='# a comment\nID=tiny\nPRETTY_NAME="Tiny \\"Linux\\""\n')
    assert metadata.read("web") == {
        "hostname": "web.example", "machine_id": ID, "machine_info": {"CHASSIS": "vm"},
        "os_release": {"ID": "tiny", "PRETTY_NAME": 'Tiny "Linux"'}}


def test_the_os_release_of_the_vendor(web: Path) -> None:
    (web / "usr/lib/os-release").write_text("ID=vendor\n")
    assert metadata.read("web")["os_release"] == {"ID": "vendor"}
    (web / "etc/os-release").symlink_to("../usr/lib/os-release")
    assert metadata.read("web")["os_release"] == {"ID": "vendor"}
    (web / "etc/os-release").unlink()
    put(web, os_release="ID=own\n")
    assert metadata.read("web")["os_release"] == {"ID": "own"}


@pytest.mark.parametrize(("file", "text"), [
    ("hostname", "x" * 65), ("hostname", ""), ("hostname", "# only a comment\n"), ("hostname", b"\xff\xfe\n"),
    ("hostname", "na\x1b[31mme"), ("machine_id", "uninitialized\n"), ("machine_id", "0" * 32), ("machine_id", ID[1:]),
    ("machine_id", ID.upper()), ("machine_id", "../" * 10)])
def test_what_is_none(web: Path, file: str, text: str | bytes) -> None:
    put(web, **{file: text})
    assert metadata.read("web") == {}


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "secret"
    path.write_text(f"ID={SECRET}\n")
    path.chmod(0o600)
    yield path
    assert path.read_text() == f"ID={SECRET}\n"


LINKS: dict[str, Callable[[Path, Path], str]] = {
    "absolute": lambda secret, _: str(secret),
    "upwards": lambda secret, _: "../" * 40 + str(secret).lstrip("/"),
    "sibling": lambda secret, _: f"../../{secret.name}",
    "the process": lambda secret, _: f"/proc/self/root{secret}",
    "itself": lambda _, link: link.name,
    "nothing": lambda *_: "nothing",
    "a directory": lambda *_: "/etc",
    "below a file": lambda *_: "hostname/x",
}


@pytest.mark.parametrize("kind", LINKS)
def test_links_lead_nowhere_else(web: Path, secret: Path, kind: str) -> None:
    put(web, hostname="web\n")
    for name in ("os-release", "machine-info", "machine-id"):
        link = web / "etc" / name
        link.symlink_to(LINKS[kind](secret, link))
    assert metadata.read("web") == {"hostname": "web"}


def test_a_folder_that_is_a_link(web: Path, secret: Path) -> None:
    (web / "etc").rmdir()
    (web / "etc").symlink_to(secret.parent)
    (secret.parent / "os-release").write_text(f"ID={SECRET}\n")
    assert metadata.read("web") == {}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))      # /dev/zero: it never ends


def listener(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"ID=huge\n")
        file.truncate(10 << 30)


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [fifo, device, listener, huge, folder])
def test_what_is_no_file_to_be_read(web: Path, make: Callable[[Path], None]) -> None:
    """It takes no time and no memory: nothing of it is opened."""
    put(web, hostname="web\n")
    for name in ("os-release", "machine-id", "machine-info"):
        make(web / "etc" / name)
    before = time.process_time()
    assert metadata.read("web") == {"hostname": "web"}
    assert time.process_time() - before < 5     # CPU time, of which it takes a thousandth


def test_a_file_that_just_fits(web: Path) -> None:
    for size, expected in ((metadata.FILE_MAX, True), (metadata.FILE_MAX + 1, False)):
        put(web, os_release="ID=big\n#".ljust(size, "x"))
        assert ("os_release" in metadata.read("web")) is expected


def test_what_is_not_looked_into(web: Path) -> None:
    (web.parent / "disk.raw").write_bytes(bytes(4096))
    with pytest.raises(NotSupported):
        metadata.read("disk")
    for name in ("none", "..", "", "web/etc"):
        with pytest.raises(NoSuchImage):
            metadata.read(name)


def test_nothing_of_an_image_is_opened_for_a_list(web: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only directories are, and they are not gone through."""
    fifo(web.parent / "pipe.raw")
    device(web.parent / "zero")
    (web.parent / "locked.raw").touch(0)
    opened: list[tuple[Any, int]] = []
    real = os.open

    def watched(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        opened.append((path, flags))
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", watched)
    assert {image.name for image in discovery.everything()} == {".host", "locked", "web"}
    assert all(flags & (os.O_PATH | os.O_DIRECTORY) for _, flags in opened), opened
