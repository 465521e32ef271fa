"""What becomes of the containers of before: which ends count, and which are started again."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import health
from ansible_collections.bulkhead.hardening.plugins.module_utils.docker_api import ApiError
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction import apply
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_daemon import Restart
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import daemon_plan, daemon_policy

from .fakes import CONFIG, ActHost, Killed, act_host, json_set, observe, plan
from .test_apply_crash import Countdown

Json = dict[str, typing.Any]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, as root does")

KEPT = Restart(1000.0, 1010.0, True)
ENDING = Restart(1000.0, 1010.0, False)


def at(seconds: float) -> str:
    return "1970-01-01T00:%02d:%06.3fZ" % divmod(seconds, 60)


class Api:
    """Answers for one container, which a start brings back unless it is broken."""

    def __init__(self, state: Json | None, broken: bool = False) -> None:
        self.state = state
        self.broken = broken
        self.started = 0

    def get(self, path: str) -> Json:
        if self.state is None:
            raise ApiError("no such container", 404)
        return {"State": self.state}

    def request(self, method: str, path: str) -> None:
        assert (method, path) == ("POST", "/containers/a1/start")
        self.started += 1
        if not self.broken:
            self.state = {"Running": True, "StartedAt": at(1011.0), "FinishedAt": at(1005.0)}


class Clock(Host):
    def __init__(self, root: str = "/nonexistent") -> None:
        super().__init__(root)
        self._time = 0.0

    def monotonic(self) -> float:
        return self._time

    def sleep(self, seconds: float) -> None:
        self._time += seconds


def ended(when: float, code: int = 137, started: float = 500.0, **more: typing.Any) -> Json:
    return {
        "Running": False,
        "FinishedAt": at(when),
        "StartedAt": at(started),
        "ExitCode": code,
        **more,
    }


def running(finished: float | None = None, started: float = 500.0) -> Json:
    state: Json = {"Running": True, "StartedAt": at(started), "ExitCode": 0}
    return {**state, "FinishedAt": at(finished) if finished else "0001-01-01T00:00:00Z"}


def wait(
    api: Api,
    *restarts: Restart,
    revive: bool = False,
    root: str = "/nonexistent",
    name: str = "a1",
) -> list[str]:
    expected = [{"id": name, "name": "web", "pid": 700}]
    return health.wait_for_containers(
        Clock(root), typing.cast(typing.Any, api), expected, 30.0, restarts, revive=revive
    )


@pytest.mark.parametrize(
    ("state", "restarts", "noted"),
    [
        (running(), [], False),
        (running(), [KEPT], False),
        (running(), [ENDING], False),
        # without a restart no end is the daemon's doing
        (ended(1005.0), [], True),
        (None, [], True),
        (None, [ENDING], True),  # swarm put another task in its place
        # before the restart, and after it
        (ended(999.0), [KEPT], True),
        (ended(999.0), [ENDING], True),
        (ended(1010.5), [KEPT], True),
        # during the restart, but with an exit code of its own
        (ended(1005.0, code=0), [KEPT], True),
        (ended(1005.0, code=3), [KEPT], True),
        # it crashed and its policy brought it back, before and after the restart
        (running(finished=999.0), [KEPT], False),
        (running(finished=1011.0, started=1012.0), [KEPT], False),
    ],
)
def test_what_is_accepted(state: Json | None, restarts: list[Restart], noted: bool) -> None:
    api = Api(state)
    said = wait(api, *restarts)
    assert api.started == 0
    assert [line for line in said if "web" in line and "is left so" in line] == said[1:]
    assert bool(said[1:]) is noted


@pytest.mark.parametrize(
    "state",
    [ended(1005.0), ended(1005.0, code=255), running(finished=1005.0, started=1006.0)],
    ids=["killed", "unknown", "another process"],
)
def test_what_a_restart_should_have_kept_is_a_failure(state: Json) -> None:
    with pytest.raises(HostError, match="restart ended these containers: web"):
        wait(Api(state), KEPT)


def process(root: pathlib.Path, cgroup: str, started: float) -> str:
    """Let there be the process 700; return the root of its host."""
    directory = root / "proc/700"
    directory.mkdir(parents=True)
    ticks = int(started * os.sysconf("SC_CLK_TCK"))
    (directory / "stat").write_text("700 (sleep) S %s%d 0\n" % ("0 " * 18, ticks))
    (directory / "cgroup").write_text("0::%s\n" % cgroup)
    (root / "proc/stat").write_text("btime 0\n")
    return str(root)


ID = "a1" * 32


@pytest.mark.parametrize(
    ("cgroup", "started"),
    [
        ("/system.slice/docker-%s.scope" % ID, 2000.0),
        ("/system.slice/docker-%s.scope/init.scope" % ID, 2000.0),
        ("/kata_overhead/%s-vm" % ID, 999.0),
    ],
)
def test_what_runs_and_the_daemon_does_not_know_any_more_is_a_failure(
    tmp_path: pathlib.Path, cgroup: str, started: float
) -> None:
    root = process(tmp_path, cgroup, started)
    with pytest.raises(HostError, match="does not know these containers: web"):
        wait(Api(None), KEPT, root=root, name=ID)
    # An undo could not bring it back, and a restart that was to keep nothing hid nothing.
    gone = ["web is gone, and is left so"]
    assert wait(Api(None), KEPT, root=root, name=ID, revive=True)[1:] == gone
    assert wait(Api(None), ENDING, root=root, name=ID)[1:] == gone


def test_what_somebody_removed_is_no_failure(tmp_path: pathlib.Path) -> None:
    gone = ["web is gone, and is left so"]
    assert wait(Api(None), KEPT)[1:] == gone
    # Another process has its number since.
    root = process(tmp_path, "/system.slice/docker-%s.scope" % ("b2" * 32), 1003.0)
    assert wait(Api(None), KEPT, root=root, name=ID)[1:] == gone


def test_what_our_restart_ended_is_started_once() -> None:
    api = Api(ended(1005.0))
    assert wait(api, ENDING) == ["1 containers run as before"]
    assert api.started == 1
    api = Api(ended(1005.0), broken=True)
    with pytest.raises(HostError, match="do not run again: web"):
        wait(api, ENDING)
    assert api.started == 1


def test_what_does_not_stay_up_after_our_restart_is_a_failure() -> None:
    for state in (ended(1012.0, started=1011.0), {**running(started=1011.0), "Restarting": True}):
        with pytest.raises(HostError, match="do not run again: web"):
            wait(Api(state), ENDING)


def test_the_first_of_two_restarts_may_never_have_answered() -> None:
    """The start with the new file failed; the containers ended before the start with the old one."""
    api = Api(ended(1005.0))
    assert wait(api, Restart(1000.0, None, False), Restart(1020.0, 1030.0, True))[1:] == []
    assert api.started == 1


# -- whole transactions --------------------------------------------------------------------------------
def during(host: ActHost, verb: str, action: typing.Callable[[], None]) -> None:
    """Let something happen at the end of a reload or restart of the daemon, once."""
    original = host._systemctl
    done: list[str] = []

    def systemctl(said: str) -> typing.Any:
        answer = original(said)
        if said == verb and not done:
            done.append(verb)
            action()
            host.daemon._publish()
        return answer

    host._systemctl = systemctl  # type: ignore[method-assign]


def end(host: ActHost, name: str, code: int = 0, remove: bool = False) -> None:
    inspect = host.daemon._find(name)
    host.daemon._end(inspect, code)
    if remove:
        del host.daemon.containers[inspect["Id"]]


@as_root
@pytest.mark.parametrize("remove", [False, True])
def test_a_container_that_ends_by_itself_does_not_fail_the_run(remove: bool) -> None:
    with act_host(containers=["web", "job"]) as host:
        during(host, "reload", lambda: end(host, "job", remove=remove))
        before = host.pids()["web"]
        answer = apply(host, plan(json_set(host, "live-restore", True), effect="reload"))
        assert answer["transaction"]["outcome"] == "committed", answer["msg"]
        assert host.pids() == {"web": before}
        detail = next(r for r in answer["transaction"]["steps"] if r["step"] == "health")["detail"]
        assert "job" in detail


@as_root
def test_a_container_that_is_removed_meanwhile_does_not_fail_a_restart() -> None:
    with act_host('{"live-restore": true}', ["web", "job"]) as host:
        during(host, "restart", lambda: end(host, "job", remove=True))
        before = host.pids()["web"]
        answer = apply(host, plan(json_set(host, "log-level", "warn"), effect="restart"))
        assert answer["transaction"]["outcome"] == "committed", answer.get("msg")
        assert host.pids() == {"web": before}
        detail = next(r for r in answer["transaction"]["steps"] if r["step"] == "health")["detail"]
        assert "job is gone, and is left so" in detail


@as_root
def test_a_rollback_starts_only_what_its_restart_ended() -> None:
    with act_host(containers=["web", "stopped"]) as host:
        host.daemon.witness_error = "no"
        raw = plan(
            json_set(host, "bip", "10.1.2.3/24"), effect="restart", allow_container_restart=True
        )
        during(host, "reset-failed", lambda: end(host, "stopped", 143))
        answer = apply(host, raw)
        assert answer["transaction"]["outcome"] == "rolled_back"
        assert set(host.pids()) == {"web"}
        assert "stopped does not run" in answer["msg"]


@as_root
@pytest.mark.parametrize("accepted", [False, True])
def test_another_image_store_is_refused_while_containers_run(accepted: bool) -> None:
    with act_host('{"live-restore": true}', ["web"]) as host:
        store = json_set(host, "features", True, member="containerd-snapshotter")
        answer = apply(host, plan(store, effect="restart", allow_container_restart=accepted))
        assert answer["transaction"]["outcome"] == "refused", answer["msg"]
        assert "features.containerd-snapshotter changes" in answer["msg"]
        assert "stop them first: web" in answer["msg"]
        assert host.config() == {"live-restore": True}


@as_root
@pytest.mark.parametrize(
    ("key", "value", "member"),
    [
        ("features", False, {"member": "containerd-snapshotter"}),
        ("data-root", "/var/lib/docker/", {}),
    ],
)
def test_what_the_daemon_has_already_hides_nothing(key: str, value: object, member: Json) -> None:
    with act_host('{"live-restore": true}', ["web"]) as host:
        before = host.pids()
        answer = apply(host, plan(json_set(host, key, value, **member), effect="restart"))
        assert answer["transaction"]["outcome"] == "committed", answer.get("msg")
        assert host.pids() == before


@as_root
def test_a_flag_of_others_that_hides_containers_keeps_the_daemon_from_a_restart() -> None:
    with act_host('{"live-restore": true}', ["web"]) as host:
        host.write("/etc/default/docker", "DOCKER_OPTS=--data-root=/mnt/new\n")
        made = daemon_plan.plan(observe(host), daemon_policy.read({}))
        assert made["daemon"]["effect"] == "none"
        answer = apply(host, plan(json_set(host, "log-level", "warn"), effect="restart"))
        assert answer["transaction"]["outcome"] == "refused"
        assert "the flag of data-root, in /etc/default/docker; restart it" in answer["msg"]
        # Nor does it where that stands in a drop-in that systemd has not read.
        host.write("/etc/default/docker", "")
        host.service["NeedDaemonReload"] = "yes"
        answer = apply(host, plan(json_set(host, "log-level", "warn"), effect="restart"))
        assert "docker.service changed since systemd read it" in answer["msg"]
        # Where it is put back, nothing is in the way.
        host.service["NeedDaemonReload"] = "no"
        answer = apply(host, plan(json_set(host, "log-level", "warn"), effect="restart"))
        assert answer["transaction"]["outcome"] == "committed", answer.get("msg")


@as_root
def test_a_key_of_others_keeps_the_daemon_from_a_restart() -> None:
    with act_host('{"live-restore": true}', ["web"]) as host:
        host.write(CONFIG, '{"live-restore": true, "data-root": "/mnt/new"}')
        host.old(CONFIG, -10)
        answer = apply(host, plan(json_set(host, "log-level", "warn"), effect="restart"))
        assert answer["transaction"]["outcome"] == "refused"
        assert "data-root, in /etc/docker/daemon.json; restart it" in answer["msg"]
        # It is the plan's own to take out.
        answer = apply(host, plan(json_set(host, "data-root", "/var/lib/docker"), effect="restart"))
        assert answer["transaction"]["outcome"] == "committed", answer.get("msg")
        assert set(host.pids()) == {"web"}
        # Where the API is served hides nothing, and is no less theirs.
        host.write(CONFIG, '{"live-restore": true, "hosts": ["tcp://127.0.0.1:2375"]}')
        host.old(CONFIG, -10)
        answer = apply(host, plan(json_set(host, "log-level", "warn"), effect="restart"))
        assert "hosts, in /etc/docker/daemon.json; restart it" in answer["msg"]


@as_root
@pytest.mark.parametrize("link", ["/data/docker", "/var/lib/docker"])
def test_a_data_root_behind_a_link_is_the_one_in_effect(link: str) -> None:
    document: Json = {"live-restore": True}
    if link != "/var/lib/docker":
        document["data-root"] = link
    with act_host(json.dumps(document), ["web"]) as host:
        (host.base / link.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(host.base / link.lstrip("/"), ignore_errors=True)
        (host.base / link.lstrip("/")).symlink_to("/mnt/disk/docker")
        host.daemon.reload()
        host.write(CONFIG, json.dumps({**document, "shutdown-timeout": 20}))
        host.old(CONFIG, -10)
        engine = observe(host)["engine"]
        assert engine["options"]["data-root"]["effective"] == "/mnt/disk/docker"
        assert engine["config_loaded"] is False
        wanted: Json = {"options": {"data-root": link}} if "data-root" in document else {}
        made = daemon_plan.plan(observe(host), daemon_policy.read(wanted))
        assert made["daemon"]["effect"] == "restart"
        assert not [op for op in made["operations"] if op.get("key") == "data-root"]
        change = json_set(host, "data-root", link)
        answer = apply(host, plan(change, effect="restart"))
        assert answer["transaction"]["outcome"] == "committed", answer.get("msg")
        assert set(host.pids()) == {"web"}


@as_root
def test_what_the_plan_means_the_daemon_to_read_is_not_of_others() -> None:
    with act_host() as host:
        host.write(CONFIG, '{"data-root": "/mnt/new"}')
        host.old(CONFIG, -10)
        raw = plan(json_set(host, "log-level", "warn"), effect="restart")
        raw["daemon"]["why"] = ["data-root", "log-level"]
        answer = apply(host, raw)
        assert answer["transaction"]["outcome"] == "committed", answer.get("msg")


@as_root
def test_a_restart_that_hides_containers_for_any_reason_is_rolled_back() -> None:
    with act_host('{"live-restore": true}', ["web"]) as host:
        before = host.pids()

        def refuses(document: Json) -> None:
            """Stand for what nobody foresaw: with this log level the daemon looks elsewhere."""
            host.flags["data-root"] = "/new" if "log-level" in document else "/var/lib/docker"

        host.daemon.refuses = refuses
        answer = apply(host, plan(json_set(host, "log-level", "warn"), effect="restart"))
        assert answer["transaction"]["outcome"] == "rolled_back", answer["msg"]
        assert "does not know these containers: web" in answer["msg"]
        assert host.pids() == before


@as_root
def test_a_recovery_starts_nothing_that_ended_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with act_host(containers=["web", "stopped"]) as host:
        with monkeypatch.context() as patch:
            Countdown(8, True, patch)
            with contextlib.suppress(Killed):
                apply(host, plan(json_set(host, "live-restore", True), effect="reload"))
        end(host, "stopped", 143)
        host.daemon._publish()
        answer = apply(host, plan())
        assert answer["transaction"]["outcome"] == "recovered", answer["msg"]
        assert set(host.pids()) == {"web"}
        assert "stopped does not run" in answer["transaction"]["steps"][1]["detail"]


def test_an_undo_gives_back_what_a_restart_should_have_kept() -> None:
    """A container whose shim died ran before, so it runs after the rollback, and that is said."""
    said = wait(api := Api(ended(1005.0)), KEPT, revive=True)
    assert api.started == 1
    assert said[1:] == ["web was ended by the restart, and runs again"]
    said = wait(api := Api(running(finished=1005.0, started=1006.0)), KEPT, revive=True)
    assert api.started == 0
    assert said[1:] == ["web was ended by the restart, and runs again"]
    with pytest.raises(HostError, match="do not run again: web"):
        wait(Api(ended(1005.0), broken=True), KEPT, revive=True)
