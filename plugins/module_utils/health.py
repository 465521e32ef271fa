# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The health gate: is the host as well after a change as it was before?

Containers that were stable must run again, options must show in the running daemon, and one
throw-away container without any options, the *witness*, must start, take its signal and end well.
It also tells what a default container of this host really gets, which no configuration can.
"""

from __future__ import annotations

import contextlib
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    daemon_options,
    health_image,
    hiding,
    look,
    look_host,
    look_images,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.docker_api import (
    ApiError,
    DockerApi,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_cgroups import Membership
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import timestamp
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_daemon import start_of
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_options import shown
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_daemon import Restart
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_plan import SLICE_GROUP

#: Seconds that a container must have been up to count as stable: not in a restart loop.
STABLE_AFTER = 10.0

_POLL = 0.25
_WITNESS_TIMEOUT = 60.0

Json = dict[str, typing.Any]


# -- containers ----------------------------------------------------------------------------------
def running(observation: Json) -> list[Json]:
    """Return the containers of an observation whose processes exist."""
    return [
        container
        for container in observation.get("containers") or []
        if container.get("state") in ("running", "paused")
    ]


def stable(observation: Json) -> list[Json]:
    """Return the containers that ran for a while: those that must run again after a change."""
    now = observation.get("collected_at") or 0.0
    return [
        container
        for container in running(observation)
        if container.get("started_at") is not None and now - container["started_at"] >= STABLE_AFTER
    ]


#: A container's end from here on is a signal's, or one that nobody knows (moby's 255).
_FIRST_SIGNAL_CODE = 128

_LEFT = {"ended": "does not run", "removed": "is gone"}


def wait_for_containers(
    host: Host,
    api: DockerApi,
    expected: list[Json],
    timeout: float,
    restarts: typing.Sequence[Restart] = (),
    *,
    revive: bool = False,
) -> list[str]:
    """Wait until containers are as well as before; return a summary, then what is to be noted.

    Only what a restart of ours ended counts, and only that is started again, where it does not come
    back by itself. A container that ended for another reason, its own or a user's, stays as it is.
    One that a restart should have kept, that the daemon does not know any more and whose process is
    there all the same is hidden from it.

    :param expected: ``[{"id", "name", "pid", ...}]``, the containers that ran before.
    :param restarts: those of this transaction, the oldest first.
    :param revive: start those again, too, that a restart ended although it should have kept them:
        an undo gives back what ran, where a change that ends containers must fail.
    :raises HostError: some do not run within ``timeout`` seconds, or (without ``revive``) were ended
        or hidden by a restart that should have kept them; with their names.
    """
    if not expected:
        return ["no container ran before"]
    deadline = host.monotonic() + timeout
    notes: list[str] = []
    tried: set[str] = set()
    missing = expected
    while True:
        states = [(item, _fate(api, str(item["id"]), restarts)) for item in missing]
        lost = _names(item for item, fate in states if fate in ("lost", "revived"))
        if lost and not revive:
            raise HostError("the daemon's restart ended these containers: %s" % lost)
        hidden = _names(
            item for item, fate in states if fate == "removed" and _lives(host, item, restarts)
        )
        if hidden and not revive:
            raise HostError(
                "since its restart the daemon does not know these containers: " + hidden
            )
        for item, fate in states:
            if fate == "revived":
                notes.append("%s was ended by the restart, and runs again" % item["name"])
            if fate in _LEFT:
                notes.append("%s %s, and is left so" % (item["name"], _LEFT[fate]))
            if fate in ("stopped", "lost") and item["id"] not in tried:
                tried.add(str(item["id"]))
                with contextlib.suppress(ApiError):
                    api.request("POST", "/containers/%s/start" % item["id"])
        missing = [item for item, fate in states if fate in ("stopped", "lost", "failing")]
        if not missing:
            return ["%d containers run as before" % (len(expected) - len(notes)), *notes]
        if host.monotonic() > deadline:
            raise HostError("these containers do not run again: %s" % _names(missing))
        host.sleep(_POLL)


def _lives(host: Host, container: Json, restarts: typing.Sequence[Restart]) -> bool:
    """Tell whether the first process of a container outlived the first restart that was to keep it.

    Whoever removes a container ends its process, and another one may have its number since. Not every
    runtime puts it into a group of Docker's name.
    """
    pid = container.get("pid")
    kept = [restart.began for restart in restarts if restart.kept]
    if pid is None or not kept:
        return False
    try:
        groups = Membership(host.read_text("/proc/%d/cgroup" % pid))
        return groups.container() == container["id"] or start_of(host, pid) <= kept[0]
    except (OSError, ValueError, IndexError):
        return False


def _names(containers: typing.Iterable[Json]) -> str:
    return ", ".join(sorted(str(item["name"]) for item in containers))


def _fate(api: DockerApi, identifier: str, restarts: typing.Sequence[Restart]) -> str:
    """Return what became of a container that ran before.

    ``runs``; ``stopped`` (by a restart of ours); ``lost`` (by one that should have kept it), or
    ``revived`` if it was started again since;
    ``failing`` (started since, and does not stay up); ``ended`` or ``removed`` (not our doing).
    """
    try:
        state = (api.get("/containers/%s/json" % identifier) or {}).get("State") or {}
    except ApiError as exc:
        return "removed" if exc.status == 404 else "failing"
    runs = bool(state.get("Running")) and not state.get("Restarting")
    if not restarts:
        return "runs" if runs else "ended"
    started = timestamp(state.get("StartedAt")) or 0.0
    cause = _cause(timestamp(state.get("FinishedAt")), restarts)
    if cause is not None and cause.kept:
        # One that was started again shows no exit code of its former life.
        code = state.get("ExitCode")
        own = not runs and isinstance(code, int) and 0 <= code < _FIRST_SIGNAL_CODE
        if own:
            return "ended"
        return "revived" if runs else "lost"
    if runs:
        return "runs"
    if cause is not None:
        return "stopped"
    return "failing" if started >= restarts[0].began else "ended"


def _cause(finished: float | None, restarts: typing.Sequence[Restart]) -> Restart | None:
    """Return the restart during which a container ended, if it did during one."""
    answers = [restart.answered for restart in restarts if restart.answered is not None]
    for restart in reversed(restarts):
        until = restart.answered
        if until is None and answers:  # the daemon came back in a later one
            until = answers[-1]
        if finished is None or finished < restart.began:
            continue
        return restart if until is None or finished <= until else None
    return None


def compare_containers(before: Json, after: Json) -> list[Json]:
    """Return what became of the containers that ran before: process ids and PIDs limits.

    ``[{"name", "pids_max_before", "pids_max_after", "pid_before", "pid_after"}]``; a limit of None
    means unlimited or unknown, a pid of None that it does not run.
    """
    now = {container["id"]: container for container in running(after)}
    rows = []
    for container in running(before):
        later = now.get(container["id"]) or {}
        rows.append(
            {
                "name": container.get("name"),
                "pids_max_before": (container.get("kernel") or {}).get("pids_max"),
                "pids_max_after": (later.get("kernel") or {}).get("pids_max"),
                "pid_before": container.get("pid"),
                "pid_after": later.get("pid"),
            }
        )
    return rows


# -- options -------------------------------------------------------------------------------------
def check_options(
    document: Json, planned: typing.Iterable[str], after: Json, restarted: bool
) -> list[str]:
    """Compare planned options with the running daemon; return what is pending, as texts.

    Only what the API confirms counts: a file that shows what was written into it proves nothing.

    :param restarted: without a restart only those are compared that a reload applies.
    :raises HostError: the daemon runs with another value.
    """
    engine = after.get("engine") or {}
    options = engine.get("options") or {}
    counts = (engine.get("info") or {}).get("containers") or {}
    attached = bool(counts.get("running") or counts.get("paused"))
    wrong, pending = [], []
    for key in sorted(set(planned) & set(document)):
        known = daemon_options.OPTIONS.get(key)
        shown_option = options.get(key) or {}
        if known is None or not (restarted or known.reload):
            continue
        if shown_option.get("read_from") != "api" or "effective" not in shown_option:
            continue
        wanted, effective = document[key], shown_option["effective"]
        if key in hiding.KEYS:
            if hiding.is_so(engine, key, wanted) is not False:
                continue
        elif agrees(key, wanted, effective):
            continue
        text = "%s is %r instead of %r" % (key, effective, wanted)
        # docker0 stays as it is while containers are attached to it (daemon/daemon_unix.go).
        if key == "icc" and attached:
            pending.append(text + " until no container runs")
        else:
            wrong.append(text)
    if wrong:
        raise HostError("the running daemon does not show what was planned: " + "; ".join(wrong))
    return pending


def check_slice(host: Host, document: Json) -> str | None:
    """See that the slice in which all containers start is bounded; return what was seen, as a text.

    Containers start in a slice that nobody defined, too, and nothing limits them there.

    :raises HostError: it has no limit, or another one than its file says.
    """
    if document.get("cgroup-parent") != SLICE_GROUP:
        return None
    seen = look_host.container_slice(host)
    if seen["pids_max"] is None or seen["pids_max"] != seen["tasks_max"]:
        raise HostError(
            "containers would not be bounded: %s says TasksMax=%s, and the kernel enforces %s"
            % (seen["path"], seen["tasks_max"], seen["pids_max"] or "no limit")
        )
    return "all containers together are bounded to %d processes" % seen["pids_max"]


def agrees(key: str, wanted: typing.Any, effective: typing.Any) -> bool:
    """Tell whether what the daemon shows of an option may come of a value."""
    if key == "seccomp-profile" and wanted in ("", "builtin"):
        return effective in ("builtin", "default", "")
    if isinstance(wanted, (bool, str)) and isinstance(effective, (bool, str)):
        return bool(wanted == effective)
    return True


# -- the witness ---------------------------------------------------------------------------------
def witness(host: Host, api: DockerApi, architecture: str, identifier: str) -> Json:
    """Run the throw-away container; return ``{kernel, log_driver, log_opts, exit_code}``.

    ``kernel`` is what LOOK reports for a container. Image and container are removed again in any
    case. The caller must have noted ``identifier`` first, so that a crash leaves nothing behind.

    :raises HostError: it could not be made, did not run, or did not end well.
    """
    name = "%s-%s" % (look_images.HEALTH, identifier)
    try:
        root = health_image.archive(architecture)
        image = api.import_image(look_images.HEALTH, identifier, "bulkhead.role=health", root)
        return _run_witness(host, api, name, image)
    except (ApiError, OSError) as exc:
        raise HostError("a throw-away container without options does not work: %s" % exc) from exc
    finally:
        remove_witness(api, identifier)


def remove_witness(api: DockerApi, identifier: str) -> None:
    """Remove the witness's container and image, as far as they are there."""
    name = "%s-%s" % (look_images.HEALTH, identifier)
    with contextlib.suppress(ApiError):
        api.request("DELETE", "/containers/" + name, query={"force": "true", "v": "true"})
    with contextlib.suppress(ApiError):
        api.request(
            "DELETE", "/images/%s:%s" % (look_images.HEALTH, identifier), query={"force": "true"}
        )


def _run_witness(host: Host, api: DockerApi, name: str, image: str) -> Json:
    config: Json = {
        "Image": image,
        "Entrypoint": ["/" + health_image.PROGRAM],
        "Labels": {"bulkhead.role": "health"},
    }
    if not api.has_default_network():
        config["HostConfig"] = {"NetworkMode": "none"}
    identifier = api.request("POST", "/containers/create", query={"name": name}, body=config)["Id"]
    api.request("POST", "/containers/%s/start" % identifier)
    details = _wait_until_ready(host, api, identifier)
    view = look.kernel_view(host, int(details["State"]["Pid"]))
    log = (details.get("HostConfig") or {}).get("LogConfig") or {}
    with contextlib.suppress(ApiError):  # 409: it ended already, and its exit code says how
        api.request("POST", "/containers/%s/kill" % identifier, query={"signal": "SIGTERM"})
    code = _exit_code(host, api, identifier)
    if code != 0:
        raise HostError(
            "a throw-away container without options did not take SIGTERM: it ended with %s" % code
        )
    return {
        "kernel": view,
        "log_driver": log.get("Type"),
        "log_opts": shown("log-opts", log.get("Config") or {}).value or {},
        "exit_code": code,
    }


def _wait_until_ready(host: Host, api: DockerApi, identifier: str) -> Json:
    deadline = host.monotonic() + _WITNESS_TIMEOUT
    while True:
        details: Json = api.get("/containers/%s/json" % identifier)
        state = details.get("State") or {}
        if state.get("Running") and state.get("Pid"):
            _wait_for_sleep(host, int(state["Pid"]))
            return details
        if state.get("Status") in ("exited", "dead") or host.monotonic() > deadline:
            raise ApiError(
                "it is %s, exit code %s %s"
                % (state.get("Status"), state.get("ExitCode"), state.get("Error") or "")
            )
        host.sleep(_POLL)


def _wait_for_sleep(host: Host, pid: int) -> None:
    """Wait until the program sleeps, which it does only where SIGTERM will find it.

    With ``init`` in daemon.json the program is a child of another. Under a runtime that is no plain
    process (a virtual machine, gVisor) it shows nowhere: then a few seconds must do.
    """
    deadline = host.monotonic() + 5.0
    while host.monotonic() < deadline:
        children: list[str] = []
        with contextlib.suppress(OSError):  # not every kernel has this file
            children = host.read_text("/proc/%d/task/%d/children" % (pid, pid)).split()
        with contextlib.suppress(OSError):
            status = host.read_text("/proc/%s/status" % (children[0] if children else pid))
            fields = dict(line.partition(":")[::2] for line in status.split("\n"))
            name, state = fields.get("Name", "").strip(), fields.get("State", "").strip()
            if name == health_image.PROGRAM and state.startswith("S"):
                return
        host.sleep(0.05)


def _exit_code(host: Host, api: DockerApi, identifier: str) -> int | None:
    deadline = host.monotonic() + _WITNESS_TIMEOUT
    while host.monotonic() < deadline:
        state = (api.get("/containers/%s/json" % identifier) or {}).get("State") or {}
        if state.get("Status") in ("exited", "dead"):
            code = state.get("ExitCode")
            return code if isinstance(code, int) else None
        host.sleep(_POLL)
    return None
