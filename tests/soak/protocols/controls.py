# SPDX-License-Identifier: MIT
"""One bug for each input, a check left out, as it really happens. Each must be found."""

from tests.soak.mutant import Bug

CONTROLS: dict[str, Bug] = {
    "varlink": Bug("resolver/varlink/interface.py", "    if isinstance(value, dict):\n        return value\n    raise",
                   "    if value is not None:\n        return value  # type: ignore\n    raise"),
    "dbus-message": Bug("resolver/dbus/decode.py", "if start + length > self.end:", "if start > self.end:"),
    "dbus-stream": Bug("resolver/dbus/reader.py", "self._sock.recvmsg(wanted - len(self._data), _ANCILLARY,",
                       "self._sock.recvmsg(wanted, _ANCILLARY,"),
    "dns": Bug("resolver/dns/wire.py", "except (ValueError, IndexError, struct.error):",
               "except (ValueError, struct.error):"),
    "nss.sock": Bug("resolver/table/packets.py", 'decode("ascii", "replace")', 'decode("ascii")'),
    "leases-dnsmasq": Bug("resolver/leases/dnsmasq.py", "len(words) < _FIELDS", "len(words) < 2"),
    "leases-libvirt": Bug("resolver/leases/objects.py", "if not isinstance(entry, dict):", "if not entry:"),
    "leases-networkd": Bug("resolver/leases/objects.py", "if not all(type(number) is int and 0 <= number < 256 for",
                           "if not all(number != '' for"),
    "state": Bug("resolver/host/state_format.py", "if type(value) is not types[key]:", "if value == 17:"),
    "netlink": Bug("resolver/host/netlink.py", "    lib.NETLINK_BAD_LENGTH:", "    0:"),
    "os-release": Bug("resolver/guest/os_release.py", "if not value or value.isprintable():", "if value is not None:"),
}
