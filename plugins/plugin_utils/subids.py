# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Ranges of subordinate ids: finding one that overlaps nothing, and saying what a range overlaps."""

from __future__ import annotations

import typing

#: Where the search begins. useradd gives people 65,536 ids each from 100000 on (login.defs,
#: SUB_UID_MIN), so the first two accounts stay clear of it.
FIRST_START = 231072

#: Ids end at 2**32 - 2; (uid_t)-1 is no id.
LAST_ID = 2**32 - 2


class Taken(typing.NamedTuple):
    """Ids that somebody has: ``first`` to ``last``, both included, and who."""

    first: int
    last: int
    owner: str


def taken(observation: typing.Mapping[str, typing.Any], except_user: str) -> list[Taken]:
    """Return every id range on a host that belongs to somebody else than ``except_user``.

    Subordinate ids of all names count, and real users and groups too: a container's root mapped to
    a person's uid would own that person's files.
    """
    ranges = []
    for kind in ("subuid", "subgid"):
        for entry in observation["subids"][kind]:
            if entry["name"] != except_user and entry["count"] > 0:
                last = entry["start"] + entry["count"] - 1
                ranges.append(Taken(entry["start"], last, f"{entry['name']} (/etc/{kind})"))
    for user in observation["users"]["users"]:
        ranges.append(Taken(user["uid"], user["uid"], f"{user['name']} (/etc/passwd)"))
    for group in observation["users"]["groups"]:
        ranges.append(Taken(group["gid"], group["gid"], f"{group['name']} (/etc/group)"))
    return sorted(ranges)


def overlaps(ranges: typing.Iterable[Taken], start: int, size: int) -> list[str]:
    """Return the owners of ids between ``start`` and ``start + size - 1``."""
    end = start + size - 1
    return [item.owner for item in ranges if item.first <= end and item.last >= start]


def find(ranges: typing.Sequence[Taken], size: int) -> int | None:
    """Return the lowest start from :data:`FIRST_START` on, or None when nothing is free."""
    start = FIRST_START
    for item in ranges:
        if item.last < start:
            continue
        if item.first > start + size - 1:
            break
        start = item.last + 1
        # Ranges begin where useradd's own grid has them, which keeps them easy to read.
        start += -(start - FIRST_START) % 65536
    return start if start + size - 1 <= LAST_ID else None
