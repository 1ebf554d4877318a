# SPDX-License-Identifier: MIT
"""Dependencies point inward: core <- codecs <- servers and watchers <- the daemon that composes them."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for package in ("resolver", "machine_images") for path in (ROOT / package).rglob("*.py"))

# Each part of resolver, by the longest prefix of the module's name: the parts that it may import, itself included.
MAY_IMPORT = {
    "resolver": set(),
    "resolver._table": set(),
    "resolver.core": {"core"},
    "resolver.table": {"core", "table", "_table"},
    "resolver.host": {"core", "host"},
    "resolver.host.netlink": {"core", "_table"},
    "resolver.log": set(),
    "resolver.notify": set(),
    "resolver.config": {"core", "config"},
    "resolver.reload": {"config", "notify"},
    "resolver.statistics": {"core"},
    "resolver.metrics": {"config", "log", "metrics", "notify", "table", "varlink"},
    "resolver.authority": {"core"},
    "resolver.nss_server": {"varlink"},  # varlink.peer alone
    "resolver.publisher": {"core", "table"},
    "resolver.userdb_keeper": {"core", "host"},
    "resolver.leases": {"core", "host", "leases"},
    "resolver.outside": {"core", "host", "leases"},
    "resolver.dbus": {"core", "dbus", "host", "manager", "entering", "authority", "units", "guest", "log"},
    "resolver.guest": {"core", "host", "guest", "files", "worker"},
    "resolver.files": {"core", "files"},
    "resolver.worker": {"core", "host", "worker"},
    "resolver.enter": {"core", "host", "files", "worker", "enter"},
    "resolver.enter.bus": {"core", "files", "enter", "dbus"},   # dbus.decode alone
    "resolver.units": {"core"},
    "resolver.leaders": {"core", "host", "authority"},
    "resolver.namespaces": {"core", "host"},
    "resolver.addressing": {"core", "host", "namespaces"},
    "resolver.entering": {"core", "host", "authority", "manager", "guest", "worker"},
    "resolver.state_keeper": {"core", "host"},
    "resolver.manager": {"addressing", "leaders", "core", "host", "authority", "units", "guest", "state_keeper"},
    "resolver.varlink": {"core", "varlink"},
    "resolver.varlink.machine": {"core", "varlink", "manager", "entering", "authority", "units", "guest"},
    "resolver.varlink.mymachines": {"addressing", "core", "varlink", "manager", "statistics"},
    "resolver.dns": {"core", "table", "_table", "varlink", "dns", "log", "notify"},
    "resolver.dns.answers": {"core"},
    "resolver.dns.wire": {"dns"},
    "resolver.dns.responder": {"dns"},
    "resolver.hook": {"core", "table", "varlink", "dns", "hook", "log", "notify"},
    "resolver.userdb": {"core", "table", "varlink", "userdb", "log", "notify"},
    # Beside the name side, which does not know of it. What it may have of that is what both need.
    "machine_images": {"core", "authority", "worker", "files", "dbus", "varlink", "guest"},
    "resolver.doctor": {"core", "table", "_table", "varlink", "host", "doctor"},
    "resolver.doctor.child": set(),
    "resolver.cli": {"core", "table", "varlink", "host", "doctor", "cli"},
}

PURE = {"bisect", "collections", "dataclasses", "enum", "functools", "hashlib", "ipaddress", "re", "typing"}
"""What the core may import of the standard library: no clock, no file, no socket, no log."""


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "resolver")


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_part_imports_only_what_lies_within(path: Path) -> None:
    module = module_of(path)
    if module == "resolver.daemon":
        return  # the composition root
    part = max((prefix for prefix in MAY_IMPORT if f"{module}.".startswith(f"{prefix}.")), key=len)
    allowed = MAY_IMPORT[part]
    for name in imports_of(path):
        assert part == "machine_images" or not name.startswith("machine_images"), f"{module} imports {name}"
        if name.startswith("resolver.") and not name.startswith("resolver.__"):
            assert name.split(".")[1] in allowed, f"{module} imports {name}"
            if "manager" not in allowed:
                handlers = "resolver.varlink.machine", "resolver.varlink.mymachines"
                assert name not in handlers, f"{module} imports {name}"


@pytest.mark.parametrize("path", [path for path in FILES if "core" in path.parts], ids=module_of)
def test_the_core_does_no_input_or_output(path: Path) -> None:
    for name in imports_of(path):
        top = name.partition(".")[0]
        assert top == "resolver" or top in PURE, f"{module_of(path)} imports {name}"


def test_dnspython_is_where_names_are_served_alone() -> None:
    """It costs some 40 ms and 4 MB: neither the daemon nor who answers logins has any use for it."""
    for path in FILES:
        if module_of(path).split(".")[1:2] not in (["dns"], ["hook"]):
            assert not {"dns", "resolver.dns", "resolver.hook"} & {
                prefix for name in imports_of(path) for prefix in (name.split(".")[0], ".".join(name.split(".")[:2]))
            }, path


def test_metrics_cost_those_who_want_them_alone() -> None:
    for path in FILES:
        if module_of(path).split(".")[1:2] != ["metrics"]:
            assert not [name for name in imports_of(path) if name.startswith("prometheus_client")], path


def test_no_part_asks_nss() -> None:
    """None of these is called anywhere: they go through NSS, which asks us. But for one program that is run to see what
    NSS says, in a process that is killed if it hangs."""
    banned = {"getpwnam", "getpwuid", "getgrnam", "getgrgid", "getpwall", "getgrall", "getaddrinfo", "gethostbyname",
              "gethostbyaddr", "getfqdn", "getnameinfo", "expanduser", "getuser", "create_connection"}
    for path in FILES:
        assert "resolver.doctor.child" not in imports_of(path), path
        if module_of(path) == "resolver.doctor.child":
            continue
        tree = ast.parse(path.read_text())
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert not names & banned, path
        assert not {"pwd", "grp"} & set(imports_of(path)), path


def test_nothing_is_imported_that_is_not_declared() -> None:
    declared = {"cffi", "dbus_fast", "dns", "prometheus_client", "varlink", "resolver", "machine_images"}
    for path in FILES:
        for name in imports_of(path):
            top = name.partition(".")[0]
            assert top in sys.stdlib_module_names or top in declared, f"{module_of(path)} imports {name}"
