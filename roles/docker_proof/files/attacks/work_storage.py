"""
title: A volume, a temporary file system and shared memory hold data
topic: work
why: Databases keep everything there.
stopped_by: a mandatory access control or labels that do not fit the volume
options: {volumes: ["/data"], tmpfs: {/cache: size=8m}}
"""

import os

from proof import USER, works


def attack():
    """Write to each as root, hand a directory to a user, and read what came back."""
    return [
        works("keep data in " + path, lambda path=path: keep(path))
        for path in ("/data", "/cache", "/dev/shm")
    ]


def keep(folder):
    """Write, sync, change the owner, rename and read."""
    path = os.path.join(folder, "file")
    with open(path, "w") as stream:
        stream.write("content")
        stream.flush()
        os.fsync(stream.fileno())
    os.chown(path, USER, USER)
    os.rename(path, path + "-moved")
    with open(path + "-moved") as stream:
        if stream.read() != "content" or os.stat(stream.fileno()).st_uid != USER:
            raise ValueError("something else came back")
