# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Runs attacks on this host: one image, a throw-away container for each set of options.

What it makes is its own and bears its label: image, containers, network, and a directory below
``/run``. All of it is removed at the end, and what a run that was killed left, at the start of the next.
Containers end by themselves when their time is over.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    look_images,
    look_kernel,
    proof_image,
    selinux,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.docker_api import (
    ApiError,
    DockerApi,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_pass import Pass
from ansible_collections.bulkhead.hardening.plugins.module_utils.proof_events import Events
from ansible_collections.bulkhead.hardening.plugins.module_utils.proof_records import Records

NAME = look_images.PROOF
LABEL = "bulkhead.role=proof"

#: Where a run keeps what containers get from the host; with the lock beside it.
SCRATCH = "/run/bulkhead-proof"

_POLL = 0.25
#: Seconds for starting a container, on top of what its attacks may take.
_START = 60.0
#: Bytes of a container's output that are read.
_MOST_OUTPUT = 1024 * 1024
_MIB = 1024 * 1024

Json = dict[str, typing.Any]


def run(host: Host, jobs: list[Json], programs: list[tuple[str, str]], identifier: str) -> Json:
    """Run all jobs; return ``{results, containers}``.

    :param jobs: ``[{name, attacks: [{id, seconds}], config, host_config, network, neighbour}]``.
        ``config`` and ``host_config`` are those of the Engine API; ``{scratch}`` in a bind stands for
        the run's directory. ``network`` is ``default``, ``own`` or a mode of the API; ``neighbour`` is
        None or ``{config, host_config}`` of the container that runs the other side.
    :param programs: what goes into the image, as name and text.
    :param identifier: of this run, for the names of all that it makes.
    :raises HostError: there is no daemon to ask, or another run is under way.
    """
    daemon = Pass(host, 60.0).daemon()
    if daemon.socket is None or not daemon.callable:
        raise HostError("no attack can run: %s" % (daemon.reason or "the daemon cannot be asked"))
    api = DockerApi(host.path(daemon.socket), timeout=120.0)
    with _locked(host):
        remove_all(host, api)
        try:
            return _Run(host, api, identifier).all(jobs, programs)
        finally:
            remove_all(host, api)


@contextlib.contextmanager
def _locked(host: Host) -> typing.Iterator[None]:
    folder = host.path(SCRATCH)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    handle = os.open(folder + ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HostError("another run of attacks is under way on this host") from None
        yield
    finally:
        os.close(handle)


def remove_all(host: Host, api: DockerApi) -> None:
    """Remove whatever runs of attacks left: containers, networks, images, directories."""
    chosen = {"filters": json.dumps({"label": [LABEL]})}
    for container in api.get("/containers/json", all="true", **chosen) or []:
        with contextlib.suppress(ApiError):
            query = {"force": "true", "v": "true"}
            api.request("DELETE", "/containers/" + container["Id"], query=query)
    for network in api.get("/networks", **chosen) or []:
        with contextlib.suppress(ApiError):
            api.request("DELETE", "/networks/" + network["Id"])
    for image in api.get("/images/json", **chosen) or []:
        with contextlib.suppress(ApiError):
            api.request("DELETE", "/images/" + image["Id"], query={"force": "true"})
    shutil.rmtree(host.path(SCRATCH), ignore_errors=True)


class _Run:
    def __init__(self, host: Host, api: DockerApi, identifier: str) -> None:
        self._host = host
        self._api = api
        self._identifier = identifier
        self._scratch = "%s/%s" % (SCRATCH, identifier)

    def all(self, jobs: list[Json], programs: list[tuple[str, str]]) -> Json:
        python = proof_image.find(self._host)
        self._entry = proof_image.command(python)
        root = proof_image.archive(python, programs)
        self._image = self._api.import_image(NAME, self._identifier, LABEL, root)
        records, events = Records(self._host), Events(self._host)
        try:
            containers = [self._job(job, records, events) for job in jobs]
        finally:
            records.close()
        results = [row for container in containers for row in container.pop("results")]
        return {"results": results, "containers": containers}

    def _job(self, job: Json, records: Records, events: Events) -> Json:
        """Run one container with its attacks; never raises for what the daemon says."""
        self._prepare_scratch()
        records.read()
        seen: Json = {"name": job["name"], "kernel": None, "exit_code": None, "refused": None}
        output, identifier = "", ""
        try:
            context = self._beside(job)
            words = [str(word) for item in job["attacks"] for word in (item["id"], item["seconds"])]
            identifier = self._start(job["name"], ["attack", *words], job, context)
            seen["kernel"] = self._kernel(identifier)
            deadline = sum(int(item["seconds"]) + 5 for item in job["attacks"]) + _START
            seen["exit_code"] = self._wait(identifier, deadline)
            output = self._output(identifier)
        except (ApiError, HostError) as exc:
            seen["refused"] = str(exc)
        finally:
            self._remove_containers()
        seen["results"] = _rows(job, seen, output, records.read())
        # Before an attack began there is nothing to be seen of it.
        said = None if seen["refused"] is not None else events.read()
        for row in seen["results"]:
            row["events"] = _events_of(row, said, identifier)
        return seen

    def _prepare_scratch(self) -> None:
        """Make what containers get from the host: a file that only the host's root may open."""
        folder = self._host.path(self._scratch)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder, mode=0o700)
        os.mkdir(folder + "/host", 0o755)
        for name, mode in (("root-only", 0o600), ("readable", 0o644)):
            path = "%s/host/%s" % (folder, name)
            with open(path, "w") as stream:
                stream.write("untouched\n")
            os.chmod(path, mode)
        for name in ("mine", "other"):
            path = "%s/%s" % (folder, name)
            os.mkdir(path)
            with open(path + "/file", "w") as stream:
                stream.write("untouched\n")
            os.chmod(path + "/file", 0o666)
            os.chmod(path, 0o777)
        self._label_scratch(folder)

    def _label_scratch(self, folder: str) -> None:
        """Where SELinux runs, let containers into the directories: the files decide.

        ``host`` is anybody's and its files the host's; ``other`` belongs to another container; and
        the engine labels ``mine`` itself, which it may only where it is a container's already.
        """
        labels = selinux.contexts(self._host) if selinux.enabled(self._host) else None
        if not labels or not labels["file"]:
            return
        other = labels["file"] + ":c1022,c1023"
        for name, label in (
            *(("host", labels["file"]), ("mine", labels["file"]), ("mine/file", labels["file"])),
            *(("other", other), ("other/file", other)),
        ):
            with contextlib.suppress(OSError):  # a policy that does not know it: then nothing holds
                os.setxattr("%s/%s" % (folder, name), "security.selinux", label.encode() + b"\0")

    def _beside(self, job: Json) -> Json:
        """Start what stands beside the attacks; return what their programs are told."""
        context: Json = {"image": self._image}
        if job["network"] == "own":
            body = {
                "Name": "%s-%s" % (NAME, self._identifier),
                "Labels": dict([LABEL.split("=")]),
                "CheckDuplicate": True,
            }
            with contextlib.suppress(ApiError):  # 409: an earlier job made it
                self._api.request("POST", "/networks/create", body=body)
        if job["neighbour"] is not None:
            item = job["attacks"][0]
            words = ["neighbour", item["id"], str(int(item["seconds"]) + int(_START))]
            other = {**job["neighbour"], "network": job["network"]}
            identifier = self._start(job["name"] + "-neighbour", words, other, context)
            self._wait_until_ready(identifier)
            details = self._api.get("/containers/%s/json" % identifier)
            networks = (details.get("NetworkSettings") or {}).get("Networks") or {}
            addresses = [net.get("IPAddress") for net in networks.values() if net.get("IPAddress")]
            context["neighbour"] = {
                "name": str(details.get("Name") or "").lstrip("/"),
                "address": addresses[0] if addresses else None,
            }
        return context

    def _start(self, name: str, words: list[str], job: Json, context: Json) -> str:
        host_config: Json = {
            "Memory": 384 * _MIB,
            "MemorySwap": 384 * _MIB,
            "CpuShares": 256,
            # Read back from a file of the daemon's, whatever driver the host's containers use.
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "4m", "max-file": "1"}},
            **job["host_config"],
        }
        binds = [
            text.replace("{scratch}", self._scratch) for text in host_config.get("Binds") or []
        ]
        host_config["Binds"] = binds
        if job["network"] == "own":
            host_config["NetworkMode"] = "%s-%s" % (NAME, self._identifier)
        elif job["network"] != "default":
            host_config["NetworkMode"] = job["network"]
        elif not self._api.has_default_network():
            host_config["NetworkMode"] = "none"
        body = {
            "Image": self._image,
            "Entrypoint": self._entry,
            "Cmd": words,
            "Env": ["BULKHEAD_PROOF=" + json.dumps(context)],
            "Labels": dict([LABEL.split("=")]),
            "WorkingDir": "/tmp",
            **job["config"],
            "HostConfig": host_config,
        }
        full = "%s-%s-%s" % (NAME, self._identifier, name)
        answer = self._api.request("POST", "/containers/create", query={"name": full}, body=body)
        self._api.request("POST", "/containers/%s/start" % answer["Id"])
        return str(answer["Id"])

    def _state(self, identifier: str) -> Json:
        details: Json = self._api.get("/containers/%s/json" % identifier) or {}
        state: Json = details.get("State") or {}
        return state

    def _kernel(self, identifier: str) -> Json | None:
        """Return what the kernel enforces on the container, or None when it ended already."""
        pid = self._state(identifier).get("Pid")
        if not pid:
            return None
        try:
            return look_kernel.kernel_view(self._host, int(pid))
        except OSError:
            return None

    def _wait(self, identifier: str, seconds: float) -> int | None:
        deadline = self._host.monotonic() + seconds
        while self._host.monotonic() < deadline:
            state = self._state(identifier)
            if state.get("Status") in ("exited", "dead"):
                return typing.cast("int | None", state.get("ExitCode"))
            self._host.sleep(_POLL)
        return None

    def _wait_until_ready(self, identifier: str) -> None:
        deadline = self._host.monotonic() + _START
        while "ready" not in self._output(identifier):
            ended = self._state(identifier).get("Status") in ("exited", "dead")
            if ended or self._host.monotonic() > deadline:
                said = self._output(identifier)[-300:]
                raise HostError("the neighbour of an attack did not get ready: %s" % said)
            self._host.sleep(_POLL)

    def _output(self, identifier: str) -> str:
        raw = self._api.read("/containers/%s/logs" % identifier, stdout="1", stderr="1")
        return demultiplex(raw[:_MOST_OUTPUT]).decode("utf-8", "replace")

    def _remove_containers(self) -> None:
        chosen = {"filters": json.dumps({"label": [LABEL]})}
        for container in self._api.get("/containers/json", all="true", **chosen) or []:
            with contextlib.suppress(ApiError):
                query = {"force": "true", "v": "true"}
                self._api.request("DELETE", "/containers/" + container["Id"], query=query)


def demultiplex(raw: bytes) -> bytes:
    """Return the content of a stream of the Engine API: frames of stream, length and content.

    Source: the Engine API reference, "Attach to a container", stream format.
    """
    content, at = b"", 0
    while at + 8 <= len(raw):
        length = int.from_bytes(raw[at + 4 : at + 8], "big")
        content += raw[at + 8 : at + 8 + length]
        at += 8 + length
    return content


def _rows(job: Json, seen: Json, output: str, records: list[Json]) -> list[Json]:
    """Return one row for each attack of a job: its tries or why there are none, and its records."""
    lines: dict[str, Json] = {}
    for text in output.splitlines():
        with contextlib.suppress(ValueError):
            line = json.loads(text)
            if isinstance(line, dict) and isinstance(line.get("id"), str):
                lines[line["id"]] = line
    rows = []
    for item in job["attacks"]:
        line = lines.get(item["id"], {})
        error = line.get("error")
        if seen["refused"] is not None:
            error = seen["refused"]
        elif not line:
            said = output.strip().splitlines()[-1:] or ["nothing"]
            error = "the container ended with %s, and said: %s" % (seen["exit_code"], said[0][:300])
        began, ended = line.get("began") or 0.0, line.get("ended") or 0.0
        rows.append(
            {
                "id": item["id"],
                "container": job["name"],
                "tries": line.get("tries") or [],
                "error": error,
                "seconds": line.get("seconds"),
                "began": began,
                "ended": ended,
                "records": [r for r in records if began <= r["at"] <= ended + 0.01][:20],
            }
        )
    return rows


def _events_of(row: Json, said: list[Json] | None, identifier: str) -> list[Json] | None:
    """Return what Falco said of one attack; None where nobody watched, or it did not run."""
    began, ended = row.pop("began"), row.pop("ended")
    if said is None or not ended:
        return None
    return [
        event
        for event in said
        if began <= event["at"] <= ended + 0.01 and identifier.startswith(event["container"])
    ][:20]
