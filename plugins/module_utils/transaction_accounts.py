# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Groups, users and ranges of subordinate ids, through the tools of the shadow suite.

Those tools take the locks of /etc/passwd and its neighbours, which no editing of ours could. What
is there is read from the files below the host's root.
"""

from __future__ import annotations

import grp
import pwd
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import transaction_files as files
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError

Json = dict[str, typing.Any]

SUBID_FILES = ("/etc/subuid", "/etc/subgid")


class Accounts:
    """The accounts of one host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    # -- reading -------------------------------------------------------------------------------
    def uid(self, name: str) -> int | None:
        """Return a user's id, or None when there is no such user."""
        found = self._entries("/etc/passwd").get(name)
        if found is not None:
            return int(found[2])
        if self._host.root == "/":  # directory services
            try:
                return pwd.getpwnam(name).pw_uid
            except KeyError:
                return None
        return None

    def gid(self, name: str) -> int | None:
        """Return a group's id, or None when there is no such group."""
        found = self._entries("/etc/group").get(name)
        if found is not None:
            return int(found[2])
        if self._host.root == "/":
            try:
                return grp.getgrnam(name).gr_gid
            except KeyError:
                return None
        return None

    def ranges(self, path: str) -> list[tuple[str, int, int]]:
        """Return the ranges of /etc/subuid or /etc/subgid: name, first id, count."""
        return _ranges(self._lines(path))

    @staticmethod
    def parse_ranges(content: bytes) -> list[tuple[str, int, int]]:
        """Return the ranges that the content of such a file holds."""
        return _ranges(content.decode("utf-8", "replace").split("\n"))

    def has_range(self, path: str, user: str, start: int, count: int) -> bool:
        """Tell whether a user has just this range."""
        return (user, start, count) in self.ranges(path)

    def check_range(self, path: str, user: str, start: int, count: int) -> None:
        """Check that a user may have a range.

        :raises HostError: it overlaps another name's range or existing accounts, or the user has
            other ranges, which the engine would concatenate with this one.
        """
        for name, first, size in self.ranges(path):
            if name == user:
                if (first, size) == (start, count):
                    continue
                raise HostError(
                    "%s: %s already has the range %d:%d instead of %d:%d; the engine would use both"
                    % (path, user, first, size, start, count)
                )
            if first < start + count and start < first + size:
                raise HostError(
                    "%s: the range %d:%d for %s overlaps %d:%d of %s; choose another start"
                    % (path, start, count, user, first, size, name)
                )
        accounts = "/etc/passwd" if path == "/etc/subuid" else "/etc/group"
        for name, fields in sorted(self._entries(accounts).items()):
            if start <= int(fields[2]) < start + count:
                raise HostError(
                    "%s: the range %d:%d for %s holds the id %s of %s in %s; choose another start"
                    % (path, start, count, user, fields[2], name, accounts)
                )

    def _lines(self, path: str) -> list[str]:
        try:
            data, _ = files.read(self._host, path)
        except FileNotFoundError:
            return []
        return data.decode("utf-8", "replace").split("\n")

    def _entries(self, path: str) -> dict[str, list[str]]:
        rows = (line.split(":") for line in self._lines(path))
        return {row[0]: row for row in rows if len(row) >= 3 and row[2].isdigit()}

    # -- changing ------------------------------------------------------------------------------
    def add_group(self, name: str, gid: int | None = None) -> None:
        """Create a system group, unless it is there; with an id of its own when one is given."""
        if name not in self._entries("/etc/group"):
            self._run("groupadd", "--system", *_given("--gid", gid), name)

    def add_user(self, name: str, group: str, uid: int | None = None) -> None:
        """Create a system user that cannot log in and has no home, unless it is there."""
        if name in self._entries("/etc/passwd"):
            return
        shell = "/usr/sbin/nologin"
        if files.status(self._host, shell) is None and self._host.lstat("/sbin/nologin"):
            shell = "/sbin/nologin"
        self._run(
            "useradd", "--system", "--gid", group, "--no-create-home",
            "--home-dir", "/nonexistent", "--shell", shell, *_given("--uid", uid), name,
        )  # fmt: skip

    def add_ranges(self, user: str, subuid: typing.Any, subgid: typing.Any) -> None:
        """Give a user ranges of subordinate ids, each {start, count}, or None for none."""
        arguments = []
        for path, option, wanted in (
            ("/etc/subuid", "--add-subuids", subuid),
            ("/etc/subgid", "--add-subgids", subgid),
        ):
            if wanted and not self.has_range(path, user, wanted["start"], wanted["count"]):
                arguments += [option, _span(wanted["start"], wanted["count"])]
        if arguments:
            self._run("usermod", *arguments, user)

    def remove_group(self, name: str) -> None:
        """Remove a group, if it is there (userdel may have taken a user's own group along)."""
        if name in self._entries("/etc/group"):
            self._run("groupdel", name)

    def remove_user(self, name: str) -> None:
        """Remove a user, if it is there."""
        if name in self._entries("/etc/passwd"):
            self._run("userdel", name)

    def remove_ranges(self, user: str, subuid: typing.Any, subgid: typing.Any) -> None:
        """Take ranges away again, those that are there; None for none."""
        arguments = []
        for path, option, wanted in (
            ("/etc/subuid", "--del-subuids", subuid),
            ("/etc/subgid", "--del-subgids", subgid),
        ):
            if wanted and self.has_range(path, user, wanted["start"], wanted["count"]):
                arguments += [option, _span(wanted["start"], wanted["count"])]
        # userdel takes a user's ranges along; usermod would not find the user any more.
        if arguments and user in self._entries("/etc/passwd"):
            self._run("usermod", *arguments, user)

    def user(self, name: str) -> Json | None:
        """Return ``{"uid", "gid", "group"}`` of a user of the host's own files, or None."""
        found = self._entries("/etc/passwd").get(name)
        if found is None:
            return None
        groups = self._entries("/etc/group").items()
        group = next((title for title, row in groups if row[2] == found[3]), name)
        return {"uid": int(found[2]), "gid": int(found[3]), "group": group}

    def _run(self, *argv: str) -> None:
        done = self._host.run(list(argv))
        if done.rc != 0:
            reason = (done.err or done.out).strip() or "exit status %d" % done.rc
            raise HostError("%s: %s" % (" ".join(argv), reason))


def _ranges(lines: typing.Iterable[str]) -> list[tuple[str, int, int]]:
    rows = [line.split(":") for line in lines]
    return [
        (row[0], int(row[1]), int(row[2]))
        for row in rows
        if len(row) == 3 and row[1].isdigit() and row[2].isdigit()
    ]


def _given(option: str, value: int | None) -> list[str]:
    return [] if value is None else [option, str(value)]


def _span(start: int, count: int) -> str:
    return "%d-%d" % (start, start + count - 1)
