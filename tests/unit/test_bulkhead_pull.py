"""The program that pulls by policy, with a daemon and a cosign that answer as the real ones do."""

from __future__ import annotations

import base64
import functools
import json
import pathlib
import time
import types
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import trust_plan
from roles.docker_trust.files import bulkhead_pull as program
from tests.unit.fake_engine import FakeEngine
from tests.unit.test_trust_plan import KEYS, PUBLIC

Json = dict[str, typing.Any]
GOOD, EVIL = "sha256:" + "a" * 64, "sha256:" + "b" * 64
SHOP = "r.example:5000/shop"

#: As cosign verify answers: the payloads of valid signatures, or an error and another status than 0.
COSIGN = """#!/bin/sh
echo "$*" >> "{log}"
env >> "{log}"
case "$*" in *release.pub*{digest}*) cat "{answer}";;
*) printf 'Error: \\033[31m%s\\n' "error during command execution: none" >&2; exit 10;; esac
"""


def payload(digest: str) -> Json:
    return {"critical": {"image": {"docker-manifest-digest": digest}, "type": "cosign"}}


class Daemon:
    """The daemon as Engine.ask sees it: ``tags`` in the registry, ``images`` on the host by name."""

    def __init__(self) -> None:
        self.tags = {f"{SHOP}/web:1": GOOD, "docker.io/library/busybox:latest": GOOD}
        self.images: dict[str, str] = {}
        self.auths: set[str | None] = set()
        self.pulled: list[tuple[str, str]] = []
        self.error: str | None = None

    def ask(
        self, engine: program.Engine, method: str, path: str, auth: str | None = None, **query: str
    ) -> tuple[int, bytes]:
        if path.startswith("/distribution/"):
            self.auths.add(auth)
            digest = self.tags.get(path.removeprefix("/distribution/").removesuffix("/json"))
            return self._answer({"Descriptor": {"digest": digest}} if digest else None)
        if path == "/images/create":
            self.auths.add(auth)
            self.pulled.append((query["fromImage"], query["tag"]))
            if self.error is None:
                self.images[f"{query['fromImage']}@{query['tag']}"] = f"id-{query['tag'][7]}"
            rows: list[Json] = [{"status": "Pulling"}]
            rows += [{"error": self.error}] if self.error else []
            return 200, b"\r\n".join(json.dumps(row).encode() for row in rows)
        name = path.removeprefix("/images/").rpartition("/")[0]
        if method == "POST":
            self.images[f"{query['repo']}:{query['tag']}"] = self.images[name]
            return 201, b""
        return self._answer({"Id": self.images[name]} if name in self.images else None)

    @staticmethod
    def _answer(document: Json | None) -> tuple[int, bytes]:
        if document is None:
            return 404, json.dumps({"message": "manifest\x1b unknown"}).encode()
        return 200, json.dumps(document).encode()


class Place:
    """A host: its policy, its records, and what cosign was asked."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.daemon = Daemon()
        self.log = path / "log"
        self.answer = path / "answer"
        self.records = path / "bulkhead" / "trust"
        self.sign(GOOD)

    def sign(self, *digests: str) -> None:
        """Let cosign find signatures of the key release on some digests."""
        self.answer.write_text(json.dumps([payload(digest) for digest in digests]))
        text = COSIGN.format(log=self.log, digest=GOOD, answer=self.answer)
        (self.path / "cosign").write_text(text)
        (self.path / "cosign").chmod(0o755)

    def allow(self, *rules: Json, default: str = "refuse", keys: Json = KEYS) -> None:
        """Place a policy, as the role does."""
        policy = trust_plan.read({"policy": list(rules), "default": default, "keys": keys})
        document = trust_plan.document(policy)
        for rule in document["rules"]:
            for key in rule["keys"]:
                key["file"] = str(self.path / pathlib.Path(key["file"]).name)
                pathlib.Path(key["file"]).write_text(PUBLIC)
        (self.path / "policy.json").write_text(json.dumps(document))

    def pull(self, *images: str) -> int:
        words = ["--policy", str(self.path / "policy.json"), "--records", str(self.records)]
        return program.main([*words, "--json", *images])

    @property
    def rows(self) -> list[Json]:
        return program.read_records(str(self.records / program.RECORDS_FILE))


SIGNED: Json = {"pattern": f"{SHOP}/*", "require": "signed", "keys": ["release"], "offline": True}


@pytest.fixture
def place(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path)
    monkeypatch.setattr(program, "PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(program.Engine, "ask", lambda *a, **k: made.daemon.ask(*a, **k))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    made.allow(SIGNED)
    return made


def said(capsys: pytest.CaptureFixture[str]) -> list[Json]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


# -- names -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "repository", "tag", "digest"),
    [
        ("nginx", "docker.io/library/nginx", "latest", None),
        ("index.docker.io/nginx:1", "docker.io/library/nginx", "1", None),
        ("team/app:v1.2", "docker.io/team/app", "v1.2", None),
        ("r.example:5000/shop/web", "r.example:5000/shop/web", "latest", None),
        ("localhost/web@" + GOOD, "localhost/web", None, GOOD),
        (f"r.example/a_b/c-d__e:x@{GOOD}", "r.example/a_b/c-d__e", "x", GOOD),
    ],
)
def test_names_are_taken_apart_as_the_engine_does(
    name: str, repository: str, tag: str | None, digest: str | None
) -> None:
    found = program.parse(name)
    assert (found.repository, found.tag, found.digest) == (repository, tag, digest)


@pytest.mark.parametrize(
    "name",
    ["", "-f", "Web", "r.example/../x", "r.example//x", "a b", "x@sha256:0", "x@" + GOOD[:-1] + "G", "a:",
     "r.example/x?y", "r.ex/a\nb"],
)  # fmt: skip
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(program.Failure) as caught:
        program.parse(name)
    assert caught.value.code == program.USAGE


# -- pulls -----------------------------------------------------------------------------------------
def test_a_signed_image_is_pulled_by_the_digest_that_was_verified_tagged_and_recorded(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.pull(f"{SHOP}/web:1") == 0
    assert place.daemon.pulled == [(f"{SHOP}/web", GOOD)]
    assert place.daemon.images[f"{SHOP}/web:1"] == "id-a"
    asked = place.log.read_text().splitlines()[0]
    assert asked.startswith("verify --output json --key ")
    assert asked.endswith(f"release.pub --insecure-ignore-tlog=true {SHOP}/web@{GOOD}")
    (row,) = place.rows
    assert (row["digest"], row["rule"], row["key"]) == (GOOD, SIGNED["pattern"], "release")
    assert row["key_sha256"] == trust_plan.read({"keys": KEYS}).keys["release"].sha256
    (answer,) = said(capsys)
    assert (answer["changed"], answer["status"], "changed" in row) == (True, 0, False)
    assert place.records.stat().st_mode & 0o777 == 0o700
    assert (place.records / program.RECORDS_FILE).stat().st_mode & 0o777 == 0o600


def test_a_second_pull_changes_nothing_and_replaces_its_record(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (place.pull(f"{SHOP}/web:1"), place.pull(f"{SHOP}/web:1")) == (0, 0)
    assert [answer["changed"] for answer in said(capsys)] == [True, False]
    assert len(place.rows) == 1
    place.daemon.tags[f"{SHOP}/web:1"] = EVIL
    assert place.pull(f"{SHOP}/web:1") == program.REFUSED
    assert place.daemon.images[f"{SHOP}/web:1"] == "id-a"


def test_only_the_newest_records_are_kept(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "MOST_RECORDS", 2)
    for number in range(4):
        program.record({"tag": str(number)}, str(place.records))
    assert [row["tag"] for row in place.rows] == ["2", "3"]


@pytest.mark.parametrize("digests", [[EVIL], [GOOD, EVIL], []])
def test_a_signature_on_something_else_is_refused(place: Place, digests: list[str]) -> None:
    place.sign(*digests)
    assert place.pull(f"{SHOP}/web:1") == program.REFUSED
    assert place.daemon.pulled == []
    assert place.rows == []


def test_what_cosign_refuses_is_refused_with_its_reason(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.daemon.tags[f"{SHOP}/web:1"] = EVIL
    assert place.pull(f"{SHOP}/web:1") == program.REFUSED
    assert said(capsys)[0]["reason"].endswith("(release: none)")
    assert place.daemon.pulled == []


def test_any_valid_key_will_do_and_a_revoked_one_never(place: Place) -> None:
    two = {"former": PUBLIC, **KEYS}
    place.allow({**SIGNED, "keys": ["former", "release", "old"]}, keys=two)
    assert place.pull(f"{SHOP}/web:1") == 0
    assert place.rows[0]["key"] == "release"
    place.allow({**SIGNED, "keys": ["old"]})
    assert place.pull(f"{SHOP}/web:1") == program.REFUSED


def test_a_key_verifies_to_the_end_of_its_last_day(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place.allow(SIGNED, keys={"release": {"key": PUBLIC, "expires": "2027-06-30"}})
    for at, code in ((1814399999, 0), (1814400000, program.REFUSED)):  # the end of that day
        clock = types.SimpleNamespace(
            time=lambda: 0.0, strftime=time.strftime, gmtime=functools.partial(time.gmtime, at)
        )
        monkeypatch.setattr(program, "time", clock)
        assert place.pull(f"{SHOP}/web:1") == code
    assert "revoked or has expired" in said(capsys)[-1]["reason"]


def test_an_identity_is_asked_for_with_its_issuer(place: Place) -> None:
    identity = {"issuer": "https://issuer.example", "subject": "ci@example.com"}
    place.allow({"pattern": "*", "require": "signed", "identity": identity, "offline": True})
    assert place.pull(f"{SHOP}/web:1") == program.REFUSED
    asked = place.log.read_text().splitlines()[0]
    assert "--certificate-identity ci@example.com --certificate-oidc-issuer https://issuer" in asked
    assert "--offline=true" in asked
    assert "insecure" not in asked


def test_a_key_that_is_not_the_policys_is_not_used(place: Place) -> None:
    (place.path / "release.pub").write_text(PUBLIC.replace("M", "N", 1))
    assert place.pull(f"{SHOP}/web:1") == program.USAGE
    assert not place.log.exists()


def test_variables_of_the_caller_do_not_steer_cosign(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSIGN_REPOSITORY", "evil.example/signatures")
    monkeypatch.setenv("SIGSTORE_ROOT_FILE", "/tmp/root.pem")
    assert place.pull(f"{SHOP}/web:1") == 0
    assert "evil.example" not in place.log.read_text()
    assert "SIGSTORE" not in place.log.read_text()


def test_without_cosign_what_must_be_signed_is_refused(place: Place) -> None:
    (place.path / "cosign").unlink()
    assert place.pull(f"{SHOP}/web:1") == program.NO_COSIGN
    assert place.daemon.pulled == []


@pytest.mark.parametrize(
    ("default", "name", "code"),
    [
        ("refuse", "busybox", program.REFUSED),
        ("refuse", "busybox@" + GOOD, program.REFUSED),
        ("digest", "busybox", program.REFUSED),
        ("digest", "busybox@" + GOOD, program.OK),
        ("nothing", "busybox", program.OK),
        ("nothing", "other", program.NOT_PULLED),
        ("nothing", "BUSYBOX", program.USAGE),
    ],
)
def test_the_rest_is_pulled_as_the_default_says(
    place: Place, default: str, name: str, code: int
) -> None:
    place.allow(SIGNED, default=default)
    assert place.pull(name) == code
    assert [row["require"] for row in place.rows] == ([default] if code == program.OK else [])


def test_one_that_is_refused_does_not_keep_the_others(place: Place) -> None:
    assert place.pull("busybox", f"{SHOP}/web:1", f"{SHOP}/none:1") == program.NOT_PULLED
    assert len(place.rows) == 1


def test_what_the_registry_says_is_shown_without_control_characters(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.pull(f"{SHOP}/none:1") == program.NOT_PULLED
    assert said(capsys)[0]["reason"] == "not resolved: manifest? unknown"


def test_a_pull_that_fails_on_the_way_is_no_pull(place: Place) -> None:
    place.daemon.error = "manifest verification failed for digest"
    assert place.pull(f"{SHOP}/web:1") == program.NOT_PULLED
    assert place.rows == []


def test_a_pull_that_cannot_be_recorded_says_so(place: Place) -> None:
    place.records.parent.write_text("")
    assert place.pull(f"{SHOP}/web:1") == program.NOT_RECORDED
    assert place.daemon.images[f"{SHOP}/web:1"] == "id-a"


# -- the policy ------------------------------------------------------------------------------------
def test_the_first_rule_that_fits_decides(place: Place) -> None:
    place.allow({"pattern": f"{SHOP}/w?b", "require": "nothing"}, SIGNED)
    assert place.pull(f"{SHOP}/web:1") == 0
    assert place.rows[0]["rule"] == f"{SHOP}/w?b"


def test_a_demand_that_is_not_known_is_a_refusal(place: Place) -> None:
    path = place.path / "policy.json"
    path.write_text(path.read_text().replace('"signed"', '"signed-twice"'))
    assert place.pull(f"{SHOP}/web:1") == program.REFUSED


@pytest.mark.parametrize("text", [None, "{", "[]", '{"schema": "bulkhead.trust/2"}'])
def test_without_a_policy_nothing_is_pulled(place: Place, text: str | None) -> None:
    path = place.path / "policy.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    assert place.pull("busybox") == program.USAGE
    assert place.daemon.pulled == []


def test_a_policy_that_others_may_write_is_not_followed(place: Place) -> None:
    (place.path / "policy.json").chmod(0o664)
    assert place.pull(f"{SHOP}/web:1") == program.USAGE


# -- credentials -----------------------------------------------------------------------------------
def test_what_docker_login_left_goes_to_its_registry_alone_and_is_not_shown(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.allow(SIGNED, default="nothing")
    auth = base64.b64encode(b"lab:hunter2").decode()
    (place.path / "docker").mkdir()
    config = {"auths": {"r.example:5000": {"auth": auth}}}
    (place.path / "docker" / "config.json").write_text(json.dumps(config))
    assert place.pull("busybox") == 0
    assert place.daemon.auths == {None}
    assert place.pull(f"{SHOP}/web:1") == 0
    (header,) = place.daemon.auths - {None}
    decoded = json.loads(base64.urlsafe_b64decode(str(header)))
    assert decoded == {"username": "lab", "password": "hunter2", "serveraddress": "r.example:5000"}
    shown = capsys.readouterr()
    assert "hunter2" not in shown.out + shown.err + json.dumps(place.rows)


@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        ({}, None),
        ({"auth": "!"}, None),
        ({"auth": ""}, None),
        ({"identitytoken": "t"}, {"identitytoken": "t", "serveraddress": "r.example"}),
    ],
)
def test_other_entries_of_a_login(tmp_path: pathlib.Path, entry: Json, wanted: Json | None) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": {"r.example": entry}}))
    header = program.registry_auth("r.example", str(path))
    assert (json.loads(base64.urlsafe_b64decode(header)) if header else None) == wanted
    assert program.registry_auth("docker.io", str(path)) is None
    assert program.registry_auth("r.example", str(tmp_path / "none")) is None


# -- the daemon's socket ---------------------------------------------------------------------------
def test_the_daemon_is_asked_over_its_socket(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "docker.sock"
    engine = program.Engine(str(path), 5.0)
    with pytest.raises(program.Failure, match="the daemon at"):
        engine.identifier("x")
    daemon = FakeEngine(path)
    daemon.answers["/images/r.example/x@%s/json" % GOOD] = {"Id": "sha256:1"}
    daemon.answers["/distribution/r.example/x:1/json"] = {"Descriptor": {"digest": GOOD}}
    daemon.start()
    try:
        assert engine.identifier("r.example/x@" + GOOD) == "sha256:1"
        assert engine.identifier("r.example/y@" + GOOD) is None
        assert engine.resolve(program.parse("r.example/x:1"), None) == GOOD
    finally:
        daemon.stop()


# -- for people ------------------------------------------------------------------------------------
def test_lines_for_people(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.allow(SIGNED, default="nothing")
    words = ["--policy", str(place.path / "policy.json"), "--records", str(place.records)]
    assert program.main([*words, f"{SHOP}/web:1", "busybox", "none"]) == program.NOT_PULLED
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        f"{SHOP}/web:1 {GOOD}: signed by release, rule {SHOP}/*",
        f"docker.io/library/busybox:latest {GOOD}: by digest, unverified, rule none",
    ]
    assert shown.err == "bulkhead-pull: none: not resolved: manifest? unknown\n"
