# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What a plan changes, as Ansible shows it with --diff. Foreign values stay on the host."""

from __future__ import annotations

import json
import os
import stat as stat_module
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.look_options import shown
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_accounts import (
    SUBID_FILES,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_ownership import (
    Ownership,
)

Json = dict[str, typing.Any]

_KEPT = "(kept)"
_HIDDEN = "(hidden)"


class State(typing.NamedTuple):
    """One file before and after. A content is None when the file is absent.

    ``mode`` is a text such as ``0644 root:root``; ``foreign``: the former content is not what we wrote;
    ``put_back``: the new content is that of a before-image; ``secret``: neither content is shown.
    """

    path: str
    before: bytes | None
    after: bytes | None
    foreign: bool
    put_back: bool
    mode_before: str | None
    mode_after: str | None
    secret: bool = False


def row(path: str, before: str, after: str) -> Json:
    """Return one entry of Ansible's ``diff``."""
    return {"before_header": path, "after_header": path, "before": before, "after": after}


def file_row(state: State) -> Json:
    """Return the difference of a file that a plan places or removes."""
    before, after = _text(state.before), _text(state.after)
    if state.secret:
        before, after = (_HIDDEN + "\n" if text else "" for text in (before, after))
    if state.foreign and state.before is not None and state.before != state.after:
        before = "(%d bytes that Bulkhead did not write)\n" % len(state.before)
    if state.put_back and state.after is not None:
        after = "(%d bytes as they were before)\n" % len(state.after)
    if state.mode_before != state.mode_after and state.before is not None:
        before = "(%s)\n%s" % (state.mode_before, before)
        after = "(%s)\n%s" % (state.mode_after, after)
    return row(state.path, before, after)


def _text(content: bytes | None) -> str:
    return "" if content is None else content.decode("utf-8", "replace")


def config_row(path: str, before: Json, after: Json, operations: typing.Iterable[Json]) -> Json:
    """Return the difference of daemon.json: only what the plan touches shows its value."""
    touched: dict[str, set[str] | None] = {}
    for operation in operations:
        key, member = operation["key"], operation.get("member")
        if member is None:
            touched[key] = None
        elif touched.get(key, set()) is not None:
            members = touched.setdefault(key, set())
            if members is not None:
                members.add(member)
    return row(path, _render(before, touched), _render(after, touched))


def _render(document: Json, touched: dict[str, set[str] | None]) -> str:
    if not document:
        return ""
    visible = {key: _shown(key, value, touched) for key, value in document.items()}
    return json.dumps(visible, indent=2, ensure_ascii=False) + "\n"


def _shown(key: str, value: typing.Any, touched: dict[str, set[str] | None]) -> typing.Any:
    if key not in touched:
        return _KEPT
    seen = shown(key, value)
    members = touched[key]
    if not isinstance(value, dict):
        return seen.value if seen.visible else _HIDDEN
    plain = seen.value if seen.visible and isinstance(seen.value, dict) else {}
    return {
        name: plain.get(name, _HIDDEN) if members is None or name in members else _KEPT
        for name in value
    }


def mode_text(mode: int, uid: int, gid: int) -> str:
    """Return mode and owner as the diff shows them."""
    return "%04o %d:%d" % (mode, uid, gid)


def mode_of(st: os.stat_result) -> str:
    """Return mode and owner of a file as the diff shows them."""
    return mode_text(stat_module.S_IMODE(st.st_mode), st.st_uid, st.st_gid)


def account_rows(operations: typing.Iterable[Json]) -> list[Json]:
    """Return what the account files gain; the operations are those that are missing."""
    rows = []
    for operation in operations:
        if operation["op"] == "group_present":
            rows.append(row("/etc/group", "", "system group %s\n" % operation["name"]))
        elif operation["op"] == "user_present":
            text = "system user %s, group %s\n" % (operation["name"], operation["group"])
            rows.append(row("/etc/passwd", "", text))
        else:
            for path in SUBID_FILES:
                wanted = operation[os.path.basename(path)]
                if wanted is None:
                    continue
                text = "%s:%d:%d\n" % (operation["user"], wanted["start"], wanted["count"])
                rows.append(row(path, "", text))
    return rows


def removed_account_rows(operations: typing.Iterable[Json], ownership: Ownership) -> list[Json]:
    """Return what the account files lose."""
    rows = []
    for operation in operations:
        if operation["op"] == "group_absent":
            rows.append(row("/etc/group", "system group %s\n" % operation["name"], ""))
        elif operation["op"] == "user_absent":
            rows.append(row("/etc/passwd", "system user %s\n" % operation["name"], ""))
        elif operation["op"] == "subid_absent":
            item = ownership.find("subids", user=operation["user"]) or {}
            for path in SUBID_FILES:
                span = item.get(os.path.basename(path))
                if span:
                    text = "%s:%d:%d\n" % (operation["user"], span["start"], span["count"])
                    rows.append(row(path, text, ""))
    return rows
