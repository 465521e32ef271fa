"""What other programs say, without secrets."""

from __future__ import annotations

import json
import pathlib

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.redact import redact, secrets_of


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "the following directives are specified both as a flag and in the configuration file: "
            "log-opts: (from flag: map[splunk-token:A(b)c], from file: map[splunk-token:D])",
            "the following directives are specified both as a flag and in the configuration file: "
            "log-opts: (hidden)",
        ),
        (
            "hosts: (from flag: [fd://], from file: [tcp://u:p@h]), "
            "label: (from flag: [a=b], from file: [c])",
            "hosts: (hidden), label: (hidden)",
        ),
        (
            "Get https://ann:pw@mirror.example/v2/: EOF",
            "Get https://(hidden)@mirror.example/v2/: EOF",
        ),
        ("Authorization: Bearer abc.def", "Authorization: (hidden) (hidden)"),
        ('level=error splunk-token="a b" x=1', "level=error splunk-token=(hidden) x=1"),
        ("DB_PASSWORD=hunter2, y", "DB_PASSWORD=(hidden), y"),
        ("key AKIA0123456789ABCDEFGHIJ stays out", "key (hidden) stays out"),
        ("container " + "0123456789ab" * 5 + "0123 died", "container 0123456789ab died"),
        # words that a reader needs
        ("failed to start daemon: Devices cgroup isn't mounted", None),
        ("unable to find user bulkhead-userns-remap: no such user", None),
        ("/etc/systemd/system/docker.service.d/10-bulkhead.conf:3: Unknown key", None),
        ("unknown log opt 'max-size' for journald log driver", None),
    ],
)
def test_redact(text: str, shown: str | None) -> None:
    assert redact(text) == (text if shown is None else shown)


def test_known_secrets_go_wherever_they_stand(tmp_path: pathlib.Path) -> None:
    document = {
        "log-opts": {"splunk-token": "tok-en", "max-size": "10m"},
        "unknown-thing": ["value one", {"x": "value two"}],
        "registry-mirrors": ["https://u:pass@m.example"],
        "bip": "10.1.2.3/24",
    }
    (tmp_path / "c.json").write_text(json.dumps(document))
    found = secrets_of(Host(str(tmp_path)), "/c.json", ["--log-opt=splunk-url=https://s.example"])
    assert {"tok-en", "value one", "value two", "https://s.example"} <= found
    assert not found & {"10m", "10.1.2.3/24"}
    said = redact("bip 10.1.2.3/24: tok-en, value two", found)
    assert said == "bip 10.1.2.3/24: (hidden), (hidden)"


def test_a_broken_file_has_no_known_secrets(tmp_path: pathlib.Path) -> None:
    (tmp_path / "c.json").write_text("{")
    assert secrets_of(Host(str(tmp_path)), "/c.json", []) == set()
    assert secrets_of(Host(str(tmp_path)), "/absent", []) == set()
