# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The planner of ``docker_trust``: observation and policy in, plan out, nothing touched.

Facts that shape it: dockerd has no policy of signatures (moby#39674), so what it demands is asked for by the
program that pulls; Docker's client verifies content trust up to 28 and ignores its variables from 29 on
(docker/cli#6603); Docker Hub's Notary service ends on 2026-12-08.
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import hashlib
import json
import re
import typing

# It comes with ansible-core.
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from ansible_collections.bulkhead.hardening.plugins.module_utils import look_trust
from ansible_collections.bulkhead.hardening.plugins.module_utils.daemon_options import release
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import plan as plans, scalars
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.daemon_policy import REGISTRY
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import Json, PolicyError

ROLE: typing.Final = "docker_trust"
RULES: typing.Final = "docker_trust_policy"
REST: typing.Final = "docker_trust_default"
KEYS: typing.Final = "docker_trust_keys"
AUTHORITIES: typing.Final = "docker_trust_registry_cas"
CONTENT_TRUST: typing.Final = "docker_trust_content_trust"

SIGNED: typing.Final = "signed"
REQUIREMENTS: typing.Final = (SIGNED, "digest", "nothing", "refuse")

#: From here on the client does not read the variables of content trust.
_IGNORED_SINCE = (29, 0, 0)

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}\Z")
_PATTERN = re.compile(r"[A-Za-z0-9.:*?-]+(?:/[a-z0-9._*?/-]+)?\Z")
_ABOUT = "Written by Bulkhead (docker_trust), which replaces it; change %s instead."


@dataclasses.dataclass(frozen=True)
class Key:
    """A public key: its text as it is placed, and the SHA-256 of its DER form.

    ``expires`` is the last day on which it verifies anything, in UTC; None for a key without one.
    """

    name: str
    text: str
    sha256: str
    revoked: bool
    expires: datetime.date | None

    @property
    def path(self) -> str:
        """Where it is placed."""
        return f"{look_trust.KEYS}/{self.name}.pub"

    def valid(self, today: datetime.date) -> bool:
        """Whether it verifies anything on a day."""
        return not self.revoked and (self.expires is None or today <= self.expires)


@dataclasses.dataclass(frozen=True)
class Rule:
    """What is demanded of the images that a pattern fits."""

    pattern: str
    require: str
    keys: tuple[str, ...] = ()
    identity: Json | None = None
    offline: bool = False


@dataclasses.dataclass(frozen=True)
class Policy:
    """The checked variables.

    ``authorities`` are texts of certificates by registry; ``server`` is the Notary server of content
    trust, empty for none.
    """

    rules: tuple[Rule, ...]
    default: str
    keys: dict[str, Key]
    authorities: dict[str, str]
    server: str

    @property
    def demands(self) -> bool:
        """Whether there is anything to place for it."""
        return bool(self.rules) or self.default != "nothing"


# -- the variables ---------------------------------------------------------------------------------
def read(raw: object) -> Policy:
    """Check the variables of the role, without a host.

    :param raw: the public variables without their prefix.
    :raises PolicyError: naming the variable, its value and the fix.
    """
    known = {"policy", "default", "keys", "registry_cas", "content_trust"}
    if not isinstance(raw, dict) or set(raw) - known:
        raise PolicyError("policy", raw, "give a mapping of the docker_trust variables")
    default = raw.get("default", "nothing")
    if default not in REQUIREMENTS or default == SIGNED:
        raise PolicyError(
            REST, default, "give digest, nothing or refuse; who signs is a rule's to say"
        )
    keys = _keys(raw.get("keys", {}))
    rules = raw.get("policy", [])
    if not isinstance(rules, list):
        raise PolicyError(RULES, rules, "give a list of rules")
    checked: list[Rule] = []
    for number, rule in enumerate(rules):
        where = f"{RULES}[{number}]"
        checked.append(_rule(where, rule, keys))
        hidden = [old.pattern for old in checked[:-1] if old.pattern in ("*", checked[-1].pattern)]
        if hidden:
            raise PolicyError(f"{where}.pattern", checked[-1].pattern, "it is never reached: the first "
                              f"rule that fits decides, and {hidden[0]} is before it")  # fmt: skip
    return Policy(
        rules=tuple(checked),
        default=default,
        keys=keys,
        authorities=_authorities(raw.get("registry_cas", {})),
        server=_server(raw.get("content_trust", "")),
    )


def _keys(raw: object) -> dict[str, Key]:
    if not isinstance(raw, dict):
        raise PolicyError(KEYS, "(hidden)", "give a mapping of names to public keys")
    found = {}
    for name, value in raw.items():
        where = f"{KEYS}[{name}]"
        if not isinstance(name, str) or not _NAME.match(name):
            fix = "a name has lower-case letters, digits, '_', '.' and '-'"
            raise PolicyError(KEYS, name, fix)
        spec = value if isinstance(value, dict) else {"key": value}
        if set(spec) - {"key", "revoked", "expires"} or not isinstance(spec.get("key"), str):
            raise PolicyError(where, "(hidden)", "give the text of a public key (PEM), or a mapping of "
                              "key, the text, and revoked or expires")  # fmt: skip
        revoked = scalars.boolean(f"{where}.revoked", spec.get("revoked", False))
        expires = _day(f"{where}.expires", spec.get("expires"))
        found[name] = Key(name, *_public(where, spec["key"]), revoked, expires)
    return found


def _day(where: str, value: object) -> datetime.date | None:
    if value is None:
        return None
    try:
        # YAML reads it as a date, and JSON as a text.
        return datetime.date.fromisoformat(str(value))
    except ValueError:
        raise PolicyError(where, value, "give the last day, such as 2027-06-30") from None


def _public(where: str, text: str) -> tuple[str, str]:
    """Return a public key as it is placed, and its fingerprint. What it is not may be a secret."""
    if "PRIVATE KEY" in text:
        raise PolicyError(where, "(hidden)", "this is a private key, which belongs to who signs alone; "
                          "give the public one, such as cosign.pub")  # fmt: skip
    try:
        key = serialization.load_pem_public_key(text.encode())
        forms = serialization.PublicFormat.SubjectPublicKeyInfo
        pem = key.public_bytes(serialization.Encoding.PEM, forms)
        der = key.public_bytes(serialization.Encoding.DER, forms)
    except (ValueError, UnsupportedAlgorithm):
        raise PolicyError(where, "(hidden)", "give the text of a public key, as in the file "
                          "cosign.pub: -----BEGIN PUBLIC KEY-----") from None  # fmt: skip
    return pem.decode(), hashlib.sha256(der).hexdigest()


def _authorities(raw: object) -> dict[str, str]:
    if not isinstance(raw, dict):
        raise PolicyError(AUTHORITIES, "(hidden)", "give a mapping of registries to certificates")
    found = {}
    for name, text in raw.items():
        where = f"{AUTHORITIES}[{name}]"
        if not isinstance(name, str) or not REGISTRY.match(name):
            raise PolicyError(AUTHORITIES, name, "give HOST or HOST:PORT, as images name it")
        try:
            if "PRIVATE KEY" in text:
                raise ValueError
            certificates = x509.load_pem_x509_certificates(text.encode())
        except (ValueError, TypeError, AttributeError):
            raise PolicyError(where, "(hidden)", "give the text of certificates alone, each from "
                              "-----BEGIN CERTIFICATE----- on") from None  # fmt: skip
        pem = serialization.Encoding.PEM
        found[name] = b"".join(item.public_bytes(pem) for item in certificates).decode()
    return found


def _rule(where: str, raw: object, keys: dict[str, Key]) -> Rule:
    if not isinstance(raw, dict):
        raise PolicyError(
            where, raw, "give a mapping such as {pattern: 'docker.io/*', require: digest}"
        )
    for field in raw:
        if field not in ("pattern", "require", "keys", "identity", "offline"):
            raise PolicyError(f"{where}.{field}", raw[field], "a rule has no such field")
    require = raw.get("require")
    if require not in REQUIREMENTS:
        raise PolicyError(f"{where}.require", require, f"give one of {', '.join(REQUIREMENTS)}")
    rule = Rule(
        pattern=_pattern(f"{where}.pattern", raw.get("pattern")),
        require=require,
        keys=_key_names(f"{where}.keys", raw.get("keys", []), keys),
        identity=_identity(f"{where}.identity", raw.get("identity")),
        offline=scalars.boolean(f"{where}.offline", raw.get("offline", False)),
    )
    by_somebody = bool(rule.keys or rule.identity)
    if require == SIGNED and not by_somebody:
        raise PolicyError(where, raw, "say who must have signed: keys, or an identity")
    if require != SIGNED and (by_somebody or rule.offline):
        raise PolicyError(where, raw, "keys, identity and offline go with require: signed alone")
    return rule


def _pattern(where: str, value: object) -> str:
    text = value if isinstance(value, str) else ""
    registry = text.partition("/")[0]
    named = re.search(r"[.:*?]", registry) or registry == "localhost"
    if not _PATTERN.match(text) or not named:
        raise PolicyError(where, value, "give registry and repository, such as docker.io/library/* or "
                          "registry.example.com:5000/shop/*; no tag, no digest")  # fmt: skip
    if text.partition("/")[0] in ("index.docker.io", "registry-1.docker.io"):
        raise PolicyError(where, value, "the registry's name in images is docker.io")
    return text


def _key_names(where: str, value: object, keys: dict[str, Key]) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise PolicyError(where, value, f"give a list of names of {KEYS}")
    for name in value:
        if name not in keys:
            near = difflib.get_close_matches(str(name), keys, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise PolicyError(where, name, f"{KEYS} has no such key{hint}")
    return tuple(dict.fromkeys(value))


def _identity(where: str, value: object) -> Json | None:
    if value is None:
        return None
    identity: Json = dict(value) if isinstance(value, dict) else {}
    named = set(identity) in ({"issuer", "subject"}, {"issuer", "subject_regexp"})
    if not named or not all(isinstance(item, str) and item for item in identity.values()):
        raise PolicyError(where, value, "give {issuer: URL, subject: TEXT}, or subject_regexp")
    if not identity["issuer"].startswith("https://"):
        raise PolicyError(f"{where}.issuer", identity["issuer"], "give the issuer's https URL")
    pattern = identity.get("subject_regexp")
    if pattern and not (pattern.startswith("^") and pattern.endswith("$")):
        raise PolicyError(f"{where}.subject_regexp", pattern, "cosign looks for it anywhere in the "
                          "subject; begin it with ^ and end it with $")  # fmt: skip
    return identity


def _server(value: object) -> str:
    text = value if isinstance(value, str) else "-"
    if text and not re.match(r"https://[A-Za-z0-9.-]+(?::[0-9]{1,5})?/?\Z", text):
        shown = "(hidden)" if "@" in text else value
        raise PolicyError(CONTENT_TRUST, shown, "give the https URL of your Notary server, or ''")
    if re.search(r"[./]docker\.(?:io|com)(?::[0-9]+)?/?\Z", text):
        raise PolicyError(CONTENT_TRUST, value, "Docker's own service is retired and ends on "
                          "2026-12-08; give a Notary server of your own")  # fmt: skip
    return text.rstrip("/")


# -- the files -------------------------------------------------------------------------------------
def document(policy: Policy) -> Json:
    """Return the policy as it is placed on a host, for bulkhead-pull."""
    return {
        "about": _ABOUT % RULES,
        "schema": look_trust.SCHEMA,
        "default": policy.default,
        "rules": [
            {
                "pattern": rule.pattern,
                "require": rule.require,
                "keys": [
                    {"name": key.name, "file": key.path, "sha256": key.sha256}
                    for key in map(policy.keys.__getitem__, rule.keys)
                    if not key.revoked
                ],
                "identity": rule.identity,
                "offline": rule.offline,
            }
            for rule in policy.rules
        ],
        "revoked": [
            {"name": key.name, "sha256": key.sha256} for key in policy.keys.values() if key.revoked
        ],
        "expiring": [
            {"name": key.name, "sha256": key.sha256, "expires": key.expires.isoformat()}
            for key in policy.keys.values()
            if key.expires
        ],
    }


def files(policy: Policy, program: str) -> dict[str, tuple[str, str]]:
    """Return content and mode of the files for the verified pull, by path."""
    if not policy.demands:
        return {}
    text = json.dumps(document(policy), indent=2) + "\n"
    found = {look_trust.POLICY: (text, "0644"), look_trust.PROGRAM: (program, "0755")}
    for key in policy.keys.values():
        if not key.revoked:
            found[key.path] = (key.text, "0644")
    return found


def content_trust_files(server: str, sudo: bool) -> dict[str, tuple[str, str]]:
    """Return the same for content trust.

    :param sudo: the host has sudo, which drops variables that it is not told to keep.
    """
    about = f"# {_ABOUT % CONTENT_TRUST}\n"
    values = {"DOCKER_CONTENT_TRUST": "1", "DOCKER_CONTENT_TRUST_SERVER": server}
    pairs = [f"{name}={value}" for name, value in values.items()]
    manager = "[Manager]\nDefaultEnvironment=" + " ".join(f'"{pair}"' for pair in pairs) + "\n"
    found = {
        look_trust.SHELLS: (f"{about}export {' '.join(pairs)}\n", "0644"),
        look_trust.SYSTEMD: (about + manager, "0644"),
    }
    if sudo:
        kept = f'Defaults env_keep += "{" ".join(values)}"\n'
        found[look_trust.SUDO] = (about + kept, "0440")
    return found


# -- the plan --------------------------------------------------------------------------------------
def plan(observation: Json, policy: Policy, program: str) -> Json:
    """Plan what ``docker_trust`` changes on one host.

    :param observation: a document of schema ``bulkhead.observation/1``.
    :param policy: what :func:`read` returns.
    :param program: the text of bulkhead-pull.
    :returns: a plan of schema ``bulkhead.plan/1``.
    :raises PolicyError: the look lacks what is needed.
    """
    plans.check_look(observation, "engine", "trust", "client")
    return _Planner(observation, policy, program).run()


class _Planner:
    def __init__(self, look: Json, policy: Policy, program: str) -> None:
        self.policy = policy
        self.program = program
        self.engine: Json = look["engine"]
        self.trust: Json = look["trust"]
        self.client: Json = look["client"]
        at = datetime.datetime.fromtimestamp(look["collected_at"], datetime.timezone.utc)
        self.today = at.date()
        self.seen = {row["path"]: row for row in self.trust["files"]}
        owned = (look["bulkhead"].get("owned") or {}).get(ROLE, [])
        self.owned = {item["path"]: item for item in owned if item["kind"] == "file"}
        #: Files that stay as they are: what they belong to is still wanted, and blocked.
        self.kept: set[str] = set()
        self.plan = plans.empty()
        self.plan["roles"] = [ROLE]

    def run(self) -> Json:
        wanted: dict[str, tuple[str, str]] = {}
        reason = self._not_here()
        if reason:
            self._row("image trust", RULES, "not_applicable", reason=reason)
        else:
            wanted = self._verified_pulls() | self._authorities() | self._content_trust()
        for path, (content, mode) in wanted.items():
            self._operation("image trust", self._placing(path, content, mode))
        for path, item in sorted(self.owned.items()):
            if path not in wanted and path not in self.kept:
                self._take_away(path, item)
        return self.plan

    def _not_here(self) -> str | None:
        if self.engine["state"] == "absent":
            return "Docker is not installed"
        return "its users pull with a daemon of their own" if self.engine.get("rootless") else None

    # -- verified pulls ------------------------------------------------------------------------
    def _verified_pulls(self) -> dict[str, tuple[str, str]]:
        wanted = files(self.policy, self.program)
        foreign = self._foreign(wanted)
        if foreign:
            self._row("image trust", RULES, "blocked", reason=f"somebody else's file is at {foreign}; "
                      "remove it")  # fmt: skip
            own = (look_trust.DIRECTORY, look_trust.PROGRAM)
            self.kept.update(path for path in self.owned if path.startswith(own))
            return {}
        state = self._state(wanted)
        for rule in self.policy.rules:
            self._row(f"images {rule.pattern}", RULES, state, wanted=self._wanted(rule))
        if wanted:
            self._row("all other images", REST, state, wanted=self.policy.default)
        if any(rule.require == SIGNED for rule in self.policy.rules) and not self.trust["cosign"]:
            self._row("cosign", RULES, "pending", reason="it is not installed, and until then "
                      "bulkhead-pull refuses what must be signed")  # fmt: skip
        return wanted

    def _wanted(self, rule: Rule) -> str:
        if rule.require != SIGNED:
            return rule.require
        keys = map(self.policy.keys.__getitem__, rule.keys)
        valid = [
            f"{key.name} until {key.expires}" if key.expires else key.name
            for key in keys
            if key.valid(self.today)
        ]
        if rule.identity:
            valid.append(rule.identity.get("subject") or rule.identity["subject_regexp"])
        if not valid:
            return "none: all its keys are revoked or have expired"
        return f"signed by {' or '.join(valid)}"

    # -- authorities of registries -------------------------------------------------------------
    def _authorities(self) -> dict[str, tuple[str, str]]:
        wanted = {}
        for name, text in self.policy.authorities.items():
            # The mode that CIS 3.8 wants, and docker_daemon would give it.
            one = {look_trust.authority(name): (text, "0444")}
            foreign = self._foreign(one)
            setting = f"authority of {name}"
            if foreign:
                self._row(setting, AUTHORITIES, "blocked", reason="somebody else's file is at "
                          f"{foreign}; remove it, or put its certificates here too")  # fmt: skip
                continue
            self._row(setting, AUTHORITIES, self._state(one))
            wanted.update(one)
        return wanted

    # -- content trust -------------------------------------------------------------------------
    def _content_trust(self) -> dict[str, tuple[str, str]]:
        version = self.client["version"]
        ignored = self._ignored(version)
        for row in self.client["content_trust"]:
            if row["path"] not in look_trust.FILES:
                told = (
                    "this client ignores it" if ignored else "what has no trust data is not pulled"
                )
                self._row(f"{row['variable']} in {row['path']}", CONTENT_TRUST, "unmanaged",
                          reason=f"set by somebody else; {told}")  # fmt: skip
        if not self.policy.server:
            return {}
        reason = None
        if version is None:
            reason = f"the client's version is not known: {self.client['reason']}"
        elif ignored:
            reason = f"client {version} ignores it; demand signatures with {RULES}"
        wanted = content_trust_files(self.policy.server, self.trust["sudo"])
        foreign = self._foreign(wanted)
        if reason or foreign:
            reason = reason or f"somebody else's file is at {foreign}; remove it"
            self._row("content trust", CONTENT_TRUST, "blocked", reason=reason)
            if foreign:
                self.kept.update(wanted)
            return {}
        self._row("content trust", CONTENT_TRUST, self._state(wanted),
                  wanted=self.policy.server, reason="sessions and services that run keep what they "
                  "have; cron gives its jobs none of it")  # fmt: skip
        return wanted

    @staticmethod
    def _ignored(version: str | None) -> bool:
        try:
            return bool(version) and release(str(version)) >= _IGNORED_SINCE
        except ValueError:
            return False

    # -- files ---------------------------------------------------------------------------------
    def _state(self, wanted: typing.Mapping[str, tuple[str, str]]) -> str:
        changed = any(self._placing(path, *file) for path, file in wanted.items())
        return "change" if changed else "ok"

    def _placing(self, path: str, content: str, mode: str) -> Json | None:
        seen = self.seen.get(path, {"version": "absent", "sha256": None})
        return plans.file_operation(path, content, self.owned.get(path), seen, mode)

    def _foreign(self, wanted: typing.Mapping[str, tuple[str, str]]) -> str | None:
        """Return a file of somebody else's that is in the way, and says something else."""
        for path, (content, _) in wanted.items():
            row = self.seen.get(path)
            there = row is not None and row["version"] != "absent"
            digest = hashlib.sha256(content.encode()).hexdigest()
            if there and path not in self.owned and typing.cast(Json, row)["sha256"] != digest:
                return path
        return None

    def _take_away(self, path: str, item: Json) -> None:
        why = "somebody else changed it since"
        if item["intact"]:
            why = "no longer in the policy"
            self._row(path, RULES, "change", reason="no longer in the policy: removed")
        self._operation(why, plans.file_operation(path, None, item, item))

    def _operation(self, why: str, operation: Json | None) -> None:
        if operation is not None:
            done = {**operation, "role": ROLE, "undo": "live", "why": why}
            self.plan["operations"].append(done)

    def _row(self, setting: str, variable: str, state: str, **more: typing.Any) -> None:
        self.plan["settings"].append(plans.row(setting, variable, state, **more))
