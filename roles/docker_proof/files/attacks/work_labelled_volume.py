"""
title: A directory of the host that was handed over with :Z holds data
topic: work
why: That is how a container keeps data in a place of the host's, and people switch SELinux off when it fails.
stopped_by: labels that the engine may not give
options: {volumes: ["{scratch}/mine:/mine:Z"]}
"""

from proof import works


def attack():
    """Read what was there, and write."""
    return [works("read a file of the directory", look), works("keep a file there", keep)]


def look():
    """Read the file."""
    with open("/mine/file") as stream:
        if stream.read() != "untouched\n":
            raise ValueError("something else came back")


def keep():
    """Write a new one and read it."""
    with open("/mine/new", "w") as stream:
        stream.write("content")
    with open("/mine/new") as stream:
        if stream.read() != "content":
            raise ValueError("something else came back")
