#!/usr/bin/python3
"""Print everything about a host that a read-only run must leave alone, as JSON.

Files with mode, owner, size and times; what Docker holds; which processes serve. Access times are
listed only where nobody but Bulkhead and dockerd reads.
"""

import hashlib
import http.client
import json
import os
import socket
import subprocess

TREES = ["/etc", "/usr/lib/systemd", "/usr/local", "/root", "/home", "/var/lib", "/opt", "/srv"]
LEFT_OUT = (
    "/root/.ansible",  # where a task without pipelining is put down
    "/var/lib/systemd/random-seed",
    "/var/lib/systemd/timesync",
    "/var/lib/docker/containers",  # log files of containers grow
    "/var/lib/docker/network/files",
    "/var/lib/docker/buildkit",
    "/var/lib/containerd/io.containerd.metadata.v1.bolt",
)


class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("/run/docker.sock")


def ask(path):
    connection = Connection("localhost")
    connection.request("GET", path)
    return json.loads(connection.getresponse().read())


def entry(path):
    st = os.lstat(path)
    found = [oct(st.st_mode), st.st_uid, st.st_gid, st.st_size, st.st_mtime_ns, st.st_ctime_ns]
    if path.startswith("/etc/docker"):
        found.append(st.st_atime_ns)
    if os.path.islink(path):
        found.append(os.readlink(path))
    elif path.startswith("/etc") and os.path.isfile(path):
        with open(os.open(path, os.O_RDONLY | os.O_NOATIME), "rb") as stream:
            found.append(hashlib.sha256(stream.read()).hexdigest())
    return found


def files():
    found = {}
    for tree in TREES:
        for directory, names, here in os.walk(tree):
            if directory.startswith(LEFT_OUT):
                names[:] = []
                continue
            for name in [".", *here]:
                path = os.path.normpath(os.path.join(directory, name))
                if not path.startswith(LEFT_OUT):
                    found[path] = entry(path)
    return found


def unit(name):
    show = subprocess.run(
        ["systemctl", "show", name, "-p", "MainPID,ActiveState,ActiveEnterTimestamp,DropInPaths"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return show.stdout.split("\n")


containers = ask("/containers/json?all=1")
print(
    json.dumps(
        {
            "files": files(),
            "containers": {c["Names"][0]: [c["Id"], c["State"], c["Created"]] for c in containers},
            "pids": {
                c["Names"][0]: ask("/containers/%s/json" % c["Id"])["State"]["Pid"]
                for c in containers
            },
            "images": sorted(i["Id"] for i in ask("/images/json")),
            "volumes": sorted(v["Name"] for v in ask("/volumes")["Volumes"] or []),
            "networks": sorted(n["Id"] for n in ask("/networks")),
            "units": {
                n: unit(n) for n in ("docker.service", "docker.socket", "containerd.service")
            },
        }
    )
)
