"""
title: Files are installed as a package manager does it
topic: work
why: Entrypoints and builds change owners, modes and links all the time.
stopped_by: >-
  a missing CAP_CHOWN, CAP_FOWNER, CAP_FSETID or CAP_SETFCAP, a read-only root file system, or a mandatory
  access control that goes too far
"""

import os
import stat
import struct

from proof import USER, works

HOME = "/var/lib/bulkhead-work"


def attack():
    """Do to files of the container's own what installing packages does."""
    os.umask(0o022)
    return [
        works("make a directory in /var/lib", lambda: os.makedirs(HOME)),
        works("replace a file in /etc", replace),
        works("give a file to a user", give),
        works("have a directory hand on its group", hand_on),
        works("give a file a second name", second_name),
        works("set the setuid bit", set_setuid),
        works("give a file a capability", give_capability),
    ]


def expect(true, text):
    """Raise ValueError where something did not happen."""
    if not true:
        raise ValueError(text)


def make(name):
    """Write a file, down to the disk."""
    path = os.path.join(HOME, name)
    with open(path, "w") as stream:
        stream.write("content\n")
        stream.flush()
        os.fsync(stream.fileno())
    return path


def replace():
    """Write beside, rename over, and sync the directory."""
    os.rename(make("/etc/group.new"), "/etc/group")
    folder = os.open("/etc", os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def give():
    """Change owner and mode, and see both."""
    path = make("given")
    os.chown(path, USER, USER)
    os.chmod(path, 0o640)
    found = os.stat(path)
    expect(
        (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (USER, USER, 0o640), "not so"
    )


def hand_on():
    """A file in a setgid directory gets the directory's group."""
    folder = os.path.join(HOME, "shared")
    os.mkdir(folder)
    os.chown(folder, 0, USER)
    os.chmod(folder, 0o2775)
    expect(os.stat(make("shared/file")).st_gid == USER, "the file has another group")


def second_name():
    """Make a hard and a symbolic link."""
    path = make("first")
    os.link(path, path + "-hard")
    os.symlink(path, path + "-soft")
    expect(os.stat(path + "-soft").st_nlink == 2, "there is one name")


def set_setuid():
    """As the packages of su and mount do."""
    path = make("su")
    os.chmod(path, 0o4755)
    expect(os.stat(path).st_mode & stat.S_ISUID, "the bit is gone")


def give_capability():
    """As the package of ping does: CAP_NET_RAW, effective (struct vfs_cap_data, version 2)."""
    data = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
    os.setxattr(make("ping"), "security.capability", data)
