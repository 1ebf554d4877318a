# SPDX-License-Identifier: MIT
"""Put the project's files into place, and take exactly these away again: `make install`, `make uninstall`.

Everything is put below DESTDIR; what files say of each other is without it, so that a package can be made of them.
What was put is listed in PREFIX/lib/mymachines/installed-files. A file that is there already and not in that list is
somebody else's: nothing is installed then.
"""

import argparse
import compileall
import os
import shutil
import subprocess
import sys
import venv
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parents[1]
SHIM = PROJECT / "build" / "libnss_mymachines.so.2"
WHEELS = PROJECT / "build" / "wheels"

UNIT_FOLDERS = {"/usr": "/usr/lib/systemd/system", "/usr/local": "/usr/local/lib/systemd/system"}
"""By PREFIX: folders that systemd reads (systemd.unit(5)). Elsewhere units go where the administrator's are."""
UNIT_FOLDER_ELSEWHERE = "/etc/systemd/system"

# dbus-daemon(1) and polkit(8) read these, whatever our PREFIX is.
DBUS_POLICIES = "/usr/share/dbus-1/system.d"
DBUS_SERVICES = "/usr/local/share/dbus-1/system-services"
"""Before /usr/share/dbus-1/system-services, where systemd-container has its own: it must be named for the bus name."""
POLKIT_ACTIONS = "/usr/share/polkit-1/actions"
APPARMOR_NAMESERVICE = "/etc/apparmor.d/abstractions/nameservice.d"
"""What AppArmor's abstractions/nameservice takes in besides: for confined programs that look names up."""

LIST = "installed-files"

PIP_ENVIRONMENT = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_ROOT_USER_ACTION": "ignore"}
"""No configuration adds a place where wheels are found; and that it is root who installs is meant."""

COMPLETIONS = {
    "bash": "bash-completion/completions/mymachinesctl",
    "zsh": "zsh/site-functions/_mymachinesctl",
    "fish": "fish/vendor_completions.d/mymachinesctl.fish",
}
"""By shell: the file below PREFIX/share where it finds completions, with /usr/local as with /usr."""

ZSH_OF_DEBIANS_PACKAGES = "zsh/vendor-completions/_mymachinesctl"
"""Debian's zsh does not look into /usr/share/zsh/site-functions."""


class Layout(NamedTuple):
    """Where things are once installed: paths without DESTDIR."""

    prefix: Path
    libdir: Path
    destdir: Path

    @property
    def home(self) -> Path:
        """The venv, all ours."""
        return self.prefix / "lib" / "mymachines"

    def on_disk(self, path: Path) -> Path:
        return self.destdir / path.relative_to("/")

    def files(self) -> Iterator[tuple[Path, Path]]:
        """Each file outside the venv: source, and path."""
        system = PROJECT / "system"
        units = Path(UNIT_FOLDERS.get(str(self.prefix), UNIT_FOLDER_ELSEWHERE))
        yield SHIM, self.libdir / SHIM.name
        for shell, name in COMPLETIONS.items():
            debians = shell == "zsh" and self.prefix == Path("/usr") and Path("/etc/debian_version").exists()
            yield _completion(shell), self.prefix / "share" / (ZSH_OF_DEBIANS_PACKAGES if debians else name)
        for unit in sorted(system.glob("mymachine*.service")):
            yield unit, units / unit.name
        yield system / "bus-name.conf", units / "dbus-org.freedesktop.machine1.service.d/mymachines.conf"
        yield system / "dbus-policy.conf", Path(DBUS_POLICIES, "mymachines.conf")
        if self.prefix != Path("/usr"):     # a package has no files in /usr/local
            yield system / "dbus-activation.service", Path(DBUS_SERVICES, "org.freedesktop.machine1.service")
        yield system / "polkit.policy", Path(POLKIT_ACTIONS, "mymachines.policy")
        yield system / "apparmor-nameservice", Path(APPARMOR_NAMESERVICE, "mymachines")
        documents = (path for path in (PROJECT / "docs").iterdir() if path.suffix in (".md", ".svg", ".json"))
        for document in sorted(documents):
            yield document, self.prefix / "share/doc/mymachines" / document.name
        for page in sorted((PROJECT / "docs/man").glob("*.[1-9]")):
            yield page, self.prefix / f"share/man/man{page.suffix[1:]}" / page.name

    def links(self) -> Iterator[tuple[Path, Path]]:
        """Each link: what it names, and path."""
        for folder, name in (("bin", "mymachinesctl"), ("sbin", "mymachinesd"), ("sbin", "mymachines-userdb"),
                             ("sbin", "mymachines-dns"), ("sbin", "mymachines-resolve-hook"),
                             ("sbin", "mymachines-dns-publish"), ("sbin", "mymachines-metrics")):
            yield self.home / "bin" / name, self.prefix / folder / name


def install(layout: Layout) -> None:
    mine = _listed(layout)
    paths = [path for _, path in (*layout.files(), *layout.links())]
    strangers = [path for path in paths if os.path.lexists(layout.on_disk(path)) and path not in mine]
    if strangers:
        raise SystemExit(f"not installed: {', '.join(map(str, strangers))} is there already, and not ours")
    home = layout.on_disk(layout.home)
    new, old = home.with_name(f".{home.name}.new"), home.with_name(f".{home.name}.old")
    _make_venv(layout, new)
    (new / LIST).write_text("".join(f"{path}\n" for path in paths))
    # The list before the files: what is put and not listed would never be taken away.
    if home.exists():
        home.rename(old)
    new.rename(home)
    shutil.rmtree(old, ignore_errors=True)
    for gone in mine.difference(paths):
        layout.on_disk(gone).unlink(missing_ok=True)
    put_all(layout)
    if layout.destdir == Path("/"):
        _tell_the_host(layout)


def uninstall(layout: Layout) -> None:
    mine = _listed(layout)
    if not mine:
        raise SystemExit(f"nothing is installed at {layout.on_disk(layout.home)}")
    if layout.destdir == Path("/"):
        _run_if_there("systemctl", "disable", "--now", "--quiet", "mymachinesd.service", "mymachines-dns.service",
                      "mymachines-dns-publish.service", "mymachines-metrics.service")
    for path in mine:
        layout.on_disk(path).unlink(missing_ok=True)
    shutil.rmtree(layout.on_disk(layout.home))
    for folder in {path.parent for path in mine}:
        if "mymachines" in folder.name or folder.name.endswith(".service.d"):
            layout.on_disk(folder).rmdir()
    if layout.destdir == Path("/"):
        _tell_the_host(layout)


def _listed(layout: Layout) -> set[Path]:
    try:
        return set(map(Path, layout.on_disk(layout.home / LIST).read_text().splitlines()))
    except FileNotFoundError:
        return set()


def put_all(layout: Layout) -> None:
    """All but the venv."""
    for source, path in layout.files():
        _put(layout, source, path)
    for target, path in layout.links():
        link = layout.on_disk(path)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(target, path.parent))


def _put(layout: Layout, source: Path, path: Path) -> None:
    """Made aside and renamed: processes have the shim mapped, and systemd may read a unit at any time."""
    target = layout.on_disk(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.new")
    if source == SHIM:
        shutil.copyfile(source, new)
    else:
        text = source.read_text()
        for mark, value in (("@COMMANDS@", layout.home / "bin"), ("@PREFIX@", layout.prefix),
                            ("@LIBDIR@", layout.libdir)):
            text = text.replace(mark, str(value))
        new.write_text(text)
    new.chmod(0o644)
    new.replace(target)


def _make_venv(layout: Layout, folder: Path) -> None:
    """A venv with the project and what it needs, from build/wheels: nothing is fetched, and it holds no pip. It is made
    aside, for the daemon may be running from the old one, and works where it will be alone."""
    venv.EnvBuilder(clear=True, symlinks=True, with_pip=False).create(folder)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python3"), "--quiet", "install"]
    # Versions are those of the wheels that were built; no index is asked.
    subprocess.run([*pip, "--no-index", f"--find-links={WHEELS}", "--no-compile", "--no-warn-script-location",
                    "mymachines"], check=True, env=os.environ | PIP_ENVIRONMENT)
    for script in (folder / "bin").iterdir():
        if script.name.startswith("mymachines"):
            _, _, rest = script.read_text().partition("\n")
            # -I: neither the environment nor the working directory of who calls it decides which code runs.
            script.write_text(f"#!{layout.home}/bin/python3 -I\n{rest}")
        elif not script.name.startswith("python"):
            script.unlink()     # activate and its like: nobody works in this venv
    config = folder / "pyvenv.cfg"
    lines = [line for line in config.read_text().splitlines() if not line.startswith("command")]    # names the folder
    config.write_text("\n".join([*lines, ""]))
    warnings.simplefilter("ignore", SyntaxWarning)   # other projects' escape sequences
    if not compileall.compile_dir(folder / "lib", quiet=1, stripdir=str(folder), prependdir=str(layout.home)):
        raise SystemExit("not installed: a file of the project does not compile")


def _tell_the_host(layout: Layout) -> None:
    """What reads the files once reads them again. Enabling is the administrator's."""
    _run_if_there("ldconfig")
    _run_if_there("systemctl", "daemon-reload")
    _run_if_there("busctl", "--quiet", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
                  "ReloadConfig")
    first = next((line.split()[-1] for line in _run_if_there("ldconfig", "-p").splitlines() if SHIM.name in line), "")
    ours = layout.libdir / SHIM.name
    if ours.exists() and not (first and ours.samefile(first)):
        sys.stderr.write(f"note: programs load {first or 'no ' + SHIM.name}, not {ours}: put {layout.libdir} into a"
                         " file of /etc/ld.so.conf.d/ that sorts first, and run ldconfig\n")


def _run_if_there(*argv: str) -> str:
    """Output. A host that is not booted, or has no systemd or bus, needs none of this."""
    program = shutil.which(argv[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        return ""
    return subprocess.run([program, *argv[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True, check=False, timeout=120).stdout


def _completion(shell: str) -> Path:
    """The file, made now. The parser that it is made from needs nothing but Python."""
    sys.path.insert(0, str(PROJECT))    # -I leaves it out
    from resolver.cli.completions import script

    path = PROJECT / "build" / "completions" / shell
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script(shell))
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Install or uninstall what `make build` made.")
    parser.add_argument("verb", choices=["install", "uninstall"])
    parser.add_argument("--prefix", type=Path, default=Path("/usr/local"))
    parser.add_argument("--libdir", type=Path, help="for the shim (default: PREFIX/lib)")
    parser.add_argument("--destdir", default="", help="put everything below this folder")
    options = parser.parse_args(arguments)
    layout = Layout(options.prefix, options.libdir or options.prefix / "lib",
                    Path(options.destdir or "/").absolute())
    if not layout.prefix.is_absolute() or not layout.libdir.is_absolute():
        raise SystemExit("PREFIX and LIBDIR must be absolute paths")
    os.umask(0o022)
    (install if options.verb == "install" else uninstall)(layout)


if __name__ == "__main__":
    main()
