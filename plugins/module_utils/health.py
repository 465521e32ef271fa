# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The health gate: is the host as well after a change as it was before?

Containers that were stable must run again, options must show in the running daemon, and one
throw-away container without any options, the *witness*, must start, take its signal and end well.
It also tells what a default container of this host really gets, which no configuration can.
"""

from __future__ import annotations

import contextlib
import json
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    daemon_options,
    health_image,
    look,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.docker_api import (
    ApiError,
    DockerApi,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_options import shown

#: Seconds that a container must have been up to count as stable: not in a restart loop.
STABLE_AFTER = 10.0

#: Repository of the witness's image, and prefix of its container's name.
WITNESS_NAME = "bulkhead-health"

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


def wait_for_containers(
    host: Host, api: DockerApi, expected: list[Json], timeout: float, same_process: bool
) -> str:
    """Wait until containers run again; return a summary.

    :param same_process: they must be the same processes as before (live-restore), so that nothing
        is started here. Otherwise those that do not come back by themselves are started.
    :raises HostError: some do not run within ``timeout`` seconds; with their names.
    """
    if not expected:
        return "no container ran before"
    deadline = host.monotonic() + timeout
    missing = expected
    tried: set[str] = set()
    while True:
        missing = [item for item in missing if not _runs(api, item, same_process)]
        if not missing:
            how = "with the same processes" if same_process else "again"
            return "%d containers run %s" % (len(expected), how)
        if host.monotonic() > deadline:
            names = ", ".join(sorted(str(item["name"]) for item in missing))
            what = "are not the same processes any more" if same_process else "do not run again"
            raise HostError("these containers %s: %s" % (what, names))
        if not same_process:
            for item in missing:
                _start_once(api, str(item["id"]), tried)
        host.sleep(_POLL)


def _runs(api: DockerApi, container: Json, same_process: bool) -> bool:
    try:
        state = (api.get("/containers/%s/json" % container["id"]) or {}).get("State") or {}
    except ApiError:
        return False
    if not state.get("Running") or state.get("Restarting"):
        return False
    return not same_process or state.get("Pid") == container.get("pid")


def _start_once(api: DockerApi, identifier: str, tried: set[str]) -> None:
    """Start a container that has no restart policy to bring it back."""
    if identifier not in tried:
        tried.add(identifier)
        with contextlib.suppress(ApiError):
            api.request("POST", "/containers/%s/start" % identifier)


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
        if _agrees(key, wanted, effective):
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


def _agrees(key: str, wanted: typing.Any, effective: typing.Any) -> bool:
    if key == "userns-remap":
        return bool(effective) == (wanted not in ("", "host"))
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
    name = "%s-%s" % (WITNESS_NAME, identifier)
    try:
        image = _import_image(api, architecture, identifier)
        return _run_witness(host, api, name, image)
    except (ApiError, OSError) as exc:
        raise HostError("a throw-away container without options does not work: %s" % exc) from exc
    finally:
        remove_witness(api, identifier)


def remove_witness(api: DockerApi, identifier: str) -> None:
    """Remove the witness's container and image, as far as they are there."""
    name = "%s-%s" % (WITNESS_NAME, identifier)
    with contextlib.suppress(ApiError):
        api.request("DELETE", "/containers/" + name, query={"force": "true", "v": "true"})
    with contextlib.suppress(ApiError):
        api.request("DELETE", "/images/%s:%s" % (WITNESS_NAME, identifier), query={"force": "true"})


def _import_image(api: DockerApi, architecture: str, identifier: str) -> str:
    answer = api.request(
        "POST",
        "/images/create",
        query={
            "fromSrc": "-",
            "repo": WITNESS_NAME,
            "tag": identifier,
            "changes": "LABEL bulkhead.role=health",
        },
        raw=health_image.archive(architecture),
    )
    # The answer is a stream of JSON lines, sent with status 200 before anything can go wrong.
    for line in [answer] if isinstance(answer, dict) else str(answer).split("\n"):
        message = line if isinstance(line, dict) else _parsed(line)
        if message.get("error"):
            raise ApiError("import of its image: %s" % message["error"])
    return "%s:%s" % (WITNESS_NAME, identifier)


def _parsed(line: str) -> Json:
    with contextlib.suppress(ValueError):
        message = json.loads(line)
        if isinstance(message, dict):
            return message
    return {}


def _run_witness(host: Host, api: DockerApi, name: str, image: str) -> Json:
    config: Json = {
        "Image": image,
        "Entrypoint": ["/" + health_image.PROGRAM],
        "Labels": {"bulkhead.role": "health"},
    }
    if not _has_default_network(api):
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


def _has_default_network(api: DockerApi) -> bool:
    """Tell whether there is a default bridge; ``"bridge": "none"`` in daemon.json takes it away."""
    try:
        api.get("/networks/bridge")
    except ApiError as exc:
        return exc.status != 404
    return True


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
