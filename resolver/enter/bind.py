# SPDX-License-Identifier: MIT
"""A file or directory of the host's, mounted in a machine that runs.

    host       open_tree(2) copies the mount, mount_setattr(2) makes it what it is to be: nobody sees it yet
    between    the copy is taken over into a mount namespace of the machine's user namespace, and out of it again: what
               it is then stays so (mount_namespaces(7), Restrictions on mount namespaces). Otherwise the machine's root
               could mount it anew with other flags, and write where it is read-only
    machine    its root makes the directory, where that is asked for
    host, in the machine's mount namespace    move_mount(2) attaches the copy to a place that was opened before

Ids. In a machine with a user namespace, files of the host's users belong to nobody. So the copy is an idmapped mount:
the host's root is the machine's root there, and so on for all ids. Not so where what is mounted belongs to a user of
the machine already, as after `chown vu-web-0`: it is then mounted as it is.
"""

import ctypes
import errno
import os
import stat
from contextlib import suppress

from resolver.core.errors import InvalidArgument, NotSupported
from resolver.enter.identity import as_root_of, become_root, in_child, in_mounts_of
from resolver.enter.place import Place
from resolver.files.paths import open_in

# linux/mount.h, linux/fcntl.h
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC, _AT_RECURSIVE, _AT_EMPTY_PATH = 0x1, os.O_CLOEXEC, 0x8000, 0x1000
_MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_EMPTY_PATH = 0x04, 0x40
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_IDMAP = 0x1, 0x100000
_MS_REC, _MS_PRIVATE = 1 << 14, 1 << 18
_CLONE_NEWNS = 0x00020000  # linux/sched.h
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442  # asm-generic/unistd.h

_BETWEEN = b"/run/bound"
"""In a mount namespace of its own, on a file system of its own."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _MountAttr(ctypes.Structure):  # struct mount_attr of linux/mount.h
    _fields_ = (("attr_set", ctypes.c_uint64), ("attr_clr", ctypes.c_uint64), ("propagation", ctypes.c_uint64),
                ("userns_fd", ctypes.c_uint64))


def bind(place: Place, source: bytes, destination: bytes, *, read_only: bool, make: bool) -> None:
    """Mount `source`, a path of the host, at `destination` in the machine; where asked, make what is not there.

    InvalidArgument, NotSupported, NotAvailable, OSError: nothing has changed then.
    """
    try:
        found = os.open(source, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InvalidArgument("source", f"there is no {os.fsdecode(source)} on the host") from None
    status = os.fstat(found)
    is_directory = stat.S_ISDIR(status.st_mode)
    mount = _copy(found)
    _set(mount, read_only, None if place.uid_map.to_inside(status.st_uid) is not None else place.user_namespace)
    if place.user_namespace is not None:
        mount = _locked(place, mount, is_directory)
    made: list[bytes] = []
    if make:
        made = [os.fsencode(each) for each in as_root_of(
            place, lambda: ({"made": [os.fsdecode(each) for each in _make(place, destination, is_directory)]}, ()))[0][
                "made"]]
    try:
        target = open_in(place.root, destination, os.O_PATH)
        if stat.S_ISDIR(os.fstat(target).st_mode) != is_directory:
            raise InvalidArgument("destination", "a directory is mounted on a directory, and a file on a file")
        if _is_shared_with_host(place, target):
            raise NotSupported("what is mounted there in the machine would be mounted on the host too (shared mounts)")
        in_mounts_of(place, lambda: _attach(mount, target))
    except BaseException as error:
        if made:
            as_root_of(place, lambda: _unmake(place, made, is_directory))
        if isinstance(error, FileNotFoundError):
            raise InvalidArgument("destination", f"there is no {os.fsdecode(destination)} in the machine") from None
        raise


def _locked(place: Place, mount: int, is_directory: bool) -> int:
    """The same mount as it comes out of a namespace that the machine's root owns: nobody there can change its flags."""
    def enter() -> None:
        _check(_libc.unshare(_CLONE_NEWNS))
        _check(_libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))
        _check(_libc.mount(b"tmpfs", os.path.dirname(_BETWEEN), b"tmpfs", ctypes.c_ulong(0), b"mode=0755,size=4k"))
        if is_directory:
            os.mkdir(_BETWEEN)
        else:
            os.close(os.open(_BETWEEN, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC))
        _attach(mount, os.open(_BETWEEN, os.O_PATH | os.O_CLOEXEC))
        become_root(place)
        _check(_libc.unshare(_CLONE_NEWNS))

    return in_child(enter, lambda: ({}, [_copy(os.open(_BETWEEN, os.O_PATH | os.O_CLOEXEC))]))[1][0]


def _check(result: int) -> None:
    if result < 0:
        raise _error()


def _is_shared_with_host(place: Place, target: int) -> bool:
    """Whether the mount that a place lies on has a peer among the host's (mount_namespaces(7), Shared subtrees)."""
    if place.mounts is None:
        return True
    with open(f"/proc/self/fdinfo/{target}", encoding="ascii") as file:
        mount = next(line.split()[1] for line in file if line.startswith("mnt_id:"))
    with open(place.mounts, encoding="utf-8", errors="replace", closefd=False) as file:
        there = {line.split()[0]: _peers(line) for line in file}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        here = set[str]().union(*(_peers(line) for line in file))
    return not there.get(mount, here).isdisjoint(here)


def _peers(line: str) -> set[str]:
    """The peer groups that a line of mountinfo names, in the optional fields between the sixth and the hyphen."""
    return {word for word in line.partition(" - ")[0].split()[6:] if word.startswith("shared:")}


def _copy(found: int) -> int:
    copied: int = _libc.syscall(
        ctypes.c_long(_SYS_OPEN_TREE), ctypes.c_int(found), ctypes.c_char_p(b""),
        ctypes.c_uint(_OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_RECURSIVE | _AT_EMPTY_PATH))
    if copied < 0:
        raise _error()
    return copied


def _set(mount: int, read_only: bool, user_namespace: int | None) -> None:
    """What is mounted below goes along. Private: neither side sees what the other mounts there later."""
    attributes = _MountAttr(attr_set=_MOUNT_ATTR_RDONLY if read_only else 0, propagation=_MS_PRIVATE)
    if user_namespace is not None:
        attributes.attr_set |= _MOUNT_ATTR_IDMAP
        attributes.userns_fd = user_namespace
    if _libc.syscall(ctypes.c_long(_SYS_MOUNT_SETATTR), ctypes.c_int(mount), ctypes.c_char_p(b""),
                     ctypes.c_uint(_AT_EMPTY_PATH | _AT_RECURSIVE), ctypes.byref(attributes),
                     ctypes.c_size_t(ctypes.sizeof(attributes))) < 0:
        error = _error()
        if user_namespace is not None and error.errno in (errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP):
            raise NotSupported("a file system there cannot show its files with the ids of the machine "
                               "(no idmapped mounts, mount_setattr(2))") from None
        raise error


def _attach(mount: int, target: int) -> None:
    if _libc.syscall(ctypes.c_long(_SYS_MOVE_MOUNT), ctypes.c_int(mount), ctypes.c_char_p(b""), ctypes.c_int(target),
                     ctypes.c_char_p(b""), ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH)) < 0:
        raise _error()


def _make(place: Place, destination: bytes, is_directory: bool) -> list[bytes]:
    """Make what is missing of a path, as the machine's root, with all on the way; what was made, topmost first."""
    made: list[bytes] = []
    parts = [part for part in destination.split(b"/") if part]
    try:
        for count in range(1, len(parts) + 1):
            path = b"/" + b"/".join(parts[:count])
            try:
                os.close(open_in(place.root, path, os.O_PATH))
                continue
            except FileNotFoundError:
                pass
            above = open_in(place.root, b"/" + b"/".join(parts[:count - 1]), os.O_PATH | os.O_DIRECTORY)
            try:
                if count < len(parts) or is_directory:
                    os.mkdir(parts[count - 1], 0o755, dir_fd=above)
                else:
                    os.close(os.open(parts[count - 1], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644,
                                     dir_fd=above))
            finally:
                os.close(above)
            made.append(path)
    except OSError:
        _unmake(place, made, is_directory)
        raise
    return made


def _unmake(place: Place, made: list[bytes], is_directory: bool) -> tuple[dict[str, str], tuple[int, ...]]:
    for number, path in enumerate(reversed(made)):
        directory, _, name = path.rpartition(b"/")
        with suppress(OSError):  # somebody uses it meanwhile
            above = open_in(place.root, directory or b"/", os.O_PATH | os.O_DIRECTORY)
            if number == 0 and not is_directory:
                os.unlink(name, dir_fd=above)
            else:
                os.rmdir(name, dir_fd=above)
    return {}, ()


def _error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))

