"""What Falco said of attacks: which of its events count, and what of them leaves the host."""

from __future__ import annotations

import json
import pathlib
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import falco, proof_events
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Completed
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import falco_plan
from tests.unit.test_proof_run import LINE, Engine, Hurried, job, run

Json = dict[str, typing.Any]

CONTAINER = "0123456789ab"
#: The shape of an event of Falco 0.44 with ``json_output``, from its documentation: not recorded here.
EVENT: Json = {
    "hostname": "web",
    "output": "12:00:05.5: Warning a secret=hunter2 was on the command line",
    "output_fields": {
        "container.id": CONTAINER,
        "proc.cmdline": "curl -u me:hunter2",
        "evt.time": 5,
    },
    "priority": "Warning",
    "rule": "PTRACE attached to process",
    "source": "syscall",
    "tags": ["container"],
    "time": "1970-01-01T00:00:05.500000123Z",
}
KEPT = {
    "rule": "PTRACE attached to process",
    "at": pytest.approx(5.500000123),
    "container": CONTAINER,
}


class Watched(Hurried):
    """A host whose Falco is as a test wants it."""

    active = True

    def run(self, argv: list[str], timeout: float = 60.0, stdin: bytes | None = None) -> Completed:
        state = "active" if self.active else "inactive"
        return Completed(0, f"LoadState=loaded\nActiveState={state}\nUnitFileState=enabled\n", "")


def write(host: Hurried, path: str, text: str) -> None:
    target = pathlib.Path(host.path(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("a") as stream:
        stream.write(text)


def lines(*events: Json) -> str:
    return "".join(json.dumps(event) + "\n" for event in events)


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Watched:
    """Return a host whose Falco was told by docker_falco to write its file."""
    (tmp_path / "run").mkdir()
    made = Watched(str(tmp_path))
    policy = falco_plan.Policy(enabled=True, output_file=True)
    write(made, falco.CONFIG, falco_plan.config_text(policy))
    return made


# -- one event -----------------------------------------------------------------------------------
def test_rule_time_and_container_leave_the_host_and_nothing_else() -> None:
    found = proof_events.parse(json.dumps(EVENT))
    assert found == KEPT
    assert "hunter2" not in json.dumps(found)


@pytest.mark.parametrize("time", ["1970-01-01T00:00:05.5+0000", "1970-01-01T00:00:05.5+00:00"])
def test_times_of_utc_in_any_form(time: str) -> None:
    found = proof_events.parse(json.dumps({**EVENT, "time": time}))
    assert found is not None
    assert found["at"] == 5.5


@pytest.mark.parametrize(
    "line",
    [
        "",
        "12:00:00 Warning a line of text",
        "[]",
        "5",
        "[" * 100000,
        json.dumps({**EVENT, "time": "yesterday"}),
        json.dumps({**EVENT, "rule": "a\nb"}),
        json.dumps({**EVENT, "rule": None}),
        json.dumps({**EVENT, "output_fields": None}),
        json.dumps({**EVENT, "output_fields": {"container.id": "host"}}),
        json.dumps({**EVENT, "output_fields": {"container.id": None}}),
        json.dumps({**EVENT, "output_fields": {}}),
    ],
)
def test_what_is_no_event_of_a_container_is_passed_over(line: str) -> None:
    assert proof_events.parse(line) is None


# -- the file ------------------------------------------------------------------------------------
def test_only_what_comes_from_now_on_counts(host: Watched) -> None:
    write(host, falco.EVENTS, lines(EVENT))
    events = proof_events.Events(host)
    assert events.read() == []
    write(host, falco.EVENTS, lines(EVENT) + "noise\n")
    assert events.read() == [KEPT]
    assert events.read() == []


def test_a_file_that_comes_with_the_first_event_or_is_rotated(host: Watched) -> None:
    events = proof_events.Events(host)
    assert events.read() == []
    write(host, falco.EVENTS, lines(EVENT, EVENT))
    assert events.read() == [KEPT, KEPT]
    pathlib.Path(host.path(falco.EVENTS)).write_text(lines(EVENT))
    assert events.read() == [KEPT]


def test_nobody_watches_where_falco_does_not_run_or_write(host: Watched) -> None:
    host.active = False
    assert proof_events.Events(host).read() is None
    host.active = True
    policy = falco_plan.Policy(enabled=True, output_file=False)
    pathlib.Path(host.path(falco.CONFIG)).write_text(falco_plan.config_text(policy))
    assert proof_events.Events(host).read() is None
    pathlib.Path(host.path(falco.CONFIG)).unlink()
    assert proof_events.Events(host).read() is None


# -- a run ---------------------------------------------------------------------------------------
class Noticed(Engine):
    """An engine whose container is seen by Falco while it runs."""

    def __init__(self, host: Watched, *events: Json) -> None:
        super().__init__(LINE)  # it began at 5 and ended at 6
        self._host, self._events = host, events

    def request(
        self, method: str, path: str, query: typing.Any = None, body: Json | None = None
    ) -> Json:
        answer = super().request(method, path, query, body)
        if path == "/containers/create":
            write(self._host, falco.EVENTS, lines(*self._events))
            full = CONTAINER + "c" * 52
            self.containers[full] = self.containers.pop(query["name"])
            return {"Id": full}
        return answer


def test_events_are_those_of_the_attacks_container_and_time(
    host: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {**EVENT, "output_fields": {"container.id": "ffffffffffff"}}
    early, late = ({**EVENT, "time": f"1970-01-01T00:00:0{n}Z"} for n in (4, 7))
    answer = run(host, Noticed(host, early, EVENT, other, late), job(), monkeypatch=monkeypatch)
    assert [row["events"] for row in answer["results"]] == [[KEPT]]
    assert {"began", "ended"} & set(answer["results"][0]) == set()


def test_without_falco_there_are_no_events(host: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    host.active = False
    answer = run(host, Engine(LINE), job(), monkeypatch=monkeypatch)
    assert [row["events"] for row in answer["results"]] == [None]


def test_an_attack_that_did_not_run_was_not_missed(
    host: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = run(host, Engine(refuses="no"), job(), monkeypatch=monkeypatch)
    silent = run(host, Engine("no line of an attack"), job(), monkeypatch=monkeypatch)
    assert [row["events"] for row in refused["results"] + silent["results"]] == [None, None]
