# SPDX-License-Identifier: MIT
"""Containers on a booted host: systemd-nspawn in transient services, as an administrator starts them."""

from collections.abc import Sequence

from tests.lab import wait_for

from .booted import BootedHost

MACHINES = "/var/lib/machines"
START_SECONDS = 30.0    # of a container that runs a shell; takes less than one
BOOT_SECONDS = 60.0     # of one that boots systemd; takes three
NSPAWN = ("systemd-nspawn", "--quiet", "--keep-unit", "--settings=no", "-U", "--network-veth", "--console=pipe")

SHELL = """
say() { echo "$1" >>/var/told; }
for s in RTMIN+4 INT HUP USR1; do trap "say $s" $s; done
trap 'say RTMIN+3; exit 0' RTMIN+3
(trap 'echo child USR1 >>/var/told' USR1; trap : INT; say child; while :; do sleep 0.2; done) &
while :; do wait; done
"""
"""The first process of a container without systemd: writes down which signals it gets."""


class Guest:
    """A running container `name`, in the service `name`.service."""

    def __init__(self, host: BootedHost, name: str) -> None:
        self.host = host
        self.name = name
        self.unit = f"{name}.service"

    def start(self, command: Sequence[str], *options: str, properties: Sequence[str] = ()) -> None:
        self.host.run(["systemd-run", "--quiet", f"--unit={self.unit}", "--slice=machine.slice", "--collect",
                       "--property=Type=notify", "--property=Delegate=yes", "--property=KillMode=mixed",
                       "--property=TimeoutStopSec=5s",
                       *(f"--property={each}" for each in properties), *NSPAWN, f"--machine={self.name}", *options,
                       *command], timeout=START_SECONDS)

    def told(self) -> list[str]:
        """What the shell wrote: its signals."""
        path = self.host.path(f"{MACHINES}/{self.name}/var/told")
        return path.read_text().splitlines() if path.exists() else []

    def wait_told(self, line: str) -> None:
        wait_for(lambda: line in self.told(), START_SECONDS, f"{self.name} to say {line}: {self.told()}")

    @property
    def leader(self) -> int:
        """Its pid on the booted host: the child of systemd-nspawn. 0 while there is none."""
        nspawn = self.host.main_pid(self.unit)
        return int(self.host.run(f"pgrep -P {nspawn} | head -n 1").stdout or 0) if nspawn else 0

    def entered(self, argv: Sequence[str] | str) -> list[str]:
        """What runs a command on the booted host inside the container, as its root; a str is a shell script."""
        command = ["sh", "-c", argv] if isinstance(argv, str) else list(argv)
        return ["nsenter", f"--target={self.leader}", "--all", *command]

    def out(self, argv: Sequence[str] | str) -> str:
        """What such a command wrote."""
        return self.host.out(self.entered(argv))

    def running(self) -> bool:
        state = self.host.out(["systemctl", "show", "--property=ActiveState", "--value", self.unit])
        return state not in ("inactive", "failed")

    def stop(self) -> None:
        """In good order, else systemd kills it; systemd-nspawn then leaves a mount, which would be in the way."""
        left = f"/run/systemd/nspawn/unix-export/{self.name}"
        self.host.run(f"systemctl stop {self.unit} 2>/dev/null; systemctl reset-failed {self.unit} 2>/dev/null; "
                      f"umount --lazy {left} 2>/dev/null; rm -rf --one-file-system {left}", timeout=START_SECONDS)
        wait_for(lambda: not self.running(), START_SECONDS, f"the end of {self.unit}")

    def remove(self) -> None:
        self.stop()
        self.host.run(["rm", "-rf", "--one-file-system", f"{MACHINES}/{self.name}"])


def start_shell(host: BootedHost, name: str, *options: str, script: str = SHELL,
                os_release: bool = True) -> Guest:
    """A container of the host's own /usr, with nothing else in it, that runs `script` in bash."""
    guest = Guest(host, name)
    image = host.path(f"{MACHINES}/{name}")
    for folder in ("usr", "etc", "var", "run", "tmp", "proc", "sys", "dev", "root"):
        (image / folder).mkdir(parents=True)
    for link in ("bin", "sbin", "lib", "lib64"):
        (image / link).symlink_to(f"usr/{link}")
    shared = ["/usr"]
    if os_release:
        (image / "etc/os-release").symlink_to("../usr/lib/os-release")
    else:   # all that bash needs, but not /usr/lib/os-release
        usr = host.path("/usr")
        needed = ("bin", "sbin", "lib64", "lib/*-linux-gnu*", "lib/ld-*")
        shared = [f"/usr/{path.relative_to(usr)}" for pattern in needed for path in usr.glob(pattern)]
    try:
        guest.start(["/bin/bash", "-c", script], f"--directory={MACHINES}/{name}",
                    *(f"--bind-ro={path}" for path in shared), "--kill-signal=SIGRTMIN+3", *options)
        if script is SHELL:
            wait_for(lambda: "child" in guest.told(), START_SECONDS)
    except BaseException:
        guest.remove()
        raise
    return guest


def start_booting(host: BootedHost) -> Guest:
    """`web`: Debian with systemd, with an address by DHCP; returns when it is up."""
    guest = Guest(host, "web")
    # systemd-nspawn asks to be started anew with this status when its payload wants to reboot.
    guest.start([], "--boot", f"--directory={MACHINES}/web", properties=["RestartForceExitStatus=133",
                                                                        "SuccessExitStatus=133"])
    wait_for(lambda: host.run(["systemctl", "-M", "web", "is-system-running"], check=False).stdout.strip() in (
        "running", "degraded"), BOOT_SECONDS, "web to be up")
    return guest
