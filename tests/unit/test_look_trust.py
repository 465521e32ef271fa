"""The look's section ``trust``: the policy in force, what was pulled under it, and the files for it."""

from __future__ import annotations

import hashlib
import json
import typing

import jsonschema
import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import look, look_trust
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import audit_evaluate

from .checkout import ROOT
from .fake_engine import FakeHost, fake_host
from .test_audit_checks import verdicts

Json = dict[str, typing.Any]
SCHEMA = json.loads((ROOT / "docs/schemas/observation.schema.json").read_text())
KEY, OLD = "a" * 64, "b" * 64
RECORD: Json = {
    "repository": "r.example/shop", "tag": "1", "digest": "sha256:" + "c" * 64, "at": 1e9, "rule": "*",
    "require": "signed", "key": "release", "key_sha256": KEY, "identity": None, "image_id": "x",
}  # fmt: skip


@pytest.fixture
def host() -> typing.Iterator[FakeHost]:
    with fake_host() as made:
        yield made


def observed(host: FakeHost) -> Json:
    answer = look.observe(host, ["trust"])
    jsonschema.validate(answer, SCHEMA)
    return answer


def policy(**more: typing.Any) -> str:
    known = {"schema": "bulkhead.trust/1", "default": "refuse", "rules": [{}, {}]}
    return json.dumps({**known, "revoked": [{"name": "old", "sha256": OLD}], **more})


def test_a_host_without_any_of_it(host: FakeHost) -> None:
    answer = observed(host)
    assert answer["unread"] == []
    found = answer["trust"]
    assert (found["policy"], found["records"], found["cosign"]) == (None, [], False)
    assert [row["path"] for row in found["files"]] == list(look_trust.FILES)
    assert {row["version"] for row in found["files"]} == {"absent"}


def test_policy_keys_and_programs(host: FakeHost) -> None:
    host.write(look_trust.POLICY, policy())
    host.write(look_trust.KEYS + "/release.pub", "key")
    host.write(look_trust.KEYS + "/note", "")
    host.write("/usr/bin/cosign", "")
    host.write("/etc/sudoers.d/README", "")
    host.write(look_trust.authority("r.example:5000"), "certificate")
    host.write("/etc/docker/certs.d/other/client.cert", "")
    found = observed(host)["trust"]
    assert found["policy"] == {"default": "refuse", "rules": 2, "revoked": [OLD], "expired": []}
    assert (found["cosign"], found["sudo"]) == (True, True)
    key, certificate = found["files"][-2:]
    assert key["path"] == look_trust.KEYS + "/release.pub"
    assert key["sha256"] == hashlib.sha256(b"key").hexdigest()
    assert certificate["path"] == "/etc/docker/certs.d/r.example:5000/ca.crt"


def test_so_many_authorities_are_not_all_read(host: FakeHost) -> None:
    for number in range(201):
        host.write(look_trust.authority("r%d" % number), "")
    answer = observed(host)
    assert [row["reason"] for row in answer["unread"]] == ["more than 200 registries"]
    assert len(answer["trust"]["files"]) == len(look_trust.FILES) + 200


def test_records_and_whose_key_is_revoked_since(host: FakeHost) -> None:
    host.write(look_trust.POLICY, policy())
    rows = [RECORD, {**RECORD, "key_sha256": OLD}, {**RECORD, "key": None, "key_sha256": None}]
    host.write(look_trust.RECORDS, "".join(json.dumps(row) + "\n" for row in rows))
    answer = observed(host)
    assert answer["unread"] == []
    found = answer["trust"]["records"]
    assert [row["revoked"] for row in found] == [False, True, False]
    known = {k: v for k, v in RECORD.items() if k != "image_id"}
    assert found[0] == {**known, "revoked": False, "expired": False}


@pytest.mark.parametrize(("day", "over"), [("2026-01-31", True), ("2026-02-01", False)])
def test_a_record_says_that_its_key_has_expired(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, day: str, over: bool
) -> None:
    monkeypatch.setattr(Host, "now", lambda self: 1769990399.0)  # the last second of 2026-02-01
    expiring = [{"name": "release", "sha256": KEY, "expires": day}]
    host.write(look_trust.POLICY, policy(expiring=expiring))
    host.write(look_trust.RECORDS, json.dumps(RECORD) + "\n")
    found = observed(host)["trust"]
    assert found["policy"]["expired"] == ([KEY] if over else [])
    assert (found["records"][0]["expired"], found["records"][0]["revoked"]) == (over, False)


@pytest.mark.parametrize(
    "line",
    ["x", "[]", "{}", json.dumps({**RECORD, "digest": "sha256:x"}), json.dumps({**RECORD, "at": "now"}),
     json.dumps({**RECORD, "at": True}), json.dumps({**RECORD, "key_sha256": "$(x)"})],
)  # fmt: skip
def test_a_line_that_is_no_record_is_said(host: FakeHost, line: str) -> None:
    host.write(look_trust.RECORDS, line + "\n" + json.dumps(RECORD) + "\n")
    answer = observed(host)
    assert len(answer["trust"]["records"]) == 1
    assert [row["reason"] for row in answer["unread"]] == ["a line is no record"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        policy()[:-2],
        policy(schema="bulkhead.trust/2"),
        policy(revoked={"sha256": OLD}),
    ],
)
def test_a_policy_of_another_kind_is_said(host: FakeHost, text: str) -> None:
    host.write(look_trust.POLICY, text)
    answer = observed(host)
    assert (answer["trust"]["policy"], answer["trust"]["policy_state"]) == (None, "unreadable")
    assert "not a policy of schema" in answer["unread"][0]["reason"]


def test_what_cannot_be_read_is_said(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Host, path: str, *rest: int) -> typing.NoReturn:
        raise PermissionError(13, "Permission denied")

    for name in ("read_bytes", "read_tail", "listdir"):
        monkeypatch.setattr(Host, name, refuse)
    answer = observed(host)
    assert {row["item"] for row in answer["unread"]} == {
        look_trust.POLICY, look_trust.RECORDS, look_trust.KEYS, "/etc/docker/certs.d",
    }  # fmt: skip
    assert (answer["trust"]["policy"], answer["trust"]["records"]) == (None, None)
    assert answer["trust"]["policy_state"] == "unreadable"


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        (policy(), KEY, {"4.12": "pass", "BH-29": "pass", "BH-30": "pass"}),
        (policy(), OLD, {"4.12": "fail", "BH-29": "fail", "BH-30": "pass"}),
        (policy()[:-2], OLD, {"4.12": "error", "BH-29": "error", "BH-30": "error"}),
        (policy(schema="x"), OLD, {"4.12": "error", "BH-29": "error", "BH-30": "error"}),
        (None, OLD, {"4.12": "manual", "BH-29": "manual", "BH-30": "not_applicable"}),
    ],
)
def test_without_a_policy_that_can_be_read_no_key_is_good(
    host: FakeHost, text: str | None, key: str, expected: Json
) -> None:
    name, digest = "sha256:" + "1" * 64, RECORD["digest"]
    row = {
        "Id": name,
        "RepoTags": ["r.example/shop:1"],
        "RepoDigests": [f"r.example/shop@{digest}"],
    }
    host.engine.answers["/images/json"] = [row]
    host.engine.answers[f"/images/{name}/json"] = {"Config": {}}
    host.engine.answers[f"/images/{name}/history"] = []
    host.write(look_trust.RECORDS, json.dumps({**RECORD, "key_sha256": key}) + "\n")
    if text is not None:
        host.write(look_trust.POLICY, text)
    seen = look.observe(host)
    jsonschema.validate(seen, SCHEMA)
    found = {check: verdicts(check, seen, audit_evaluate.POLICY) for check in expected}
    assert {check: set(rows.values()) for check, rows in found.items()} == {
        check: {verdict} for check, verdict in expected.items()
    }


def test_records_that_cannot_be_read_are_none(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Host, path: str, *rest: int) -> typing.NoReturn:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Host, "read_tail", refuse)
    host.engine.answers["/images/json"] = [{"Id": "sha256:" + "1" * 64, "RepoTags": ["x:1"]}]
    seen = look.observe(host)
    for check in ("4.12", "BH-29"):
        assert set(verdicts(check, seen, audit_evaluate.POLICY).values()) == {"error"}


def test_content_trust_is_found_where_systemd_and_cron_read(host: FakeHost) -> None:
    places = [look_trust.SYSTEMD, "/etc/crontab", "/etc/cron.d/pull", look_trust.SHELLS]
    for path in places:
        host.write(path, "# X\nexport DOCKER_CONTENT_TRUST=1\n")
    found = look.observe(host, ["client"])["client"]["content_trust"]
    assert sorted(row["path"] for row in found) == sorted(places)
