#!/usr/bin/python3
"""Asks a service ten times a second until it is told to stop, and then writes what it missed.

    probe.py ADDRESS PORT PATH RESULT

RESULT gets ``{"asked", "lost", "slow": [seconds, ...], "slowest", "longest_pause", "errors": [text, ...]}``,
times in seconds. A request is lost when it is not answered with status 200 within 10 seconds; ``slow``
are those that took more than 2, and whoever reads this judges them. ``longest_pause`` is the longest time
between the beginnings of two requests.
"""

import http.client
import json
import signal
import sys
import time

INTERVAL = 0.1
SLOW = 2.0
CLIENT_LIMIT = 10.0


def main(address, port, path, result):
    counts = {"asked": 0, "lost": 0, "slow": [], "slowest": 0.0, "longest_pause": 0.0, "errors": []}
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    before = time.monotonic()
    while not told:
        began = time.monotonic()
        counts["longest_pause"] = max(counts["longest_pause"], began - before)
        before = began
        connection = http.client.HTTPConnection(address, int(port), timeout=CLIENT_LIMIT)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise OSError("status %d" % answer.status)
        except (OSError, http.client.HTTPException) as exc:
            counts["lost"] += 1
            counts["errors"].append("%.1f %r" % (time.time(), exc))
        finally:
            connection.close()
        took = time.monotonic() - began
        counts["asked"] += 1
        if took > SLOW:
            counts["slow"].append(took)
        counts["slowest"] = max(counts["slowest"], took)
        time.sleep(max(0.0, INTERVAL - took))
    with open(result, "w") as stream:
        json.dump(counts, stream)


main(*sys.argv[1:])
