# SPDX-License-Identifier: MIT
"""Which images there are."""

import os
import stat
import time
from pathlib import Path

import pytest

from machine_images import discovery
from machine_images.image import NAME_MAX, UNKNOWN, ImageType, NoSuchImage, is_image_name
from machine_images.stat import set_immutable

NAMES = ["web", "web.1", ".hidden", "we ird", "ümlaut", "x" * NAME_MAX, "-rf", "raw"]
NO_NAMES = ["", ".", "..", "a/b", "/", ".#half", "a\nb", "a\0b", "\x1b[31m", "\udcff", "x" * (NAME_MAX + 1),
            "ü" * (NAME_MAX // 2 + 1)]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two of the search path; the second is the pool."""
    found = [tmp_path / "first", tmp_path / "pool"]
    for folder in found:
        folder.mkdir()
    monkeypatch.setattr(discovery, "SEARCH_PATH", (str(tmp_path / "none"), *map(str, found)))
    monkeypatch.setattr(discovery, "POOL", str(found[1]))
    return found


def names() -> set[str]:
    return {image.name for image in discovery.everything()} - {".host"}


@pytest.mark.parametrize("name", NAMES)
def test_names(folders: list[Path], name: str) -> None:
    assert is_image_name(name)
    (folders[1] / name).mkdir()
    assert names() == {name}
    assert discovery.find(name).path == str(folders[1] / name)


@pytest.mark.parametrize("name", NO_NAMES)
def test_no_names(folders: list[Path], name: str) -> None:
    assert not is_image_name(name)
    if "/" not in name and "\0" not in name and name not in ("", ".", "..") and len(os.fsencode(name)) <= 255:
        (folders[1] / name).mkdir()
    with pytest.raises(NoSuchImage):
        discovery.find(name)
    assert names() == set()


def test_the_first_folder_counts(folders: list[Path]) -> None:
    for folder in folders:
        (folder / "web").mkdir()
    (folders[0] / "disk.raw").touch()
    (folders[1] / "disk").mkdir()
    assert discovery.find("web").path == str(folders[0] / "web")
    assert discovery.find("disk").type is ImageType.RAW
    assert {image.name: image.path for image in discovery.everything()} == {
        ".host": "/", "web": str(folders[0] / "web"), "disk": str(folders[0] / "disk.raw")}


def test_a_directory_comes_before_a_disk_of_its_name(folders: list[Path]) -> None:
    (folders[1] / "web").mkdir()
    (folders[1] / "web.raw").touch()
    assert discovery.find("web").type is ImageType.DIRECTORY
    assert [image.type for image in discovery.everything() if image.name == "web"] == [ImageType.DIRECTORY]
    (folders[1] / "odd.raw").mkdir()        # a directory, whatever it is called
    assert discovery.find("odd.raw").type is ImageType.DIRECTORY
    with pytest.raises(NoSuchImage):
        discovery.find("odd")


def test_a_disk(folders: list[Path]) -> None:
    path = folders[1] / "disk.raw"
    before = time.time()
    with path.open("wb") as file:
        file.write(b"x" * 10_000)
        file.truncate(1 << 20)
    image = discovery.find("disk")
    assert (image.limit, image.usage, image.read_only) == (1 << 20, path.stat().st_blocks * 512, False)
    assert image.modified == path.stat().st_mtime_ns // 1000
    assert image.created == 0 or abs(image.created / 1e6 - before) < 3600
    path.chmod(0o444)
    assert discovery.find("disk").read_only


def test_a_directory(folders: list[Path]) -> None:
    (folders[1] / "web").mkdir()
    image = discovery.find("web")
    assert image.type is ImageType.DIRECTORY
    assert (image.usage, image.limit, image.modified) == (UNKNOWN, UNKNOWN, 0)
    assert not image.read_only
    set_immutable(str(folders[1] / "web"), True)
    try:
        assert discovery.find("web").read_only
    finally:
        set_immutable(str(folders[1] / "web"), False)


def test_a_block_device(folders: list[Path]) -> None:
    blocks = sorted(Path("/sys/dev/block").iterdir())
    if not blocks:
        pytest.skip("this kernel has no block devices")
    number = tuple(int(part) for part in blocks[0].name.split(":"))
    os.mknod(folders[0] / "device", stat.S_IFBLK | 0o600, os.makedev(*number))
    (folders[1] / "disk").symlink_to(folders[0] / "device")
    image = discovery.find("disk")
    assert (image.type, image.read_only) == (ImageType.BLOCK, False)
    assert image.usage == int((blocks[0] / "size").read_text()) * 512


def test_the_host(folders: list[Path]) -> None:
    image = discovery.find(".host")
    assert (image.path, image.of_vendor) == ("/", True)


def test_what_disappears_or_cannot_be_looked_at_hides_no_others(folders: list[Path]) -> None:
    (folders[1] / "web").mkdir()
    (folders[1] / "loop").symlink_to("loop")
    (folders[1] / "dangling.raw").symlink_to("nothing")
    (folders[1] / "file").touch()
    (folders[1] / "below").symlink_to("file/x")
    assert names() == {"web"}


def test_no_folders_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "SEARCH_PATH", (str(tmp_path / "none"),))
    monkeypatch.setattr(discovery, "POOL", str(tmp_path / "none"))
    assert names() == set()
    assert discovery.pool() is None
