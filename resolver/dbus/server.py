# SPDX-License-Identifier: MIT
"""All that this daemon serves on the bus, put together."""

from resolver.dbus.connection import Connection
from resolver.dbus.log_control import LOG_CONTROL, LOG_CONTROL_INTERFACE, LogControlHandlers
from resolver.dbus.machine import OSRelease
from resolver.dbus.manager import MANAGER_INTERFACE, Machines, ManagerHandlers
from resolver.dbus.objects import Bound, Collection, Objects, Several
from resolver.dbus.paths import IMAGES, MACHINES, MANAGER
from resolver.entering import Entering
from resolver.manager import Manager

NAME = "org.freedesktop.machine1"


class Server:
    """Answers on `connection`, which is started afterwards."""

    def __init__(self, connection: Connection, manager: Manager, entering: Entering, read_os_release: OSRelease,
                 also: object, images: Collection) -> None:
        """`also` answers for the manager's other methods and properties, of images; `images` are their objects."""
        machines = Machines(manager, entering, read_os_release)
        self._objects = Objects(
            connection,
            {MANAGER: Bound(MANAGER_INTERFACE, Several(ManagerHandlers(manager, machines), also)),
             LOG_CONTROL: Bound(LOG_CONTROL_INTERFACE, LogControlHandlers("mymachinesd"))},
            {MACHINES: Collection(machines.find, machines.labels),
             IMAGES: images})

    async def close(self) -> None:
        """Give up the calls that are not answered yet."""
        await self._objects.close()
