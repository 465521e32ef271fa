"""The planner of docker_trust: policies that are refused, what is placed, left and taken away."""

from __future__ import annotations

import copy
import datetime
import hashlib
import json
import typing

import pytest
from ansible.errors import AnsibleFilterError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ansible_collections.bulkhead.hardening.plugins.filter import docker_trust_plan
from ansible_collections.bulkhead.hardening.plugins.module_utils import look_trust, transaction_plan
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import plan as plans, trust_plan
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import PolicyError
from tests.unit import observations as obs
from tests.unit.checkout import ROOT

Json = dict[str, typing.Any]
PROGRAM = (ROOT / "roles" / "docker_trust" / "files" / "bulkhead_pull.py").read_text()
SECRET = ec.generate_private_key(ec.SECP256R1())
PRIVATE = SECRET.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
).decode()
_FORM = serialization.PublicFormat.SubjectPublicKeyInfo
PUBLIC = SECRET.public_key().public_bytes(serialization.Encoding.PEM, _FORM).decode()
FINGERPRINT = hashlib.sha256(
    SECRET.public_key().public_bytes(serialization.Encoding.DER, _FORM)
).hexdigest()

KEYS: Json = {"release": PUBLIC, "old": {"key": PUBLIC, "revoked": True}}
SHOP: Json = {"pattern": "r.example:5000/shop/*", "require": "signed", "keys": ["release", "old"]}
HUB: Json = {"pattern": "docker.io/library/*", "require": "digest"}
POLICY: Json = {"policy": [SHOP, HUB], "default": "refuse", "keys": KEYS}
NOTARY: Json = {"content_trust": "https://notary.example:4443/"}
VERIFIED = [look_trust.POLICY, look_trust.PROGRAM, f"{look_trust.KEYS}/release.pub"]


def planned(raw: Json, look: Json | None = None) -> Json:
    return trust_plan.plan(look or obs.stock(), trust_plan.read(raw), PROGRAM)


def states(plan: Json) -> dict[str, str]:
    return {row["setting"]: row["state"] for row in plan["settings"]}


def changes(plan: Json) -> dict[str, str]:
    return {op["path"]: op["op"] for op in plan["operations"]}


def after(plan: Json, look: Json | None = None) -> Json:
    """Return the host as it is when a plan was carried out."""
    look = copy.deepcopy(look or obs.stock())
    files = {row["path"]: row for row in look["trust"]["files"]}
    owned = {
        item["path"]: item
        for item in look["bulkhead"]["owned"].get(trust_plan.ROLE, [])
    }  # fmt: skip
    for op in plan["operations"]:
        path = op["path"]
        owned.pop(path, None)
        if op["op"] == "file_present":
            digest = hashlib.sha256(op["content"].encode()).hexdigest()
            files[path] = {"path": path, "version": "v1", "sha256": digest}
            owned[path] = {"kind": "file", "path": path, "intact": True, "version": "v1"}
        else:
            files[path] = {"path": path, "version": "absent", "sha256": None}
    look["trust"]["files"] = list(files.values())
    look["bulkhead"].update(state="ok", owned={trust_plan.ROLE: list(owned.values())})
    return look


# -- what is placed --------------------------------------------------------------------------------
@pytest.mark.parametrize("raw", [{}, {"keys": KEYS}, {"policy": [], "default": "nothing"}])
def test_without_a_policy_nothing_is_placed(raw: Json) -> None:
    plan = planned(raw)
    assert plans.is_empty(plan)
    assert plan["settings"] == []


def test_policy_program_and_valid_keys_are_placed_and_then_all_is_well() -> None:
    plan = planned(POLICY)
    assert changes(plan) == dict.fromkeys(VERIFIED, "file_present")
    told = {name: plan[name] for name in ("schema", "profile", "operations", "daemon")}
    assert len(transaction_plan.parse_plan(told).operations) == 3
    assert [op["mode"] for op in plan["operations"]] == ["0644", "0755", "0644"]
    wanted = {row["setting"]: row["wanted"] for row in plan["settings"]}
    assert wanted["images r.example:5000/shop/*"] == "signed by release"
    assert wanted["all other images"] == "refuse"
    again = planned(POLICY, after(plan))
    assert plans.is_empty(again)
    assert set(states(again).values()) == {"ok", "pending"}
    assert states(again)["cosign"] == "pending"


def test_the_policy_names_keys_by_fingerprint_and_leaves_revoked_ones_out() -> None:
    document = json.loads(planned(POLICY)["operations"][0]["content"])
    key = {"name": "release", "file": f"{look_trust.KEYS}/release.pub", "sha256": FINGERPRINT}
    assert document["rules"][0]["keys"] == [key]
    assert document["revoked"] == [{"name": "old", "sha256": FINGERPRINT}]
    assert (document["schema"], document["default"]) == (look_trust.SCHEMA, "refuse")


def test_a_rule_whose_keys_are_all_revoked_stays_and_refuses() -> None:
    plan = planned({**POLICY, "policy": [{**SHOP, "keys": ["old"]}]})
    assert plan["settings"][0]["wanted"] == "none: all its keys are revoked or have expired"
    assert json.loads(plan["operations"][0]["content"])["rules"][0]["keys"] == []


@pytest.mark.parametrize("day", ["2027-02-02", datetime.date(2027, 2, 2)])
def test_a_key_has_a_last_day(day: object) -> None:
    raw = {
        "policy": [{**SHOP, "keys": ["release"]}],
        "keys": {"release": {"key": PUBLIC, "expires": day}},
    }
    look = obs.stock(collected_at=1801526400.0)  # the first second of 2027-02-02
    plan = planned(raw, look)
    assert plan["settings"][0]["wanted"] == "signed by release until 2027-02-02"
    document = json.loads(plan["operations"][0]["content"])
    expiring = {"name": "release", "sha256": FINGERPRINT, "expires": "2027-02-02"}
    assert (document["expiring"], document["revoked"]) == ([expiring], [])
    look["collected_at"] += 86400
    wanted = planned(raw, look)["settings"][0]["wanted"]
    assert wanted == "none: all its keys are revoked or have expired"


def test_an_identity_may_sign_in_place_of_a_key() -> None:
    identity = {"issuer": "https://issuer.example", "subject_regexp": "^https://ci.example/.*$"}
    plan = planned({"policy": [{"pattern": "*", "require": "signed", "identity": identity}]})
    assert plan["settings"][0]["wanted"] == "signed by ^https://ci.example/.*$"
    assert json.loads(plan["operations"][0]["content"])["rules"][0]["identity"] == identity


def test_with_cosign_nothing_is_pending() -> None:
    assert "cosign" not in states(planned(POLICY, obs.stock(trust={"cosign": True})))


# -- what is taken away, and what is left ----------------------------------------------------------
def test_what_the_policy_no_longer_has_is_removed() -> None:
    look = after(planned(POLICY))
    fewer = {**POLICY, "keys": {"old": KEYS["old"]}, "policy": [HUB]}
    assert changes(planned(fewer, look))[VERIFIED[2]] == "file_absent"
    assert changes(planned({}, look)) == dict.fromkeys(VERIFIED, "file_absent")


def test_what_somebody_changed_is_put_right_or_let_go() -> None:
    look = after(planned(POLICY))
    for item in look["bulkhead"]["owned"][trust_plan.ROLE]:
        item["intact"] = item["path"] != look_trust.PROGRAM
    assert changes(planned(POLICY, look)) == {look_trust.PROGRAM: "file_present"}
    assert changes(planned({}, look))[look_trust.PROGRAM] == "disown"


def test_a_file_of_somebody_else_is_in_the_way() -> None:
    look = obs.stock()
    row = {"path": look_trust.PROGRAM, "version": "v1", "sha256": "other"}
    look["trust"]["files"] = [row]
    plan = planned(POLICY, look)
    assert plans.is_empty(plan)
    assert states(plan) == {"image trust": "blocked"}
    row["sha256"] = hashlib.sha256(PROGRAM.encode()).hexdigest()
    assert changes(planned(POLICY, look)) == dict.fromkeys(VERIFIED, "file_present")


def test_what_is_in_force_stays_when_a_new_file_is_in_the_way() -> None:
    """A host must not lose its policy because a key that was added cannot be placed."""
    look = after(planned(POLICY))
    look["trust"]["files"].append(
        {"path": f"{look_trust.KEYS}/next.pub", "version": "v1", "sha256": "0" * 64}
    )
    plan = planned({**POLICY, "keys": {**KEYS, "next": PUBLIC}}, look)
    assert states(plan) == {"image trust": "blocked"}
    assert plans.is_empty(plan)


@pytest.mark.parametrize("engine", [{"state": "absent"}, {"rootless": True}])
def test_hosts_without_a_daemon_of_the_systems_are_left(engine: Json) -> None:
    plan = planned({**POLICY, **NOTARY}, obs.stock(engine=engine))
    assert plans.is_empty(plan)
    assert states(plan) == {"image trust": "not_applicable"}


# -- content trust ---------------------------------------------------------------------------------
def client(version: str | None, *paths: str) -> Json:
    found = [{"path": path, "variable": "DOCKER_CONTENT_TRUST"} for path in paths]
    return {"version": version, "reason": "no package tells", "content_trust": found}


def test_content_trust_reaches_shells_sudo_and_units() -> None:
    look = obs.stock(client=client("26.1.5+dfsg1"))
    plan = planned(NOTARY, look)
    texts = {op["path"]: op["content"].splitlines()[-1] for op in plan["operations"]}
    server = "DOCKER_CONTENT_TRUST_SERVER=https://notary.example:4443"
    assert texts == {
        look_trust.SHELLS: f"export DOCKER_CONTENT_TRUST=1 {server}",
        look_trust.SUDO: 'Defaults env_keep += "DOCKER_CONTENT_TRUST DOCKER_CONTENT_TRUST_SERVER"',
        look_trust.SYSTEMD: f'DefaultEnvironment="DOCKER_CONTENT_TRUST=1" "{server}"',
    }
    modes = {op["path"]: op["mode"] for op in plan["operations"]}
    assert modes[look_trust.SUDO] == "0440"
    there = after(plan, look)
    there["client"] = client("26.1.5", look_trust.SHELLS)  # ours is no left-over
    assert states(planned(NOTARY, there)) == {"content trust": "ok"}
    assert set(changes(planned({}, there)).values()) == {"file_absent"}
    without = obs.stock(client=client("20.10.24"), trust={"sudo": False})
    assert look_trust.SUDO not in changes(planned(NOTARY, without))


@pytest.mark.parametrize(
    ("version", "reason"),
    [("29.0.0", "ignores it"), ("30.1", "ignores it"), (None, "no package tells")],
)
def test_content_trust_is_refused_where_it_does_nothing(version: str | None, reason: str) -> None:
    look = after(planned(NOTARY, obs.stock(client=client("28.5.2"))))
    look["client"] = client(version)
    plan = planned(NOTARY, look)
    assert set(changes(plan).values()) == {"file_absent"}
    row = plan["settings"][0]
    assert (row["setting"], row["state"]) == ("content trust", "blocked")
    assert reason in row["reason"]


def test_a_file_in_the_way_of_content_trust_blocks_it() -> None:
    look = obs.stock(client=client("26.1.5"))
    look["trust"]["files"] = [{"path": look_trust.SUDO, "version": "v1", "sha256": None}]
    plan = planned(NOTARY, look)
    assert plans.is_empty(plan)
    assert states(plan) == {"content trust": "blocked"}


@pytest.mark.parametrize(("version", "told"), [("26.1.5", "not pulled"), ("29.0", "ignores it")])
def test_settings_of_others_are_named_and_left(version: str, told: str) -> None:
    plan = planned({}, obs.stock(client=client(version, "/etc/environment")))
    assert plans.is_empty(plan)
    (row,) = plan["settings"]
    assert row["setting"] == "DOCKER_CONTENT_TRUST in /etc/environment"
    assert (row["state"], told in row["reason"]) == ("unmanaged", True)


# -- refusals --------------------------------------------------------------------------------------
def rule(**more: typing.Any) -> Json:
    return {"keys": KEYS, "policy": [{**SHOP, **more}]}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ([], "mapping of the docker_trust variables"),
        ({"other": 1}, "mapping of the docker_trust variables"),
        ({"default": "signed"}, "docker_trust_default"),
        ({"policy": {}}, "docker_trust_policy"),
        ({"policy": ["x"]}, r"docker_trust_policy\[0\]"),
        (rule(key="release"), r"\[0\]\.key is"),
        (rule(require="sign"), r"\[0\]\.require"),
        (rule(keys=["releas"]), "did you mean release"),
        (rule(keys="release"), "list of names"),
        (rule(keys=[]), "who must have signed"),
        (rule(require="digest"), "go with require: signed alone"),
        (rule(offline="yse"), r"\[0\]\.offline"),
        (rule(pattern="nginx"), "registry and repository"),
        (rule(pattern="library/nginx"), "registry and repository"),
        (rule(pattern="docker.io/library/nginx:1.27"), "no tag, no digest"),
        (rule(pattern="docker.io/nginx@sha256:0"), "no tag, no digest"),
        (rule(pattern="index.docker.io/*"), "is docker.io"),
        (rule(pattern=7), "registry and repository"),
        (rule(identity={"issuer": "https://i"}), "issuer: URL"),
        (rule(identity={"issuer": "http://i", "subject": "s"}), "https URL"),
        (rule(identity={"issuer": "https://i", "subject_regexp": ".*"}), "begin it with"),
        ({**POLICY, "policy": [SHOP, SHOP]}, "never reached"),
        ({**POLICY, "policy": [{**HUB, "pattern": "*"}, SHOP]}, "never reached"),
        ({"keys": []}, "mapping of names"),
        ({"keys": {"A b": PUBLIC}}, "lower-case letters"),
        ({"keys": {"../x": PUBLIC}}, "lower-case letters"),
        ({"keys": {"a": 1}}, "PEM"),
        ({"keys": {"a": "no key"}}, "BEGIN PUBLIC KEY"),
        ({"keys": {"a": {"key": PUBLIC, "revoked": "yse"}}}, "true or false"),
        ({"keys": {"a": {"key": PUBLIC, "valid": True}}}, "PEM"),
        ({"keys": {"a": {"key": PUBLIC, "expires": "soon"}}}, "last day, such as 2027-06-30"),
        ({"content_trust": True}, "https URL"),
        ({"content_trust": "http://notary.example"}, "https URL"),
        ({"content_trust": "https://user:pw@notary.example"}, "https URL"),
        ({"content_trust": 'https://n.example" X="'}, "https URL"),
        ({"content_trust": "https://notary.docker.io"}, "2026-12-08"),
        ({"content_trust": "https://docker.io"}, "2026-12-08"),
    ],
)
def test_a_wrong_policy_is_refused_with_the_fix(raw: Json, said: str) -> None:
    with pytest.raises(AnsibleFilterError, match=said):
        docker_trust_plan.docker_trust_plan(obs.stock(), raw, PROGRAM)


@pytest.mark.parametrize("text", [PRIVATE, {"key": PRIVATE}, PUBLIC + PRIVATE])
def test_a_private_key_is_refused_and_not_shown(text: object) -> None:
    with pytest.raises(PolicyError, match="belongs to who signs alone") as caught:
        planned({"keys": {"release": text}})
    assert PRIVATE.splitlines()[1] not in str(caught.value)


@pytest.mark.parametrize("section", ["engine", "trust", "client", "bulkhead"])
def test_a_look_that_lacks_a_section_is_refused(section: str) -> None:
    with pytest.raises(PolicyError, match=section):
        planned(POLICY, {**obs.stock(), section: None})


# -- authorities of registries ---------------------------------------------------------------------
def certificate() -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry.example")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder(name, name, SECRET.public_key(), 1, now, now)
    return builder.sign(SECRET, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def test_an_authority_is_placed_where_the_daemon_looks_with_the_mode_that_it_is_to_have() -> None:
    raw = {"registry_cas": {"r.example:5000": f"a comment\n{certificate()}"}}
    plan = planned(raw)
    (operation,) = plan["operations"]
    assert (operation["path"], operation["mode"]) == (
        "/etc/docker/certs.d/r.example:5000/ca.crt",
        "0444",
    )
    assert operation["content"].startswith("-----BEGIN CERTIFICATE-----")
    assert states(planned(raw, after(plan))) == {"authority of r.example:5000": "ok"}
    theirs = obs.stock()
    theirs["trust"]["files"] = [{"path": operation["path"], "version": "v1", "sha256": "other"}]
    assert states(planned(raw, theirs)) == {"authority of r.example:5000": "blocked"}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ([], "mapping of registries"),
        ({"../x": "a"}, "HOST or HOST:PORT"),
        ({"https://r": "a"}, "HOST or HOST:PORT"),
        ({"r": 7}, "certificates alone"),
        ({"r": "no certificate"}, "certificates alone"),
        ({"r": PRIVATE}, "certificates alone"),
    ],
)
def test_what_is_no_authority_is_refused_and_not_shown(raw: object, said: str) -> None:
    with pytest.raises(PolicyError, match=said) as caught:
        planned({"registry_cas": raw})
    assert PRIVATE.splitlines()[1] not in str(caught.value)
