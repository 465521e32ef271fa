"""The attacks on image trust: what is pulled by policy, what is refused and why, and what goes past it."""

from __future__ import annotations

import json
import pathlib
import typing

import pytest

Json = dict[str, typing.Any]
Docker = typing.Callable[..., str]
Play = typing.Callable[..., str]

SHOP = "registry.test:5000/shop"
PULL = "/usr/local/sbin/bulkhead-pull"
RECORDS = "/var/lib/bulkhead/trust/verifications.jsonl"

#: Images, with the exit status of a pull by policy and what it says.
REFUSED = {
    "wrong:1": (3, "no matching signatures"),
    "unsigned:1": (3, "no signatures found"),
    "retagged:1": (3, "no signatures found"),
    "stolen:1": (3, "digest"),
    "swapped:1": (4, "manifest verification failed"),
}


@pytest.fixture
def records(host: typing.Any) -> list[Json]:
    """Return what bulkhead-pull recorded."""
    return [json.loads(line) for line in host.check_output(f"cat {RECORDS}").splitlines()]


def identifier(docker: Docker, image: str) -> str:
    return docker(f"image inspect --format '{{{{.Id}}}}' {SHOP}/{image}")


def images(docker: Docker) -> set[str]:
    form = "--format '{{.Repository}}:{{.Tag}}'"
    return set(docker(f"image ls {form} --filter 'reference={SHOP}/*'").split())


def test_only_what_the_right_key_signed_is_pulled_and_runs(
    host: typing.Any, docker: Docker
) -> None:
    done = host.run(f"{PULL} {SHOP}/right:1")
    assert (done.rc, "signed by release" in done.stdout) == (0, True), done.stderr
    assert docker(f"run --rm --pull never {SHOP}/right:1 /bin/sh -c 'id -u'").isdigit()


def test_attacks_are_refused_and_leave_no_image(host: typing.Any, docker: Docker) -> None:
    names = [f"{SHOP}/{image}" for image in REFUSED]
    done = host.run(f"{PULL} --json {' '.join(names)}")
    assert done.rc == 4
    said = {row["image"]: row for row in map(json.loads, done.stdout.splitlines())}
    for name, (status, reason) in zip(names, REFUSED.values()):
        assert (said[name]["status"], reason in said[name]["reason"]) == (status, True), said[name]
    assert images(docker).isdisjoint(names)
    assert host.run(f"docker run --rm --pull never {SHOP}/unsigned:1 /bin/sh -c true").rc == 125


def test_what_no_rule_names_is_refused(host: typing.Any) -> None:
    done = host.run(f"{PULL} registry.test:5000/other/x:1")
    assert (done.rc, "the policy rules it out" in done.stderr) == (3, True)


@pytest.mark.parametrize(
    "way", ["bash -lc '%s'", "bash -lc 'sudo %s'", "systemd-run --quiet --wait --pipe %s"]
)
def test_content_trust_refuses_an_image_without_trust_data(host: typing.Any, way: str) -> None:
    done = host.run(way % f"docker pull {SHOP}/unsigned:1")
    assert done.rc == 1
    assert "trust data" in done.stderr


def test_content_trust_files_are_as_sudo_wants_them(host: typing.Any) -> None:
    assert host.run("visudo --check").rc == 0
    assert host.file("/etc/sudoers.d/bulkhead-content-trust").mode == 0o440


def test_the_record_says_by_whom(records: list[Json], docker: Docker) -> None:
    (row,) = [row for row in records if row["repository"] == f"{SHOP}/right"]
    assert (row["tag"], row["key"], row["require"]) == ("1", "release", "signed")
    inspected = json.loads(docker(f"image inspect {SHOP}/right:1"))[0]
    assert f"{SHOP}/right@{row['digest']}" in inspected["RepoDigests"]
    assert row["image_id"] == inspected["Id"]


def test_a_key_is_revoked_and_another_expired(
    host: typing.Any, docker: Docker, play: Play, notes: pathlib.Path
) -> None:
    """A pull by playbook, the keys' end, and an audit that sees both it and a pull past the policy."""
    said = play("pull", bulkhead_images=[f"{SHOP}/former:1"])
    assert "signed by former" in said
    right = identifier(docker, "right:1")
    public = {
        name: (notes / "public" / f"{name}.pub").read_text()
        for name in ("release", "former", "other")
    }
    rule = {"pattern": f"{SHOP}/*", "require": "signed", "keys": list(public), "offline": True}
    authority = (notes / "public" / "cert.pem").read_text()
    play(
        "harden",
        docker_harden_roles=["docker_trust"],
        docker_trust_keys={
            "release": {"key": public["release"], "expires": "2099-12-31"},
            "former": {"key": public["former"], "revoked": True},
            "other": {"key": public["other"], "expires": "2020-01-31"},
        },
        docker_trust_policy=[rule],
        docker_trust_default="refuse",
        docker_trust_registry_cas={"registry.test:5000": authority},
    )
    assert not host.file("/etc/bulkhead/trust/keys/former.pub").exists
    assert not host.file("/etc/profile.d/bulkhead-content-trust.sh").exists
    # The key other signed wrong:1, and its day is over; that of release is not, so that it is asked.
    names = [f"{SHOP}/former:1", f"{SHOP}/wrong:1"]
    said = play("pull", fails=True, bulkhead_images=names)
    for name in names:
        assert f"{name}: not signed by anybody who is trusted (release:" in said
    # Whoever has the socket goes past it, which is said, not prevented.
    docker(f"pull {SHOP}/stolen:1")
    docker(f"tag {SHOP}/stolen:1 {SHOP}/right:1")
    play(
        "audit",
        docker_audit_ids=["4.12", "BH-29", "BH-30"],
        docker_audit_report_dir=str(notes / "audit"),
        docker_audit_fail_on=[],
    )
    former, evil = (identifier(docker, name) for name in ("former:1", "right:1"))
    assert judged(notes, "BH-29") == {former: "fail", right: "pass"}
    found = judged(notes, "4.12")
    assert (found[former], found[evil], found[right]) == ("fail", "fail", "pass")
    assert {name for name, verdict in judged(notes, "BH-30").items() if verdict == "fail"} == {evil}


def judged(notes: pathlib.Path, check: str) -> dict[str, str]:
    """Return the verdicts of a check by image; those to which it does not apply left out."""
    (host,) = json.loads((notes / "audit" / "result.json").read_text())["hosts"]
    (row,) = (row for row in host["results"] if row["check"] == check)
    names = [item["id"] for item in host["objects"]]
    return {
        names[item["object"]]: item["verdict"]
        for item in row["items"]
        if item["verdict"] != "not_applicable"
    }


def test_uninstall_takes_all_of_it_and_leaves_the_images(
    host: typing.Any, docker: Docker, play: Play
) -> None:
    before = images(docker)
    play("uninstall")
    for path in (
        "/etc/bulkhead",
        "/etc/docker/certs.d",
        "/usr/local/sbin/bulkhead-pull",
        "/var/lib/bulkhead",
    ):
        assert not host.file(path).exists, path
    assert images(docker) == before
