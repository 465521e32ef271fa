"""A request runs detached: it ends well without its controller, and after its own death."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import subprocess
import sys
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    boot,
    detach,
    ledger,
    look,
    runner,
    runs,
    transaction_files,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Completed
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import EMPTY_PLAN

from .fakes import ActHost, Killed, act_host, file_present, json_set, plan
from .test_apply_crash import Countdown

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, as root does")

Json = dict[str, typing.Any]
DROPIN = "/etc/systemd/system/docker-.scope.d/10-bulkhead.conf"
PARAMETERS = "/etc/sysctl.d/60-bulkhead.conf"


class Unit:
    """systemd-run: runs the archive's code here and, when that is killed, what ExecStopPost says.

    ``controller_dies``: the module is killed while it waits. ``dies``: the unit's own process is.
    """

    def __init__(self, host: ActHost, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host = host
        self.argv: list[str] = []
        self.controller_dies = False
        self.stop_post = True
        original = host.run

        def run(argv: list[str], timeout: float = 60.0, stdin: bytes | None = None) -> Completed:
            if argv[0] == "systemd-run":
                return self.start(argv)
            if argv[:2] == ["systemctl", "show"] and argv[2].startswith("bulkhead-"):
                return Completed(0, "ActiveState=inactive\n", "")
            return original(argv, timeout, stdin)

        monkeypatch.setattr(host, "run", run)
        (host.base / "run/systemd/system").mkdir(parents=True, exist_ok=True)
        self._environment = monkeypatch

    def start(self, argv: list[str]) -> Completed:
        self.argv = argv
        words = argv[argv.index("-I") - 1 :]
        rc = 0
        try:
            runner.main(self.host, words[2], words[0], words[3:])
        except Killed:
            rc = 1
            if self.stop_post:
                self._environment.setenv("SERVICE_RESULT", "signal")
                self._environment.setenv("EXIT_CODE", "killed")
                self._environment.setenv("EXIT_STATUS", "KILL")
                after = next(word for word in argv if "ExecStopPost" in word).split()
                runner.main(self.host, after[2], after[0], after[3:])
        if self.controller_dies:
            raise Killed
        return Completed(rc, "", "")


def request(raw: Json | None = None) -> Json:
    return {
        "action": "recover" if raw is None else "apply",
        "plan": raw,
        "check_mode": False,
        "health_timeout": 120,
        "daemon_timeout": 180,
    }


def change(host: ActHost) -> Json:
    return plan(
        json_set(host, "live-restore", True),
        file_present(host, DROPIN, "[Scope]\nTasksMax=512\n"),
        effect="reload",
    )


def leftovers(host: ActHost) -> list[str]:
    """Return what of a run lies about: requests, answers, staged files and the unit for the boot."""
    names = []
    for directory, _, files in os.walk(host.base / "var/lib/bulkhead"):
        names += [f for f in files if f in ("request.json", "answer.json") or f.startswith(".")]
        assert all(os.stat(os.path.join(directory, f)).st_mode & 0o777 == 0o600 for f in files)
        assert os.stat(directory).st_mode & 0o777 == 0o700
    for path in (boot.PATH, boot.LINK, boot.EARLY_PATH):
        if os.path.lexists(host.path(path)):
            names.append(path)
    return names


def test_a_pipe_that_nobody_reads_is_noticed() -> None:
    reader, writer = os.pipe()
    assert detach.is_heard(writer)
    os.close(reader)
    assert not detach.is_heard(writer)
    os.close(writer)


def test_an_answer_that_nobody_reads_is_kept_for_the_next_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The controller is gone, but the module on the host lives until the end."""
    with act_host("{}", ["web"]) as host:
        Unit(host, monkeypatch)
        with monkeypatch.context() as gone:
            gone.setattr(detach, "is_heard", lambda: False)
            lost = detach.perform(host, request(change(host)))["transaction"]
        assert look.observe(host, ["bulkhead"])["bulkhead"]["unfetched_answers"] == [lost["id"]]
        (found,) = detach.perform(host, request())["earlier"]
        assert (found["id"], found["outcome"]) == (lost["id"], "committed")
        assert leftovers(host) == []


def test_an_answer_comes_back_and_nothing_lies_about(monkeypatch: pytest.MonkeyPatch) -> None:
    with act_host("{}", ["web"]) as host:
        unit = Unit(host, monkeypatch)
        answer = detach.perform(host, request(change(host)))
        assert answer["transaction"]["outcome"] == "committed", answer.get("msg")
        assert answer["earlier"] == []
        assert answer["observation"]["bulkhead"]["last_transaction"]["outcome"] == "committed"
        assert host.config() == {"live-restore": True}
        assert leftovers(host) == []
        name = "--unit=bulkhead-%s.service" % answer["transaction"]["id"]
        assert name in unit.argv
        assert detach.perform(host, request())["transaction"]["outcome"] == "nothing"
        assert len(ledger.transaction_ids(host)) == 1


def test_the_unit_for_the_boot_is_there_only_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    with act_host("{}") as host:
        Unit(host, monkeypatch)

        def refuses(document: Json) -> str | None:
            seen.append(pathlib.Path(host.path(boot.PATH)).read_text())
            assert os.path.islink(host.path(boot.LINK))
            return "no" if document.get("debug") else None

        host.daemon.refuses = refuses
        before = host.tree()
        answer = detach.perform(
            host, request(plan(json_set(host, "debug", True), effect="restart"))
        )
        assert answer["transaction"]["outcome"] == "rolled_back", answer.get("msg")
        assert seen
        assert "/var/lib/bulkhead/runner/" in seen[0]
        assert ".pyz recover" in seen[0]
        left = {path for path in host.tree() if path not in before}
        assert left == {"/etc/systemd/system/multi-user.target.wants"}
        assert leftovers(host) == []


def test_the_next_act_tells_what_became_of_a_run_without_controller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with act_host("{}", ["web"]) as host:
        unit = Unit(host, monkeypatch)
        unit.controller_dies = True
        with pytest.raises(Killed):
            detach.perform(host, request(change(host)))
        unit.controller_dies = False
        assert host.config() == {"live-restore": True}
        look = detach.perform(host, {**request(EMPTY_PLAN), "check_mode": True})["observation"]
        waiting = look["bulkhead"]["unfetched_answers"]
        assert len(waiting) == 1
        answer = detach.perform(host, request())
        assert [item["id"] for item in answer["earlier"]] == waiting
        assert answer["earlier"][0]["outcome"] == "committed"
        assert leftovers(host) == []
        assert detach.perform(host, request())["earlier"] == []


def test_an_answer_that_is_waited_for_is_not_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    with act_host("{}") as host:
        runs.make_state_directories(host)
        run = runs.Run(host, runs.new_id(host.now()))
        run.ask(request())
        run.reply({"transaction": {"id": "x"}})
        with run.held():
            assert runs.collect(host) == []
        assert runs.collect(host) == [{"id": "x"}]


@pytest.mark.parametrize("number", [1, 2, 5, 9, 13, 17, 21, 24])
def test_a_killed_unit_is_undone_at_once(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with act_host("{}", ["web"]) as host:
        Unit(host, monkeypatch)
        (host.base / boot.WANTS.lstrip("/")).mkdir(parents=True)
        old, pids = host.tree(), host.pids()
        with monkeypatch.context() as patch:
            counter = Countdown(number, True, patch)
            alive = counter.__dict__

            def main(*arguments: typing.Any) -> int:
                if arguments[3][0] == "recover":
                    alive["dead"] = False
                return original(*arguments)

            original = runner.main
            patch.setattr(runner, "main", main)
            answer = detach.perform(host, request(change(host)))
        assert answer["transaction"]["outcome"] in ("rolled_back", "committed")
        assert "its process was killed (KILL)" in answer["transaction"]["reason"]
        if answer["transaction"]["outcome"] == "rolled_back":
            assert answer["failed"]
            assert host.tree() == old
        assert host.pids() == pids
        assert leftovers(host) == []
        assert ledger.open_transaction(host) is None


def command_of(host: ActHost, path: str) -> list[str]:
    """Return the command of a unit."""
    text = pathlib.Path(host.path(path)).read_text()
    return next(x for x in text.split("\n") if x.startswith("ExecStart=")).split("=", 1)[1].split()


@pytest.mark.parametrize("early", [True, False])
def test_boot_undoes_what_a_loss_of_power_left(
    monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    """Early, the daemon begins with the old file and need not be restarted."""
    with act_host("{}") as host:
        unit = Unit(host, monkeypatch)
        unit.stop_post = False
        unit.controller_dies = True
        (host.base / boot.WANTS.lstrip("/")).mkdir(parents=True)
        old = host.tree()
        key = json_set(host, "live-restore", True)
        changes = plan(key, file_present(host, PARAMETERS, "kernel.panic = 9\n"), effect="reload")
        with monkeypatch.context() as patch:
            Countdown(21, True, patch)
            with pytest.raises(Killed):
                detach.perform(host, request(changes))
        assert host.config() != {}
        assert (host.base / PARAMETERS.lstrip("/")).exists()
        words = command_of(host, boot.PATH)
        assert pathlib.Path(host.path(words[2])).exists()
        host.daemon.stop()
        if early:
            assert command_of(host, boot.EARLY_PATH) == [*words[:3], "files"]
            runner.main(host, words[2], words[0], ["files"])
            assert host.config() == {}
            assert not (host.base / PARAMETERS.lstrip("/")).exists()
        assert host.daemon.start() is None
        pid = host.service["MainPID"]
        runner.main(host, words[2], words[0], words[3:])
        assert (host.service["MainPID"] == pid) == early
        assert host.tree() == old
        assert [name for name in leftovers(host) if name != "request.json"] == []
        # Nobody waits for that request any more, and it has no answer.
        unit.controller_dies = False
        detach.perform(host, request())
        assert leftovers(host) == []


def test_boot_removes_a_unit_that_was_left_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with act_host("{}") as host:
        Unit(host, monkeypatch)
        detach.perform(host, request(change(host)))
        boot.arm(host, ["python3"])
        runner.main(host, "", "", ["files"])
        assert leftovers(host) != []
        runner.main(host, "", "", ["recover"])
        assert leftovers(host) == []


def test_the_archive_runs_by_itself(tmp_path: pathlib.Path) -> None:
    with act_host("{}") as host:
        runs.make_state_directories(host)
        archive = host.path(detach.install(host))
        first = os.stat(archive)
        assert detach.install(host) == "/" + os.path.relpath(archive, host.base)
        assert os.stat(archive).st_ino == first.st_ino
        # An archive that could not find one of its modules would fail before it knows the verb.
        code = (
            "import sys, json; sys.path.insert(0, sys.argv[1]);"
            "from ansible_collections.bulkhead.hardening.plugins.module_utils import runner, host;"
            "print(runner.__file__, runner.__cached__);"
            "h = host.Host(sys.argv[2]);"
            "print(json.dumps(runner.perform(h, json.loads(sys.argv[3]))['transaction']))"
        )
        argument = json.dumps({**request({"schema": "?"}), "check_mode": True})
        done = subprocess.run(
            [sys.executable, "-I", "-c", code, archive, str(tmp_path), argument],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert archive in done.stdout.split("\n")[0]
        assert '"outcome": "refused"' in done.stdout
        quiet = subprocess.run(
            [sys.executable, "-I", "-X", "importtime", archive, "recover"],
            env={"SERVICE_RESULT": "success"}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "ansible_collections" not in quiet.stderr


def test_a_unit_that_says_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with act_host("{}") as host:
        unit = Unit(host, monkeypatch)
        before = host.tree()
        monkeypatch.setattr(unit, "start", lambda argv: Completed(1, "", "Failed to connect"))
        answer = detach.perform(host, request(change(host)))
        assert answer["failed"]
        assert "systemd-run: Failed to connect" in answer["msg"]
        assert "journalctl --unit=bulkhead-" in answer["msg"]
        assert host.tree() == before


def test_a_state_directory_of_somebody_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with act_host("{}") as host:
        Unit(host, monkeypatch)
        path = host.base / "var/lib/bulkhead"
        path.mkdir(mode=0o755)
        before = host.tree()
        answer = detach.perform(host, request(change(host)))
        assert "only root may enter" in answer["msg"]
        assert list(path.iterdir()) == []
        assert host.tree() == before


def test_without_systemd_it_runs_by_itself() -> None:
    with act_host("{}") as host:
        (host.base / "run/systemd/system").rmdir()
        answer = detach.perform(host, request(plan(file_present(host, DROPIN, "x"))))
        assert answer["transaction"]["outcome"] == "committed", answer.get("msg")
        assert not (host.base / "var/lib/bulkhead/runner").exists()


def test_an_undo_runs_in_a_unit_and_a_purge_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with act_host("{}", ["web"]) as host:
        unit = Unit(host, monkeypatch)
        (host.base / boot.WANTS.lstrip("/")).mkdir(parents=True)
        old = host.tree(everything=True)
        identifier = detach.perform(host, request(change(host)))["transaction"]["id"]
        undo = {**request(), "action": "undo", "undo": identifier}
        answer = detach.perform(host, undo)
        assert answer["transaction"]["outcome"] == "committed", answer.get("msg")
        assert answer["transaction"]["undid"] == identifier
        assert "--unit=bulkhead-%s.service" % answer["transaction"]["id"] in unit.argv
        assert leftovers(host) == []
        unit.argv = []
        answer = detach.perform(host, {**request(), "action": "purge"})
        assert answer["transaction"]["outcome"] == "purged", answer.get("msg")
        assert unit.argv == []
        assert host.tree(everything=True) == old


def test_an_undo_of_nothing_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with act_host("{}") as host:
        Unit(host, monkeypatch)
        before = host.tree(everything=True)
        answer = detach.perform(host, {**request(), "action": "undo", "undo": "last"})
        assert "no committed transaction" in answer["msg"]
        assert host.tree(everything=True) == before


@pytest.mark.parametrize("full_at", ["request.json", ".pyz"])
def test_a_full_disk_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, full_at: str) -> None:
    written = transaction_files.stage

    def stage(to: typing.Any, path: str, content: bytes, *more: typing.Any) -> None:
        if full_at in path:
            with monkeypatch.context() as patched:
                patched.setattr(os, "fsync", full)
                written(to, path, content, *more)
        written(to, path, content, *more)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(transaction_files, "stage", stage)
    with act_host("{}", ["web"]) as host:
        Unit(host, monkeypatch)
        answer = detach.perform(host, request(change(host)))
        assert leftovers(host) == []
    assert answer["transaction"]["outcome"] == "refused"
    assert "No space left on device (/var/lib/bulkhead/" in answer["msg"]
