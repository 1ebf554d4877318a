# SPDX-License-Identifier: MIT
"""Follows the addresses of all machines, and chooses those that look-ups give: by what is told of the guest's side and
of the host's.

Whatever changed, the outcome is a Machine with other addresses, handed to `update`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from resolver.core.addresses import choose_addresses
from resolver.core.machine import Machine
from resolver.core.names import name_key
from resolver.host.addresses import AddressWatcher
from resolver.host.links import HostLinks, Reach
from resolver.host.netns import NetlinkOpener
from resolver.host.process import NoSuchProcess, Process

ADDRESSES_SECONDS = 1.0
"""For the kernel to list a machine's addresses, before registration goes on without them; it takes 0.1 ms each."""

CHOSEN_IN_A_ROW = 20
"""Machines whose addresses are chosen anew before others have their turn: some 4 ms of questions to the kernel."""

CHOOSING_SHARE = 10
"""Of ten seconds of the loop, one at the most: a host whose routes flap keeps nobody from being served."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Followed:
    """What is kept of one machine. To be closed when the machine goes."""

    process: Process
    watcher: AddressWatcher | None = None

    def close(self) -> None:
        if self.watcher is not None:
            self.watcher.close()


class Addressing:
    """Follows machines from follow() on, and tells of changes from start() on.

    `find` gives a registered machine and what is followed of it, by its name's key; `keys` those of all.
    """

    def __init__(self, opener: NetlinkOpener, links: HostLinks,
                 keys: Callable[[], Iterator[str]], find: Callable[[str], tuple[Machine, Followed] | None],
                 update: Callable[[Machine], None]) -> None:
        self._opener = opener
        self._links = links
        self._keys = keys
        self._find = find
        self._update = update
        self._choosing: asyncio.Task[None] | None = None
        self._choose_again = False

    def close(self) -> None:
        """Choose no more. What is followed is its owner's to close."""
        if self._choosing is not None:
            self._choosing.cancel()

    async def follow(self, machine: Machine, process: Process) -> Followed:
        """Follow a machine that is to be registered; its first addresses are known when this returns."""
        followed = Followed(process)
        key = name_key(machine.name)
        try:
            followed.watcher = await AddressWatcher.open(
                machine.name, process, self._opener, lambda _: self._on_change(key))
            await asyncio.wait_for(followed.watcher.known.wait(), ADDRESSES_SECONDS)
        except (OSError, NoSuchProcess) as error:
            # A machine without addresses still has users, and can be terminated. Later ones are still told of.
            _log.warning("The addresses of machine %s are not known: %s", machine.name,
                         str(error) or "no answer in time")
        except BaseException:
            followed.close()
            raise
        return followed

    def chosen(self, machine: Machine, followed: Followed) -> Machine:
        """The machine with its addresses as they are now."""
        if followed.watcher is None:
            return machine
        addresses, peers = followed.watcher.addresses, followed.watcher.peers
        reach = Reach(self._links, followed.process, machine.network_interfaces, peers)
        try:
            return replace(machine, addresses=addresses, chosen=choose_addresses(addresses, reach))
        except (OSError, NoSuchProcess) as error:
            _log.warning("The way to machine %s is not known: %s", machine.name, error)
            return replace(machine, addresses=addresses, chosen=())

    def choose_again(self) -> None:
        """Choose all machines' addresses anew, soon: the host's own routes have changed."""
        self._choose_again = True
        if self._choosing is None or self._choosing.done():
            self._choosing = asyncio.get_running_loop().create_task(self._choose_all())

    async def _choose_all(self) -> None:
        while self._choose_again:
            self._choose_again = False
            began = time.thread_time()
            for number, key in enumerate(list(self._keys()), 1):
                self._on_change(key)
                if number % CHOSEN_IN_A_ROW == 0:
                    await asyncio.sleep(0)  # others have their turn
            await asyncio.sleep((time.thread_time() - began) * (CHOOSING_SHARE - 1))

    def _on_change(self, key: str) -> None:
        found = self._find(key)
        if found is not None:
            machine, followed = found
            self._update(self.chosen(machine, followed))
