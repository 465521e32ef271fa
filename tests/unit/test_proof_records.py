"""What of the kernel's logs belongs to an attack."""

from __future__ import annotations

import pathlib
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import proof_records
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host

Json = dict[str, typing.Any]

APPARMOR = (
    'type=AVC msg=audit(1700000000.250:77): apparmor="DENIED" operation="open" class="file" '
    'profile="docker-default" name="/proc/sysrq-trigger" pid=812 comm="bulkhead-proof" '
    'requested_mask="w" denied_mask="w" fsuid=0 ouid=0'
)
KERNEL = (
    '6,999,123456,-;audit: type=1400 audit(1700000001.000:78): apparmor="DENIED" operation="mount" '
    'profile="docker-default" name="/mnt/" pid=9 comm="bulkhead-proof" fstype="proc"'
)
SELINUX = (
    "type=AVC msg=audit(1700000002.500:90): avc:  denied  { read write } for  pid=5 "
    'comm="bulkhead-proof" name="root-only" dev="vda" ino=7 '
    "scontext=system_u:system_r:container_t:s0:c1,c2 tcontext=system_u:object_r:var_run_t:s0 "
    "tclass=file permissive=0"
)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (APPARMOR, {"kind": "apparmor", "name": "/proc/sysrq-trigger", "denied_mask": "w"}),
        (KERNEL, {"kind": "apparmor", "operation": "mount", "profile": "docker-default"}),
        (SELINUX, {"kind": "selinux", "denied": ["read", "write"], "tclass": "file"}),
    ],
)
def test_a_denial_of_ours_is_kept(line: str, found: Json) -> None:
    record = proof_records.parse(line)
    assert record is not None
    assert found.items() <= record.items()
    assert not {"pid", "comm", "ino"} & set(record)


@pytest.mark.parametrize(
    "line",
    [
        "",
        APPARMOR.replace("bulkhead-proof", "nginx"),
        APPARMOR.replace("DENIED", "ALLOWED"),
        APPARMOR.replace("audit(1700000000.250:77)", "audit()"),
        SELINUX.replace("denied", "granted"),
    ],
)
def test_everything_else_is_not(line: str) -> None:
    assert proof_records.parse(line) is None


def test_only_what_was_added_since_is_read(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "var/log/audit/audit.log"
    log.parent.mkdir(parents=True)
    log.write_text(APPARMOR + "\n")
    records = proof_records.Records(Host(str(tmp_path)))
    with log.open("a") as stream:
        stream.write(SELINUX + "\n")
    assert [item["kind"] for item in records.read()] == ["selinux"]
    assert records.read() == []
    log.write_text(APPARMOR[:-1] + "\n")  # rotated
    assert [item["kind"] for item in records.read()] == ["apparmor"]
    records.close()
