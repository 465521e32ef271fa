# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Attacks as data and a small program each: read, verified, selected, and judged by what they answer.

An attack is one Python file. Its docstring is YAML that says what it is about; its function ``attack``
runs in a container and returns tries. The format is described by docs/reference/attacks.md.
"""

from __future__ import annotations

import ast
import collections
import dataclasses
import difflib
import functools
import json
import pathlib
import re
import typing

import yaml

from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json, PolicyError

_FILES = pathlib.Path(__file__).resolve().parents[2] / "roles" / "docker_proof" / "files"

#: Where the attacks of the collection are, and the programs that run them.
FOLDER = _FILES / "attacks"
PROGRAMS = _FILES / "program"

SCHEMA = "bulkhead.proof/1"

#: The mechanisms that attacks are about, in the order in which reports show them.
TOPICS = {
    "capabilities": "Capabilities, privileged mode and devices",
    "seccomp": "System call filter (seccomp)",
    "apparmor": "AppArmor",
    "selinux": "SELinux",
    "userns": "User namespaces",
    "pids": "PIDs limit",
    "ulimits": "Resource limits (ulimits)",
    "privileges": "No new privileges",
    "kernel": "Kernel interfaces and self-protection",
    "network": "Networks",
    "daemon": "The daemon's API",
    "trust": "Image trust",
    "work": "Ordinary work",
}

#: How an attack can end; ``works`` and ``broken`` are those of ordinary work, which must succeed.
OUTCOMES = ("breached", "broken", "error", "held", "works", "not_applicable")

VARIANTS = ("default", "weakened")

#: Options of a container, by the name that Compose gives them, as the Engine API takes them.
_OPTIONS: dict[str, tuple[str, type | tuple[type, ...]]] = {
    "user": ("User", str),
    "cap_add": ("CapAdd", list),
    "cap_drop": ("CapDrop", list),
    "security_opt": ("SecurityOpt", list),
    "privileged": ("Privileged", bool),
    "pid": ("PidMode", str),
    "ipc": ("IpcMode", str),
    "cgroup": ("CgroupnsMode", str),
    "userns_mode": ("UsernsMode", str),
    "volumes": ("Binds", list),
    "pids_limit": ("PidsLimit", int),
    "read_only": ("ReadonlyRootfs", bool),
    "ulimits": ("Ulimits", dict),
    "sysctls": ("Sysctls", dict),
    "tmpfs": ("Tmpfs", dict),
}
_NETWORKS = ("default", "own", "none", "host")

#: What an attack's containers may get from the host: the run's own directory, the daemon's socket,
#: the kernel's file systems, and volumes without a name, which go when their container goes.
_VOLUME = re.compile(
    r"(\{scratch\}(/\w[\w.-]*)*|/(var/)?run/docker\.sock|/sys|/sys/fs/cgroup|/proc|/dev)"
    r":/[\w./-]+(:(ro|rw|z|Z))?\Z|/\w+\Z"
)

_NAME = re.compile(r"[a-z][a-z0-9_]{2,40}\Z")
_FIELDS = frozenset(
    (
        "title",
        "topic",
        "stopped_by",
        "checks",
        "variables",
        "falco",
        "unnoticed",
        "seconds",
        "options",
        "weakened",
    )
    + ("neighbour", "network", "unshown", "why")
)
_REQUIRED = ("title", "topic", "stopped_by", "why")
_LONGEST = 120

#: Refusals of the daemon that are themselves the guard (moby daemon/daemon_unix.go,
#: verifyPlatformContainerSettings); and of the kernel, when it may not even mount what is asked for
#: (runc under SELinux, seen on Debian 13).
_REFUSAL = re.compile(
    r"\buser namespaces\b|\bprivileged mode is incompatible\b"
    r"|\berror mounting \S+ to rootfs at .*: permission denied"
)


@dataclasses.dataclass(frozen=True)
class Attack:
    """One attack.

    :ivar stopped_by: what stops it on a hardened host, in words.
    :ivar why: what an attacker gains.
    :ivar seconds: how long it may take.
    :ivar options: of its container, as Compose names them; empty is a container as everybody gets it.
    :ivar weakened: further options with which it must breach, and ``network`` where that is another;
        None when no container can show it.
    :ivar unshown: where even a weakened container does not show it, and why; None when one always does.
    :ivar neighbour: options of a second container; None when there is none.
    :ivar falco: the rule of Falco's that should notice it; None when there is none.
    :ivar unnoticed: why no rule is to notice it; None when one is.
    """

    id: str
    source: str
    title: str
    topic: str
    stopped_by: str
    why: str
    checks: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    falco: str | None = None
    unnoticed: str | None = None
    seconds: int = 20
    network: str = "default"
    options: Json = dataclasses.field(default_factory=dict)
    weakened: Json | None = None
    unshown: str | None = None
    neighbour: Json | None = None

    @property
    def is_work(self) -> bool:
        """Tell whether this is ordinary work, which must succeed."""
        return self.topic == "work"


def read(folders: typing.Iterable[pathlib.Path] = ()) -> dict[str, Attack]:
    """Return the attacks of the collection and of some folders, by id.

    :raises PolicyError: a folder cannot be read, or a file is no attack; nothing has been run then.
    """
    found: dict[str, Attack] = {}
    for folder in [FOLDER, *folders]:
        if not folder.is_dir():
            raise PolicyError("docker_proof_attack_dirs", str(folder), "there is no such directory")
        for path in sorted(folder.glob("*.py")):
            if path.stem in found:
                raise PolicyError(
                    str(path), path.stem, "another attack has this id; rename the file"
                )
            found[path.stem] = parse(path.stem, path.read_text(encoding="utf-8"), str(path))
    return found


def parse(name: str, source: str, place: str) -> Attack:
    """Return the attack that a file holds.

    :param place: what to call the file in errors.
    :raises PolicyError: naming the field, what it holds and what it should.
    """
    if not _NAME.match(name):
        raise PolicyError(place, name, "an id is lower-case letters, digits and underscores")
    try:
        module = ast.parse(source)
        fields = yaml.safe_load(ast.get_docstring(module) or "")
    except (SyntaxError, yaml.YAMLError) as exc:
        raise PolicyError(place, name, f"it cannot be read: {exc}") from exc
    if not isinstance(fields, dict):
        raise PolicyError(place, name, "its docstring must be YAML with title, topic and so on")
    functions = {item.name for item in module.body if isinstance(item, ast.FunctionDef)}
    unknown = sorted(set(fields) - _FIELDS)
    if unknown:
        raise PolicyError(
            place, unknown[0], f"there is no such field; {_nearest(unknown[0], _FIELDS)}"
        )
    for field in _REQUIRED:
        if not isinstance(fields.get(field), str) or not fields[field].strip():
            raise PolicyError(f"{place}: {field}", fields.get(field), "give a text")
    _check(place, fields)
    if "attack" not in functions:
        raise PolicyError(place, name, "it must define attack()")
    if ("neighbour" in fields) != ("neighbour" in functions):
        raise PolicyError(
            place, name, "the field neighbour and the function neighbour(ready) go together"
        )
    texts = {key: tuple(fields.get(key) or ()) for key in ("checks", "variables")}
    return Attack(id=name, source=source, **{**fields, **texts})


def _check(place: str, fields: Json) -> None:
    if fields["topic"] not in TOPICS:
        raise PolicyError(
            f"{place}: topic", fields["topic"], _nearest(str(fields["topic"]), TOPICS)
        )
    _check_network(f"{place}: network", fields)
    for field in ("unshown", "falco", "unnoticed"):
        if not isinstance(fields.get(field, ""), str):
            raise PolicyError(f"{place}: {field}", fields[field], "give a text")
    if "falco" in fields and "unnoticed" in fields:
        raise PolicyError(f"{place}: unnoticed", fields["unnoticed"], "leave it, or falco, out")
    seconds = fields.get("seconds", 20)
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 1 <= seconds <= _LONGEST:
        raise PolicyError(f"{place}: seconds", seconds, f"a whole number from 1 to {_LONGEST}")
    for field in ("checks", "variables"):
        value = fields.get(field, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise PolicyError(f"{place}: {field}", value, "a list of texts")
    for field in ("options", "weakened", "neighbour"):
        if fields.get(field) is not None:
            _check_options(f"{place}: {field}", fields[field], field == "weakened")


def _check_network(place: str, fields: Json) -> None:
    if fields.get("network", "default") not in _NETWORKS:
        raise PolicyError(place, fields["network"], "one of " + ", ".join(_NETWORKS))


def _check_options(place: str, options: object, takes_network: bool) -> None:
    if not isinstance(options, dict):
        raise PolicyError(place, options, "a map of options of a container")
    if takes_network:
        _check_network(f"{place}.network", options)
        options = {key: value for key, value in options.items() if key != "network"}
    for key, value in options.items():
        if key not in _OPTIONS:
            raise PolicyError(f"{place}.{key}", value, _nearest(str(key), _OPTIONS))
        if not isinstance(value, _OPTIONS[key][1]):
            raise PolicyError(f"{place}.{key}", value, f"wants a {_OPTIONS[key][1]}")
    for volume in options.get("volumes", []):
        if not _VOLUME.match(str(volume)):
            raise PolicyError(
                f"{place}.volumes",
                volume,
                "only {scratch}, the daemon's socket and kernel file systems",
            )


def _nearest(name: str, known: typing.Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]}?" if near else "one of " + ", ".join(sorted(known))


def select(attacks: dict[str, Attack], wanted: typing.Sequence[str]) -> list[Attack]:
    """Return the attacks of some ids and topics, in the order of topics; all when none is named.

    :raises PolicyError: a name is neither; a mistyped one never selects nothing in silence.
    """
    for name in wanted:
        if name not in attacks and name not in TOPICS:
            raise PolicyError("docker_proof_attacks", name, _nearest(name, [*attacks, *TOPICS]))
    order = list(TOPICS)
    chosen = [
        attack
        for attack in attacks.values()
        if not wanted or attack.id in wanted or attack.topic in wanted
    ]
    return sorted(chosen, key=lambda attack: (order.index(attack.topic), attack.id))


# -- what a host is asked to run -----------------------------------------------------------------
def programs(attacks: typing.Iterable[Attack]) -> dict[str, str]:
    """Return the files for the image: what runs attacks, and the attacks themselves, by name."""
    files = {path.name: path.read_text(encoding="utf-8") for path in sorted(PROGRAMS.glob("*.py"))}
    files.update({f"attacks/{attack.id}.py": attack.source for attack in attacks})
    return files


def jobs(attacks: typing.Sequence[Attack], variants: typing.Sequence[str]) -> list[Json]:
    """Return the containers to run: attacks that want the same container share one.

    An attack with a neighbour has a container of its own. A weakened variant is left out where an
    attack has none.
    """
    rows: dict[str, Json] = {}
    for variant in VARIANTS:
        for attack in attacks:
            if variant not in variants or (variant == "weakened" and attack.weakened is None):
                continue
            more = (attack.weakened or {}) if variant == "weakened" else {}
            options = {"network": attack.network, **attack.options, **more}
            job = {
                "variant": variant,
                "network": options.pop("network"),
                "neighbour": None if attack.neighbour is None else _api(attack.neighbour),
                **_api(options),
            }
            key = json.dumps(job, sort_keys=True) + (
                attack.id if attack.neighbour is not None else ""
            )
            rows.setdefault(key, {**job, "attacks": []})["attacks"].append(
                {"id": attack.id, "seconds": attack.seconds}
            )
    return [
        {**job, "name": f"{number}-{job['variant']}"} for number, job in enumerate(rows.values())
    ]


def _api(options: Json) -> Json:
    """Return options as ``{config, host_config}`` of the Engine API."""
    given = {_OPTIONS[key][0]: value for key, value in options.items()}
    if "Ulimits" in given:
        given["Ulimits"] = [{"Name": name, **limits} for name, limits in given["Ulimits"].items()]
    config = {"User": given.pop("User")} if "User" in given else {}
    return {"config": config, "host_config": given}


# -- what a host answered ------------------------------------------------------------------------
def judge(
    attacks: typing.Sequence[Attack], asked: typing.Sequence[Json], answer: Json
) -> list[Json]:
    """Return a row for each attack and variant (docs/schemas/proof.schema.json).

    :param asked: the jobs.
    :param answer: what the host said, ``{results, containers}``.
    """
    known = {attack.id: attack for attack in attacks}
    said = {(row.get("container"), row.get("id")): row for row in _maps(answer.get("results"))}
    containers = {item.get("name"): item for item in _maps(answer.get("containers"))}
    rows = []
    for job in asked:
        for item in job["attacks"]:
            row = said.get((job["name"], item["id"])) or {"error": "the host did not answer"}
            container = containers.get(job["name"]) or {}
            rows.append(_row(known[item["id"]], job["variant"], row, container))
    order = [attack.id for attack in attacks]
    return sorted(rows, key=lambda row: (VARIANTS.index(row["variant"]), order.index(row["id"])))


def _maps(value: object) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _row(attack: Attack, variant: str, said: Json, container: Json) -> Json:
    tries = [_try(item) for item in _maps(said.get("tries"))]
    outcome, reason = _outcome(attack, tries, said.get("error"))
    return {
        "id": attack.id,
        "variant": variant,
        "title": attack.title,
        "topic": attack.topic,
        "why": attack.why,
        "outcome": outcome,
        "reason": reason,
        "stopped_by": attack.stopped_by,
        "tries": tries,
        "blocked": _blocked(tries)[0],
        "records": _maps(said.get("records")),
        "kernel": container.get("kernel"),
        "checks": list(attack.checks),
        "variables": list(attack.variables),
        "falco": attack.falco,
        "detected": _detected(attack, said.get("events")),
        "seconds": said.get("seconds"),
    }


def _detected(attack: Attack, events: object) -> str | None:
    """Return ``detected`` or ``missed``; None where no Falco watched, or no rule is to notice it."""
    if attack.falco is None or not isinstance(events, list):
        return None
    named = any(item.get("rule") == attack.falco for item in _maps(events))
    return "detected" if named else "missed"


def _try(item: Json) -> Json:
    known = ("held", "breached", "not_applicable", "error")
    outcome = item.get("outcome")
    return {
        "what": str(item.get("what")),
        "outcome": outcome if outcome in known else "error",
        "detail": str(item.get("detail") or ""),
    }


def _outcome(attack: Attack, tries: list[Json], error: object) -> tuple[str, str]:
    """Return how an attack ended, and the reason.

    One breach is a breach. An attack whose tries leave a doubt has not held.
    """
    if error is not None:
        if _REFUSAL.search(str(error)) and not attack.is_work:
            return "held", f"the daemon refuses such a container: {error}"
        return "error", str(error)
    by = collections.defaultdict(list)
    for item in tries:
        by[item["outcome"]].append(item)
    good, bad = ("works", "broken") if attack.is_work else ("breached", "held")
    order = ("held", "error", "breached") if attack.is_work else ("breached", "error", "held")
    names = {"breached": good, "held": bad, "error": "error"}
    blocked, tried = _blocked(tries)
    counted = "" if attack.is_work or tried <= _FEW else f"{blocked} of {tried} blocked; "
    for outcome in order:
        if by[outcome]:
            return names[outcome], counted + _shown(by[outcome])
    if by["not_applicable"]:
        return "not_applicable", _shown(by["not_applicable"])
    return "error", "it tried nothing"


#: Tries that a reason names; of more it says how many there were.
_FEW = 4


def _blocked(tries: list[Json]) -> tuple[int, int]:
    """Return how many tries a guard refused, and how many there were anything to try on."""
    outcomes = [item["outcome"] for item in tries]
    return outcomes.count("held"), len(outcomes) - outcomes.count("not_applicable")


def _shown(tries: list[Json]) -> str:
    texts = [
        f"{item['what']}: {item['detail']}" if item["detail"] else item["what"] for item in tries
    ]
    more = len(texts) - _FEW
    return "; ".join(texts[:_FEW]) + (f"; and {more} more" if more > 0 else "")


def count(rows: typing.Iterable[Json], variant: str = "default") -> dict[str, int]:
    """Return how many rows of a variant have each outcome."""
    found = collections.Counter(row["outcome"] for row in rows if row["variant"] == variant)
    return {outcome: found[outcome] for outcome in OUTCOMES}


def failed(rows: typing.Iterable[Json], fail_on: typing.Sequence[str]) -> list[str]:
    """Return the ids of attacks of the default variant with an outcome that a run must not find."""
    return [row["id"] for row in rows if row["variant"] == "default" and row["outcome"] in fail_on]


@functools.lru_cache(maxsize=1)
def catalogue() -> dict[str, Attack]:
    """Return the attacks of the collection."""
    return read()
