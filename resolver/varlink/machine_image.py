# SPDX-License-Identifier: MIT
"""io.systemd.MachineImage: described, and not done yet.

Every method is answered MethodNotImplemented. An empty list, or NoSuchImage, would say that there are no images.
"""

from resolver.varlink.interface import Interface, load_interface

NAME = "io.systemd.MachineImage"


class MachineImageInterface:
    """No methods: the service answers for them."""


def machine_image_interface() -> Interface:
    return load_interface(NAME)
