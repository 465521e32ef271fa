#!/usr/bin/python3
"""Prints what must be as before, or as planned, after any fault: files, sockets, daemon, containers."""

import hashlib
import http.client
import json
import os
import socket
import stat
import subprocess

# Written by programs of the distribution at their own times.
PASSING = ("/etc/.pwd.lock", "/etc/mtab", "/etc/resolv.conf", "/etc/ld.so.cache")


def files():
    for top in ("/etc", "/usr/lib/systemd/system"):
        for directory, names, leaves in os.walk(top):
            for name in sorted(names + leaves):
                path = os.path.join(directory, name)
                if path in PASSING:
                    continue
                st = os.lstat(path)
                row = "%o %d %d " % (st.st_mode, st.st_uid, st.st_gid)
                if stat.S_ISLNK(st.st_mode):
                    row += os.readlink(path)
                elif stat.S_ISREG(st.st_mode):
                    with open(path, "rb") as stream:
                        row += hashlib.sha256(stream.read()).hexdigest()
                yield path, row


def get(path):
    class Connection(http.client.HTTPConnection):
        def connect(self):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(30)
            self.sock.connect("/run/docker.sock")

    connection = Connection("localhost")
    connection.request("GET", path)
    return json.loads(connection.getresponse().read())


def daemon():
    try:
        info = get("/info")
        running = {row["Names"][0].strip("/"): row["Id"] for row in get("/containers/json")}
        pids = {
            name: get("/containers/%s/json" % key)["State"]["Pid"] for name, key in running.items()
        }
        images = sorted(row["Id"] for row in get("/images/json"))
    except (OSError, ValueError, KeyError):
        return None, {}, None
    keys = ("LiveRestoreEnabled", "SecurityOptions", "LoggingDriver", "Driver", "DockerRootDir")
    return {key: info.get(key) for key in keys}, pids, images


info, pids, images = daemon()
rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=False).stdout
kept = subprocess.run(
    "find /var/lib/bulkhead -name request.json -o -name answer.json -o -name '.*.new' | sort; "
    'grep -L -e \'"record": "committed"\' -e \'"record": "rolled_back"\' '
    "/var/lib/bulkhead/transactions/*/journal.jsonl",
    shell=True,
    capture_output=True,
    text=True,
    check=False,
).stdout
print(
    json.dumps(
        {
            "files": dict(files()),
            "socket": oct(os.lstat("/run/docker.sock").st_mode)
            if os.path.exists("/run/docker.sock")
            else None,
            "info": info,
            "pids": pids,
            "images": images,
            "ours": [line for line in rules.split("\n") if "BULKHEAD" in line],
            "left": kept.split(),
        }
    )
)
