# SPDX-License-Identifier: MIT
"""Images of machines: what lies in /var/lib/machines and its like, and can be started, cloned, renamed, removed.

Beside the name side (resolver/), which knows nothing of it. Both share the bus, Varlink, polkit, workers and the
copying of trees, and the daemon that composes them.

    image.py       what an image is, and which names are one's
    discovery.py   which there are: a look at the directories, each time somebody asks
    stat.py, btrfs.py   what the file system tells of one, and the flags that it keeps
    locks.py       the locks by which systemd-nspawn, systemd-importd and this keep out of each other's way
    subvolumes.py, quota.py   trees of btrfs subvolumes, and what they may use
    settings.py    the files that belong to an image, and go along with it
    operations.py  clone, rename, remove, mark, limit, clean: blocking, in a worker (__main__.py)
    metadata.py    what an image says of itself: read in a worker, and not trusted
    images.py      who may do what; starts the workers
    dbus.py, varlink.py   the two ways in
"""
