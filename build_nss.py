# SPDX-License-Identifier: MIT
"""Build both products of nss_module/: the shim that glibc loads, and the extension that Python reads and writes by.

The shim, build/libnss_mymachines.so.2, is one direct call of the compiler: it goes into every process of the host, so
nothing of Python, and nothing but libc, may be in it. The extension, resolver._table, is built by cffi in API mode from
the same C files; what Python sees is the text between the marks in the headers, and the compiler verifies it.

    python build_nss.py                both, in place
    python build_nss.py --shim         the shim alone: needs no cffi
    python build_nss.py --m32 DIR      the shim for 32-bit programs, into DIR

$CC, $CFLAGS and $LDFLAGS are honoured. setup.py names `ffibuilder` here in cffi_modules.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
C_FOLDER = "nss_module"
SHIM_NAME = "libnss_mymachines.so.2"

READER = ["table.c", "slot.c", "view.c", "answer.c"]
SHIM_SOURCES = [*READER, "ask.c", "look_up.c", "pack.c", "hosts.c", "users.c", "groups.c"]
EXTENSION_SOURCES = [*READER, "view_heap.c", "names.c", "datagrams.c", "netlink.c"]
CDEF_HEADERS = ["table.h", "answer.h", "view.h", "names.h", "datagrams.h", "netlink.h"]

# 64-bit offsets and times also where programs are of 32 bits: a table's inode number may need them.
MACROS = [("_GNU_SOURCE", "1"), ("_FILE_OFFSET_BITS", "64"), ("_TIME_BITS", "64")]
WARNINGS = ["-Wall", "-Wextra"]
SHIM_FLAGS = [
    "-std=gnu11",
    "-O2",
    "-fPIC",
    "-fvisibility=hidden",
    *WARNINGS,
    *(f"-D{name}={value}" for name, value in MACROS),
    # Hardening that asks for nothing beyond libc at run time. _FORTIFY_SOURCE may be set by a distribution's flags.
    "-U_FORTIFY_SOURCE",
    "-D_FORTIFY_SOURCE=2",
    "-fstack-protector-strong",
    "-fstack-clash-protection",
]
SHIM_LINK_FLAGS = [
    "-shared",
    f"-Wl,-soname,{SHIM_NAME}",
    f"-Wl,--version-script={C_FOLDER}/nss_mymachines.map",
    "-Wl,-z,now",
    "-Wl,-z,relro",
    "-Wl,-z,defs",  # an unresolved symbol is found here and not in somebody's login
    "-Wl,-z,nodelete",  # maps and the view's state are kept for ever: the code may not go before them
    "-Wl,-z,noexecstack",
    "-Wl,-z,noseparate-code",  # one piece of file fewer to map and to fault in, of the few that a first look-up enters
    "-Wl,--as-needed",
]
BEGIN_MARK, END_MARK = "/* --- cdef begin --- */", "/* --- cdef end --- */"


def fail(message: str) -> SystemExit:
    return SystemExit(f"build_nss.py: {message}")


def compiler() -> list[str]:
    """$CC as a command. SystemExit tells what to install where there is none."""
    command = shlex.split(os.environ.get("CC") or "cc")
    if shutil.which(command[0]) is None:
        raise fail(f"no C compiler '{command[0]}': install gcc and libc6-dev (Fedora: gcc glibc-devel), or set CC")
    return command


def require_extension_tools() -> None:
    """SystemExit tells what to install where the extension cannot be built."""
    compiler()
    if not any((Path(sysconfig.get_path(kind)) / "Python.h").exists() for kind in ("include", "platinclude")):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise fail(f"no Python.h for Python {version}: install python3-dev (Fedora: python3-devel)")


def cdef_text(header: str) -> str:
    """What stands between the marks of a header."""
    text = (ROOT / C_FOLDER / header).read_text(encoding="utf-8")
    _, begin, rest = text.partition(BEGIN_MARK)
    inside, end, _ = rest.partition(END_MARK)
    if not begin or not end:
        raise fail(f"{C_FOLDER}/{header}: a mark is missing")
    return inside


def make_ffibuilder(root: str = "") -> Any:
    """cffi's recipe of the extension. setuptools wants paths relative to setup.py, hence no root."""
    from cffi import FFI

    builder = FFI()
    builder.cdef("\n".join(cdef_text(header) for header in CDEF_HEADERS))
    # cffi's generated code, which follows these lines, leaves parameters unused; ours is compiled with every warning.
    includes = "".join(f'#include "{header}"\n' for header in CDEF_HEADERS)
    preamble = f'{includes}#pragma GCC diagnostic ignored "-Wunused-parameter"\n'
    builder.set_source(
        "resolver._table",
        preamble,
        sources=[f"{root}{C_FOLDER}/{name}" for name in EXTENSION_SOURCES],
        depends=[f"{root}{C_FOLDER}/{name}" for name in (*CDEF_HEADERS, "slot.h", "clock.h")],
        include_dirs=[f"{root}{C_FOLDER}"],
        define_macros=MACROS,
        # One file name, whoever builds: else an old _table.cpython-311-....so would hide pip's new _table.abi3.so.
        py_limited_api=not sysconfig.get_config_var("Py_GIL_DISABLED"),
        extra_compile_args=["-std=gnu11", "-fvisibility=hidden", *WARNINGS],
    )
    return builder


def build_shim(folder: Path, *flags: str) -> Path:
    """Compile the shim into the folder; returns its path. Made aside and renamed: programs may have the old one."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / SHIM_NAME
    unfinished = folder / f".{SHIM_NAME}.{os.getpid()}"
    command = [
        *compiler(),
        *shlex.split(os.environ.get("CFLAGS", "")),
        *SHIM_FLAGS,
        *flags,
        *(f"{C_FOLDER}/{name}" for name in SHIM_SOURCES),
        *shlex.split(os.environ.get("LDFLAGS", "")),
        *SHIM_LINK_FLAGS,
        "-o",
        str(unfinished.resolve()),
    ]
    try:
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            raise fail("the shim did not compile (no stdio.h or stddef.h above: install libc6-dev; -m32: gcc-multilib)")
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def build_extension() -> Path:
    """Build resolver/_table*.so in place; returns its path. Not through setup.py: that needs a setuptools that can read
    pyproject.toml, and this only a compiler and cffi."""
    require_extension_tools()
    try:
        builder = make_ffibuilder(f"{ROOT}/")
    except ImportError:
        raise fail(f"{sys.executable} has no cffi: pip install cffi setuptools") from None
    built = Path(builder.compile(tmpdir=str(ROOT / "build" / "extension")))
    target = ROOT / "resolver" / built.name
    built.replace(target)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the NSS shim and the table's extension module, in place.")
    parser.add_argument("--shim", action="store_true", help="the shim alone")
    parser.add_argument("--m32", metavar="DIR", type=Path, help="the shim for 32-bit programs, into DIR, and no more")
    arguments = parser.parse_args()
    if arguments.m32 is not None:
        print(build_shim(arguments.m32, "-m32"))
        return
    print(build_shim(ROOT / "build"))
    if not arguments.shim:
        print(build_extension())


if __name__ == "__main__":
    main()
else:
    ffibuilder = make_ffibuilder()
