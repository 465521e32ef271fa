"""The states of daemon.json."""

from __future__ import annotations

import os
import pathlib

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_config import ConfigFile

PATH = "/etc/docker/daemon.json"


def place(tmp_path: pathlib.Path, content: bytes | None) -> Host:
    """Return a host with that daemon.json."""
    target = tmp_path / PATH.lstrip("/")
    target.parent.mkdir(parents=True)
    if content is not None:
        target.write_bytes(content)
    return Host(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "state", "reason"),
    [
        (None, "absent", None),
        (b"", "empty", None),
        (b" \n\t", "empty", None),
        (b"{}", "valid", None),
        (b'{"icc": false}', "valid", None),
        (b'{"icc": false,}', "invalid", "line 1 column 1"),
        (b'{\n  // why\n  "icc": false\n}', "invalid", "line 2 column 3: "),
        (b'{\n  "icc": false\n  "debug": true\n}', "invalid", "line 3 column 3: Expecting ','"),
        (b"{} x", "invalid", "line 1 column 4: Extra data"),
        (b'{"mtu": NaN}', "invalid", "NaN is not JSON"),
        (b"[1]", "not_an_object", "the top level is a list, not an object"),
        (b"null", "not_an_object", "the top level is a null, not an object"),
        (b"[" * 100000, "invalid", "nested too deeply"),
        (b"\xef\xbb\xbf{}", "valid", None),
        ("{}".encode("utf-16"), "valid", None),
        (b"\xfe\xff" + "{}".encode("utf-16-be"), "valid", None),
        (b"\xff\xfe", "empty", None),
    ],
)
def test_states(
    tmp_path: pathlib.Path, content: bytes | None, state: str, reason: str | None
) -> None:
    config = ConfigFile(place(tmp_path, content), PATH)
    assert config.state == state
    assert (config.reason or "").startswith(reason or "")
    assert (config.reason is None) is (reason is None)


@pytest.mark.parametrize(
    ("content", "mark"), [(b"{}", False), (b"\xef\xbb\xbf{}", True), (b"\xff\xfe{\0}\0", True)]
)
def test_byte_order_marks(tmp_path: pathlib.Path, content: bytes, mark: bool) -> None:
    assert ConfigFile(place(tmp_path, content), PATH).byte_order_mark is mark


def test_keys_and_members(tmp_path: pathlib.Path) -> None:
    content = (
        b'{"icc": false, "icc": true, "labels": ["a=b"], "foreign": {"x": 1, "x": 2},'
        b'"log-opts": {"max-size": "1m", "splunk-token": "s"}, "mtu": null,'
        b'"runtimes": {"r": {"path": "/r", "runtimeArgs": ["s"]}}}'
    )
    host = place(tmp_path, content)
    seen = ConfigFile(host, PATH).observation(host)
    assert sorted(seen["duplicate_keys"]) == ["icc", "x"]
    assert seen["keys"] == {
        "icc": {"type": "boolean", "value": True},
        "labels": {"type": "list", "redacted": True},
        "foreign": {"type": "map", "members": {"x": {"type": "integer", "redacted": True}}},
        "log-opts": {
            "type": "map",
            "members": {
                "max-size": {"type": "string", "value": "1m"},
                "splunk-token": {"type": "string", "redacted": True},
            },
        },
        "mtu": {"type": "null", "redacted": True},
        "runtimes": {
            "type": "map",
            "members": {"r": {"type": "map", "value": {"path": "/r"}, "redacted": True}},
        },
    }


def test_a_link_is_not_followed(tmp_path: pathlib.Path) -> None:
    host = place(tmp_path, None)
    (tmp_path / "etc/docker/daemon.json").symlink_to("/etc/passwd")
    config = ConfigFile(host, PATH)
    assert (config.state, config.values, config.sha256) == ("symlink", {}, None)


def test_a_pipe_does_not_block(tmp_path: pathlib.Path) -> None:
    host = place(tmp_path, None)
    os.mkfifo(tmp_path / "etc/docker/daemon.json")
    assert ConfigFile(host, PATH).state == "irregular"


class Guarded(Host):
    """A host that refuses to read."""

    def read_bytes(self, path: str, limit: int = 0) -> bytes:
        """Refuse."""
        raise PermissionError(13, "Permission denied")


def test_a_file_that_may_not_be_read(tmp_path: pathlib.Path) -> None:
    place(tmp_path, b"{}")
    config = ConfigFile(Guarded(str(tmp_path)), PATH)
    assert (config.state, config.reason) == ("unreadable", "Permission denied")


def test_a_missing_directory_is_no_read_only_file_system(tmp_path: pathlib.Path) -> None:
    host = Host(str(tmp_path))
    assert ConfigFile(host, PATH).observation(host)["read_only_filesystem"] is False


def test_a_read_only_file_system_is_told(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = place(tmp_path, b"{}")

    class Flags:
        f_flag = os.ST_RDONLY

    monkeypatch.setattr(os, "statvfs", lambda path: Flags())
    assert ConfigFile(host, PATH).observation(host)["read_only_filesystem"] is True
