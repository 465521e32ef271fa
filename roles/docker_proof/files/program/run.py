# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Runs attacks in a container: one after the other, each in a process and a time limit of its own.

``run.py attack ID SECONDS [ID SECONDS]...`` prints a line of JSON for each, ``{id, tries}`` or
``{id, error}``. ``run.py neighbour ID SECONDS`` runs the other side of one attack, prints ``ready`` and
waits. Whatever happens, everything ends when its time is over.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import select
import signal
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

#: What the kernel calls the processes of attacks; it is how their records are found in its logs.
COMM = b"bulkhead-proof"
PR_SET_NAME = 15

#: Longest answer of one attack, in bytes.
LONGEST = 64 * 1024


def load(name):
    """Import an attack by its id."""
    spec = importlib.util.spec_from_file_location(name, os.path.join(HERE, "attacks", name + ".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answer(name):
    """Run an attack and return its line."""
    try:
        tries = load(name).attack()
        return {"id": name, "tries": [item._asdict() for item in tries]}
    except BaseException as exc:
        place = traceback.extract_tb(exc.__traceback__)[-1]
        text = "%s: %s (%s:%s)" % (type(exc).__name__, exc, os.path.basename(place[0]), place[1])
        return {"id": name, "error": text}


def run(name, seconds):
    """Run an attack in a process of its own and print its line."""
    began, at = time.monotonic(), time.time()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        ctypes.CDLL(None).prctl(PR_SET_NAME, COMM, 0, 0, 0)
        os.close(reader)
        signal.alarm(int(seconds) + 5)
        data = json.dumps(answer(name)).encode()
        with os.fdopen(writer, "wb") as stream:
            stream.write(data)
        os._exit(0)
    os.close(writer)
    data, deadline = b"", began + seconds
    while len(data) < LONGEST:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            break
        piece = os.read(reader, 65536)
        if not piece:
            break
        data += piece
    os.close(reader)
    # Its own process group only: with the host's process ids in sight, -1 would be the whole host.
    with contextlib.suppress(OSError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    try:
        line = json.loads(data)
    except ValueError:
        line = {"id": name, "error": "no answer within %d s" % seconds}
    line.update(seconds=round(time.monotonic() - began, 2), began=at, ended=time.time())
    print(json.dumps(line), flush=True)


def main(verb, *rest):
    """Run the attacks, or the neighbour, that the command line names."""
    if verb == "neighbour":
        signal.alarm(int(rest[1]))
        load(rest[0]).neighbour(lambda: print("ready", flush=True))
        while True:
            time.sleep(1)
    pairs = list(zip(rest[::2], rest[1::2]))
    signal.alarm(sum(int(seconds) + 5 for _, seconds in pairs) + 10)
    for name, seconds in pairs:
        run(name, int(seconds))


main(*sys.argv[1:])
