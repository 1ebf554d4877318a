# SPDX-License-Identifier: MIT
"""The two ends of a copy from one process to another: a tree is sent, and received."""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from resolver.core.idmap import NOBODY, IdMap
from resolver.files.entries import DEVICES, Entry, Kind
from resolver.files.progress import Progress
from resolver.files.read import Reader
from resolver.files.write import Writer
from resolver.guest.copy_packets import Channel, Note

Check = Callable[[Entry], None]
"""OSError where an entry may not be copied."""


class Sending:
    """The reader's side of a channel. `progress` is what the writer says of its own."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._avoid: set[tuple[int, int]] | None = None
        self._done = False

    def on_note(self, note: Note) -> None:
        """For the channel. OSError, the writer's."""
        if "avoid" in note:
            self._avoid = {(int(device), int(inode)) for device, inode in note["avoid"]}
        if "progress" in note:
            self._progress.files, self._progress.bytes = note["progress"]["files"], note["progress"]["bytes"]
            self._progress.maybe_tell()
        if "error" in note:
            raise error_of(note)
        if "done" in note:
            add_changes(self._progress, note["done"])
            self._done = True

    def send(self, channel: Channel, reader: Reader, check: Check) -> None:
        """The whole tree; returns when it was written. OSError."""
        for entry in reader:
            _checked(check, entry, reader.path)
            channel.send_entry(entry)
            while self._avoid is None:
                channel.hear()
            reader.avoid = self._avoid
        channel.send_note({"end": changes_of(self._progress)})
        while not self._done:
            channel.hear()


def receive_tree(channel: Channel, writer: Writer, progress: Progress, check: Check) -> None:
    """Write what comes, and answer. OSError; then the writer is to be discarded."""
    begun = False
    while True:
        try:
            received = channel.receive()
        except ValueError as error:
            raise OSError(errno.EBADMSG, f"the other process of the copy talks nonsense: {error}") from None
        if received is None:
            raise BrokenPipeError(errno.EPIPE, "the other process of the copy has ended")
        if isinstance(received, Entry):
            try:
                _checked(check, received, writer.path)
                writer.put(received)
            finally:
                if received.descriptor >= 0:
                    os.close(received.descriptor)
            if not begun:
                begun = True
                channel.send_note({"avoid": sorted(writer.avoid)})
        elif "end" in received:
            writer.finish()
            add_changes(progress, received["end"])
            channel.send_note({"progress": counts_of(progress), "done": changes_of(progress)})
            return
        else:
            raise error_of(received)


def _checked(check: Check, entry: Entry, path: Callable[[bytes], bytes]) -> None:
    try:
        check(entry)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path(entry.name)) from None


def tell_error(channel: Channel, error: OSError, progress: Progress) -> None:
    """What became of it here. Where nobody listens any more, nobody needs it."""
    path = os.fsencode(error.filename).hex() if error.filename is not None else None
    with suppress(OSError):
        channel.send_note({"error": error.errno or 0, "text": error.strerror or str(error), "path": path,
                           "progress": counts_of(progress)})


def tell_progress(channel: Channel, progress: Progress) -> None:
    channel.send_note({"progress": counts_of(progress)})


def error_of(note: Note) -> OSError:
    path = bytes.fromhex(note["path"]) if note.get("path") is not None else None
    return OSError(int(note["error"]), str(note["text"]), path)


def counts_of(progress: Progress) -> dict[str, int]:
    return {"files": progress.files, "bytes": progress.bytes}


def changes_of(progress: Progress) -> dict[str, Any]:
    return {"changes": progress.changes, "changed": progress.changed}


def add_changes(progress: Progress, changes: dict[str, Any]) -> None:
    for path in changes["changed"]:
        progress.note_change(path)
    progress.changes += changes["changes"] - len(changes["changed"])


class Rules:
    """What may be copied between the host and a machine."""

    def __init__(self, maps: tuple[IdMap, IdMap] | None) -> None:
        """Of its users and groups; None where it has no user namespace of its own."""
        self._maps = maps

    def check_device(self, entry: Entry) -> None:
        """Device nodes are copied only where the machine's root could have made them itself.

        Into a machine: they would give it more than it was given. From a machine: a file system that its root has made
        (FUSE) shows any device it likes, and here it would work. 0:0 is no device: overlayfs marks with it what was
        deleted, and everybody may make it (mknod(2)).
        """
        if self._maps is not None and entry.kind in DEVICES and entry.device:
            raise OSError(errno.EPERM, "a device node, which the machine's own root cannot make")

    def check_from(self, entry: Entry) -> None:
        """And what belongs to nobody in the machine may be somebody's outside, whose the copy must not be."""
        self.check_device(entry)
        if self._maps is None or NOBODY not in (entry.uid, entry.gid) or entry.kind is Kind.ENTER:
            return
        status = os.fstat(entry.descriptor)
        if stat.S_IFMT(status.st_mode) != stat.S_IFMT(entry.mode):
            raise OSError(errno.EBADMSG, "it is not what it was")
        for what, inside, host, ids in (("user", entry.uid, status.st_uid, self._maps[0]),
                                        ("group", entry.gid, status.st_gid, self._maps[1])):
            if inside == NOBODY and ids.to_inside(host) is None:
                raise OSError(errno.EOVERFLOW, f"it belongs to the host's {what} {host}, unknown in the machine")
