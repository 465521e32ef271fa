"""Attacks on the controller: read, chosen, made into containers, and judged by what a host answers."""

from __future__ import annotations

import json
import pathlib
import typing

import jsonschema
import pytest

from ansible_collections.bulkhead.hardening.plugins.action import docker_host_prove
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    attacks,
    proof_report,
    report,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import PolicyError
from tests.unit.checkout import ROOT
from tests.unit.test_door import action
from tests.unit.test_report import HOSTILE

Json = dict[str, typing.Any]

SCHEMA = json.loads((ROOT / "docs" / "schemas" / "proof.schema.json").read_text())

HEAD = "title: A\ntopic: pids\nwhy: B\nstopped_by: C\n"
BODY = "\n\ndef attack():\n    return []\n"


def source(fields: str = "", body: str = BODY, head: str = HEAD) -> str:
    """Return the text of an attack."""
    return f'"""\n{head}{fields}"""\n{body}'


def attack(name: str = "one_attack", fields: str = "", **more: str) -> attacks.Attack:
    """Return an attack with some fields."""
    return attacks.parse(name, source(fields, **more), f"{name}.py")


NEIGHBOUR = BODY + "\n\ndef neighbour(ready):\n    ready()\n"


# -- reading -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "named"),
    [
        (source(head="title: A\n"), "topic"),
        (source(head=HEAD.replace("pids", "pid")), "did you mean pids"),
        (source("second: 5\n"), "did you mean seconds"),
        (source("seconds: 0\n"), "from 1 to"),
        (source("seconds: true\n"), "from 1 to"),
        (source("checks: '5.29'\n"), "a list of texts"),
        (source("network: bridge\n"), "default, own"),
        (source("weakened: {network: bridge}\n"), "weakened.network"),
        (source("neighbour: {network: own}\n", body=NEIGHBOUR), "neighbour.network"),
        (source("unshown: [here]\n"), "give a text"),
        (source("falco: [one]\n"), "give a text"),
        (source("falco: One\nunnoticed: none\n"), "leave it, or falco, out"),
        (source("options: {cap_ad: [A]}\n"), "did you mean cap_add"),
        (source("options: {cap_add: SYS_ADMIN}\n"), "cap_add"),
        (source("options: [privileged]\n"), "a map of options"),
        (source("options: {volumes: ['/etc:/host']}\n"), "/etc:/host"),
        (source("weakened: {volumes: ['{scratch}/../etc:/host']}\n"), "scratch"),
        (source("options: {volumes: ['/etc/..']}\n"), "/etc/.."),
        (source(body="\n\nx = 1\n"), "must define attack"),
        (source("neighbour: {}\n"), "go together"),
        (source(body=NEIGHBOUR), "go together"),
        ('"""just words"""' + BODY, "must be YAML"),
        (BODY, "must be YAML"),
        (source(body="\n\ndef attack(:\n"), "cannot be read"),
    ],
)
def test_a_file_that_is_no_attack_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(PolicyError) as refused:
        attacks.parse("one_attack", text, "one_attack.py")
    assert named in str(refused.value)
    assert "one_attack" in str(refused.value)


def test_attacks_of_ones_own_join_those_of_the_collection(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mine_too.py").write_text(source())
    found = attacks.read([tmp_path])
    assert set(attacks.read()) < set(found)
    assert found["mine_too"].title == "A"


def test_an_id_that_is_there_already_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "pids_fork_bomb.py").write_text(source())
    with pytest.raises(PolicyError, match="rename"):
        attacks.read([tmp_path])


def test_a_folder_that_is_missing_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(PolicyError, match="no such directory"):
        attacks.read([tmp_path / "absent"])


def test_a_mistyped_name_never_chooses_nothing() -> None:
    with pytest.raises(PolicyError, match="did you mean pids_fork_bomb"):
        attacks.select(attacks.read(), ["pids_fork_bom"])


def test_topics_and_ids_choose() -> None:
    found = {
        "b_one": attack("b_one"),
        "a_two": attack("a_two"),
        "c_net": attack("c_net", head=HEAD.replace("pids", "network")),
        "d_cap": attack("d_cap", head=HEAD.replace("pids", "capabilities")),
    }
    assert [item.id for item in attacks.select(found, ["pids", "c_net"])] == [
        "a_two",
        "b_one",
        "c_net",
    ]
    assert next(item.id for item in attacks.select(found, [])) == "d_cap"


# -- containers ----------------------------------------------------------------------------------
def test_attacks_that_want_the_same_container_share_it() -> None:
    chosen = [
        attack("one_a"),
        attack("one_b", "weakened: {privileged: true}\n"),
        attack("one_c", "weakened: {privileged: true}\n"),
        attack("one_d", "options: {user: '4242'}\nweakened: {cap_add: [ALL]}\n"),
    ]
    made = attacks.jobs(chosen, ["default", "weakened"])
    together = [(job["variant"], [item["id"] for item in job["attacks"]]) for job in made]
    assert together == [
        ("default", ["one_a", "one_b", "one_c"]),
        ("default", ["one_d"]),
        ("weakened", ["one_b", "one_c"]),
        ("weakened", ["one_d"]),
    ]
    assert made[3]["config"] == {"User": "4242"}
    assert made[3]["host_config"] == {"CapAdd": ["ALL"]}
    assert len({job["name"] for job in made}) == len(made)


def test_attacks_with_neighbours_are_kept_apart() -> None:
    chosen = [attack(name, "neighbour: {}\n", body=NEIGHBOUR) for name in ("one_a", "one_b")]
    assert len(attacks.jobs(chosen, ["default"])) == 2


def test_a_weakened_container_may_have_another_network() -> None:
    chosen = [attack(fields="network: none\nweakened: {network: own, privileged: true}\n")]
    made = attacks.jobs(chosen, ["default", "weakened"])
    assert [(job["network"], job["host_config"]) for job in made] == [
        ("none", {}),
        ("own", {"Privileged": True}),
    ]


def test_every_attack_of_the_collection_breaches_somewhere_or_says_where() -> None:
    silent = [
        item.id
        for item in attacks.read().values()
        if not item.is_work and item.weakened is None and item.unshown is None
    ]
    assert silent == []


def test_limits_are_given_as_the_api_takes_them() -> None:
    limited = attack(fields="options: {ulimits: {nproc: {Soft: 5, Hard: 6}}, pids_limit: 7}\n")
    (job,) = attacks.jobs([limited], ["default"])
    assert job["host_config"] == {
        "Ulimits": [{"Name": "nproc", "Soft": 5, "Hard": 6}],
        "PidsLimit": 7,
    }


# -- verdicts ------------------------------------------------------------------------------------
def tries(*outcomes: str) -> list[Json]:
    """Return tries with these outcomes."""
    return [{"what": f"w{n}", "outcome": item, "detail": "E"} for n, item in enumerate(outcomes)]


def judged(said: Json, topic: str = "pids") -> Json:
    """Return the row of one attack for what a host said of it."""
    chosen = [attack(head=HEAD.replace("pids", topic))]
    asked = attacks.jobs(chosen, ["default"])
    row = {"id": "one_attack", "container": asked[0]["name"], **said}
    (found,) = attacks.judge(chosen, asked, {"results": [row], "containers": []})
    return found


@pytest.mark.parametrize(
    ("outcomes", "attacked", "worked"),
    [
        (["held"], "held", "broken"),
        (["breached"], "breached", "works"),
        (["held", "breached"], "breached", "broken"),
        (["held", "error"], "error", "broken"),
        (["breached", "error"], "breached", "error"),
        (["held", "not_applicable"], "held", "broken"),
        (["not_applicable"], "not_applicable", "not_applicable"),
        (["nonsense"], "error", "error"),
        ([], "error", "error"),
    ],
)
def test_one_breach_is_a_breach_and_a_doubt_is_no_hold(
    outcomes: list[str], attacked: str, worked: str
) -> None:
    assert judged({"tries": tries(*outcomes)})["outcome"] == attacked
    assert judged({"tries": tries(*outcomes)}, "work")["outcome"] == worked


def test_a_sweep_says_how_many_were_blocked() -> None:
    few, many = ["held"] * 4, ["held"] * 6 + ["not_applicable"]
    assert "blocked" not in judged({"tries": tries(*few)})["reason"]
    assert judged({"tries": tries(*many)})["reason"].startswith("6 of 6 blocked; w0: E;")
    breached = judged({"tries": tries(*many, "breached")})
    assert breached["reason"].startswith("6 of 7 blocked; w7: E")
    assert breached["blocked"] == 6
    lines = proof_report.summary({"attacks": [judged({"tries": tries(*many)})]})
    assert lines[1].endswith("  6 of 6 blocked")


@pytest.mark.parametrize(
    ("fields", "events", "detected"),
    [
        ("falco: One", [{"rule": "Two"}, {"rule": "One"}], "detected"),
        ("falco: One", [{"rule": "Two"}], "missed"),
        ("falco: One", [], "missed"),
        ("falco: One", None, None),  # nobody watches there
        ("falco: One", "One", None),
        ("unnoticed: everybody does it", [{"rule": "One"}], None),
    ],
)
def test_an_attack_is_detected_by_the_rule_that_it_names(
    fields: str, events: object, detected: str | None
) -> None:
    chosen = [attack(fields=fields + "\n")]
    asked = attacks.jobs(chosen, ["default"])
    said = {
        "id": "one_attack",
        "container": asked[0]["name"],
        "tries": tries("held"),
        "events": events,
    }
    (row,) = attacks.judge(chosen, asked, {"results": [said], "containers": []})
    assert (row["outcome"], row["detected"]) == ("held", detected)
    assert "events" not in row


def test_what_the_daemon_refuses_because_of_user_namespaces_has_held() -> None:
    refusal = {
        "error": "POST /containers/create: 400 privileged mode is incompatible with user namespaces"
    }
    assert judged(refusal)["outcome"] == "held"
    assert judged(refusal, "work")["outcome"] == "error"


@pytest.mark.parametrize("error", ["500 no space left on device", "the container ended with 137"])
def test_what_fails_for_another_reason_has_not_held(error: str) -> None:
    assert judged({"error": error})["outcome"] == "error"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"results": [], "containers": []},
        {"results": ["x", 5], "containers": "y"},
        {"results": [{"id": "one_attack", "container": "0-default", "tries": ["x"]}]},
    ],
)
def test_a_host_that_answers_nonsense_has_not_held(answer: Json) -> None:
    chosen = [attack()]
    rows = attacks.judge(chosen, attacks.jobs(chosen, ["default"]), answer)
    assert [row["outcome"] for row in rows] == ["error"]


# -- the run from the controller's side ----------------------------------------------------------
@pytest.fixture(autouse=True)
def _no_base_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible.plugins.action.ActionBase.run", lambda *_: {})


ANSWER: Json = {
    "results": [
        {
            "id": "pids_fork_bomb",
            "container": "0-default",
            "tries": [{"what": HOSTILE, "outcome": "held", "detail": "EAGAIN"}],
            "error": None,
            "seconds": 1.5,
            "records": [{"at": 5.0, "kind": "apparmor", "name": HOSTILE}],
        }
    ],
    "containers": [{"name": "0-default", "kernel": {"pids_max": 1024}, "exit_code": 0}],
}


def prove(arguments: Json, answer: Json | None = None) -> Json:
    """Run the action for one attack and return its result."""
    given = {"attacks": ["pids_fork_bomb"], **arguments}
    made = action(docker_host_prove.ActionModule, given, answer or ANSWER, [])
    result: Json = made.run(None, {"inventory_hostname": "h1"})
    return result


def test_a_result_is_stored_by_its_schema(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "h1.json"
    result = prove({"document": str(target)})
    stored = json.loads(target.read_text())
    jsonschema.validate(stored, SCHEMA)
    assert stored["counts"]["held"] == result["counts"]["held"] == 1
    assert stored["attacks"][0]["kernel"] == {"pids_max": 1024}
    assert target.stat().st_mode & 0o777 == 0o600


def test_bad_settings_are_refused_before_the_host_is_asked() -> None:
    for arguments, named in (
        ({"attacks": ["pid"]}, "did you mean pids"),
        ({"variants": ["weak"]}, "docker_proof_variants"),
        ({"attack_dirs": ["/nowhere"]}, "docker_proof_attack_dirs"),
    ):
        calls: list[Json] = []
        made = action(docker_host_prove.ActionModule, arguments, ANSWER, calls)
        result = made.run(None, {"inventory_hostname": "h1"})
        assert result["failed"]
        assert named in result["msg"]
        assert calls == []


def test_a_dry_run_attacks_nothing_and_says_what_it_would() -> None:
    calls: list[Json] = []
    made = action(docker_host_prove.ActionModule, {"attacks": ["pids_fork_bomb"]}, ANSWER, calls)
    made._task.check_mode = True
    result = made.run(None, {})
    assert result["skipped"]
    assert "pids_fork_bomb" in result["msg"]
    assert calls == []


def test_an_answer_without_results_is_not_trusted() -> None:
    assert "not trusted" in prove({}, {"containers": []})["msg"]


# -- what people read ----------------------------------------------------------------------------
def test_what_hosts_say_is_inert_in_lines_and_page() -> None:
    result = prove({})
    for line in proof_report.summary(result, result):
        assert line.isprintable()
    page = report.page({}, "t", {HOSTILE: proof_report.paired(result, result)})
    assert "<script" not in page
    assert "\x1b" not in page


def test_what_was_detected_is_shown_where_falco_watched() -> None:
    result = prove({})
    assert "detection" not in report.page({}, "t", {"h1": proof_report.paired(result, None)})
    assert proof_report.summary(result)[1].split()[:2] == ["held", "A"]
    result["attacks"][0].update(detected="missed", falco="One <b>rule</b>")
    assert proof_report.summary(result)[1].split()[:2] == ["held", "MISSED"]
    page = report.page({}, "t", {"h1": proof_report.paired(result, None)})
    assert "Runtime detection" in page
    assert "<td>missed<div" in page
    assert "One &lt;b&gt;rule" in page


def test_both_outcomes_stand_beside_each_other() -> None:
    now = prove({})
    before = json.loads(json.dumps(now))
    before["attacks"][0]["outcome"] = "breached"
    lines = proof_report.summary(now, before)
    assert lines[0] == "PIDs limit"
    assert lines[1].split()[:3] == ["BREACHED", "->", "held"]
    assert lines[-1] == "1 breached -> 1 held"
    assert proof_report.summary(now)[-1] == "1 held"
