# SPDX-License-Identifier: MIT
"""The file tree of a Debian host with container images in it: made once, by debootstrap, and kept.

It lies outside the checkout, in $MYMACHINES_TEST_CACHE, and costs about 1 GB and a minute or two. What is in it is the
recipe below; another recipe makes another tree. Mirror, proxy and certificates are those of this machine's apt and pip.
"""

import fcntl
import hashlib
import inspect
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab import PROJECT, Unavailable

CACHE = Path(os.environ.get("MYMACHINES_TEST_CACHE") or "/var/tmp/mymachines-tests")
TOOLS = ("debootstrap", "systemd-nspawn", "apt-get", "nsenter", "setpriv", "make")

SUITE = os.environ.get("MYMACHINES_TEST_SUITE") or "trixie"
"""Debian 13; or bookworm, Debian 12, which tests/host/test_packages.py and tests/host/docs can do with."""
GUEST_PACKAGES = ("systemd", "systemd-sysv", "dbus", "iproute2", "libpam-systemd")
"""What boots, gets an address, and has logins to list: the image `web`, and the beginning of the host itself."""
HOST_PACKAGES = (
    "systemd-container", "systemd-userdbd", "libnss-systemd", "libnss-mymachines", "polkitd", "procps", "strace",
    "make", "gcc", "libc6-dev", "python3", "python3-venv", "python3-dev", "ca-certificates", "btrfs-progs", "e2fsprogs",
    "libcap2-bin", "xz-utils", "iputils-ping",
)
"""systemd's machined, its libnss_mymachines and its clients; polkit; what README says that an installation needs; what
makes file systems and files of every kind; and ping, which the tutorial uses."""
WITH_SERVICES = ("lxc", "nscd", "systemd-resolved", "libnss-resolve", "curl")
"""What docs/ tells about, or doctor. What these enable is disabled: a test starts what it is about."""
BARE_PACKAGES = ("python3", "gcc", "make", "ca-certificates")
"""README's "python3, a C compiler and make"; and who vouches for the mirrors."""

SOURCES = "usr/src/mymachines"
GUEST_IMAGE = "var/lib/machines/web"

STEP_SECONDS = 900
"""For each step. A mirror far away takes minutes; none takes so long."""

HOME = "/root"
PIP_FILES = ("/etc/pip.conf", *(f"{HOME}/{name}" for name in (".config/pip/pip.conf", ".pip/pip.conf")))
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
FIRMLY_SET = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": HOME, "LANG": "C.UTF-8",
              "DEBIAN_FRONTEND": "noninteractive"}
FROM_THE_MACHINE = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PIP_INDEX_URL",
                    "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_CERT", "PIP_DEFAULT_TIMEOUT")
"""How this machine reaches its mirrors. PIP_FIND_LINKS and its like name files that are not in the tree."""


def whole_root() -> Path:
    """The tree, made where it is not there yet. Raises Unavailable where this machine cannot."""
    return _kept(SUITE, (SUITE, GUEST_PACKAGES, HOST_PACKAGES, WITH_SERVICES, *map(inspect.getsource, (_make, _clean))),
                 _make)


def packaging_root() -> Path:
    """The same, and with what `make deb` needs, so that packages can be made and installed there."""
    base = whole_root()
    wanted = re.findall(r"(?m)^DEB_PACKAGES .*(?:\n[ \t].*)*", (PROJECT / "Makefile").read_text())

    def make(root: Path) -> None:
        step(["cp", "-a", "--reflink=auto", str(base), str(root)])
        (root / SOURCES).mkdir(parents=True)
        shutil.copyfile(PROJECT / "Makefile", root / SOURCES / "Makefile")
        run_in(root, "make", "--silent", "deb-packages", cwd=f"/{SOURCES}")
        remove_tree(root / SOURCES)
        _clean(root)

    return _kept(f"packaging-{SUITE}", (base.name, wanted, inspect.getsource(make)), make)


def bare_root() -> Path:
    """A Debian with what README asks its reader for, and nothing else."""
    base = whole_root()

    def make(root: Path) -> None:
        step(["cp", "-a", "--reflink=auto", str(base / GUEST_IMAGE), str(root)])
        run_in(root, "apt-get", "update", "-qq")
        run_in(root, "apt-get", "install", "-qq", "--no-install-recommends", *BARE_PACKAGES)
        _clean(root)
        (root / "etc/hostname").write_text("labhost\n")

    return _kept(f"bare-{SUITE}", (base.name, BARE_PACKAGES, inspect.getsource(make)), make)


def _kept(name: str, recipe: object, make: Callable[[Path], None]) -> Path:
    """What `make` makes, kept in the cache for as long as the recipe is the same."""
    require_tools()
    CACHE.mkdir(parents=True, exist_ok=True)
    root = CACHE / f"{name}-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]}"
    with locked(CACHE / "making.lock"):
        if not root.exists():
            for old in CACHE.glob(f"{name}-*"):    # of another recipe, or of a run that was interrupted
                remove_tree(old)
            unfinished = CACHE / f"{root.name}.unfinished"
            make(unfinished)
            unfinished.rename(root)
    return root


def require_tools() -> None:
    if os.geteuid() != 0:
        raise Unavailable("needs root")
    if not Path("/etc/debian_version").exists():
        raise Unavailable("a Debian host is made on Debian alone")
    for tool in TOOLS:
        if shutil.which(tool) is None:
            raise Unavailable(f"{tool} is not installed")


def run_in(root: Path, *argv: str, cwd: str = "/") -> str:
    """Runs a command in a tree that is not booted, with this machine's network; gives its output."""
    lend_network(root)
    env = FIRMLY_SET | {name: os.environ[name] for name in FROM_THE_MACHINE if name in os.environ}
    return step(["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--pipe", "--as-pid2",
                 "--resolv-conf=off", f"--directory={root}", f"--machine=making-{os.getpid()}", f"--chdir={cwd}",
                 *(f"--setenv={name}={value}" for name, value in env.items()), *argv])


def step(argv: list[str]) -> str:
    """Runs one step; AssertionError with its output where it fails or lasts too long."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", timeout=STEP_SECONDS)
    assert done.returncode == 0, f"{argv} ended with {done.returncode}:\n{done.stdout[-5000:]}"
    return done.stdout


def lend_network(root: Path) -> None:
    """What tells this machine's apt and pip where to go, and whom to believe."""
    named = [os.environ["PIP_CERT"]] if "PIP_CERT" in os.environ else []
    for file in (*PIP_FILES, CERTIFICATES, "/etc/resolv.conf", *named):
        source, target = Path(file), root / file.lstrip("/")
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            shutil.copyfile(source, target)
    proxies = subprocess.run(["apt-config", "dump", "Acquire::http"], capture_output=True, text=True).stdout
    proxies += subprocess.run(["apt-config", "dump", "Acquire::https"], capture_output=True, text=True).stdout
    (root / "etc/apt/apt.conf.d/90lent").write_text(proxies)


def _make(root: Path) -> None:
    step(["debootstrap", "--variant=minbase", f"--include={','.join(GUEST_PACKAGES)}", SUITE, str(root), _mirror()])
    (root / "etc/dpkg/dpkg.cfg.d/fast").write_text("force-unsafe-io\n")     # a tree that is lost is made again
    web = root.with_name(f"{root.name}-web")
    _clean(root)
    step(["cp", "-a", str(root), str(web)])
    run_in(root, "apt-get", "update", "-qq")
    install = ("apt-get", "install", "-qq", "--no-install-recommends")
    run_in(root, *install, *HOST_PACKAGES)
    before = _enabled(root)
    run_in(root, *install, *WITH_SERVICES)
    step(["systemctl", f"--root={root}", "disable", *sorted(_enabled(root) - before)])
    _clean(root)
    (root / GUEST_IMAGE).parent.mkdir(parents=True, exist_ok=True)
    web.rename(root / GUEST_IMAGE)
    for tree, name in ((root, "labhost"), (root / GUEST_IMAGE, "web")):
        (tree / "etc/hostname").write_text(f"{name}\n")
        (tree / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
        # DHCP between the host's end and the guest's, as systemd's own .network files for veth links have it.
        step(["systemctl", f"--root={tree}", "enable", "systemd-networkd.service"])
        step(["systemctl", f"--root={tree}", "disable", "systemd-networkd-wait-online.service"])
        step(["systemctl", f"--root={tree}", "mask", "getty.target", "console-getty.service", "apt-daily.timer",
              "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "systemd-modules-load.service"])


def _enabled(root: Path) -> set[str]:
    listed = subprocess.run(["systemctl", f"--root={root}", "list-unit-files", "--state=enabled", "--no-legend"],
                            check=True, capture_output=True, text=True).stdout
    return {line.split()[0] for line in listed.splitlines()}


def _clean(root: Path) -> None:
    """Packages are not needed again, and each session copies the tree."""
    for pattern in ("var/cache/apt/archives/*.deb", "var/cache/apt/*.bin", "usr/share/doc/*", "usr/share/man/*",
                    "usr/share/locale/*", "var/log/*.log"):
        for path in root.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                remove_tree(path)
            else:
                path.unlink()


def _mirror() -> str:
    """Debian's own archive, as apt is configured here, the security archive aside."""
    found = subprocess.run(["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Created-By: Packages"],
                           capture_output=True, text=True).stdout.splitlines()
    uris = [line.removeprefix("Debian ") for line in found if line.startswith("Debian ") and "security" not in line]
    if not uris:
        raise Unavailable("apt names no mirror of Debian (apt-get indextargets; apt-get update may be needed)")
    return uris[0]


def remove_tree(path: Path) -> None:
    """One file system: should something still be mounted below, it is not emptied."""
    if path.exists():
        step(["rm", "-rf", "--one-file-system", str(path)])


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Held by one test run at a time."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
