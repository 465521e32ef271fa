# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Images: how they are named and used, what they set, and how they were built.

The engine answers about the configuration of an image and about its history with a request each.
Both stand in one file, the image's configuration, which the engine keeps under the name of its own
SHA-256: that name proves the content, and no request is needed. Only what cannot be read there is
asked for. Source: the OCI image specification (config.md, image-index.md), moby image/fs.go,
containerd plugins/content/local.

Values of variables and arguments of instructions stay on the host.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import shlex
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    UnreadableError,
    integer,
    mapping,
    os_reason,
    reference,
    sequence,
    text,
    texts,
    timestamp,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_containers import healthcheck

#: Repositories of the images that Bulkhead makes for a moment, for a health check and for attacks, and
#: prefixes of their containers' names.
HEALTH: typing.Final = "bulkhead-health"
PROOF: typing.Final = "bulkhead-proof"

_BLOBS = "io.containerd.content.v1.content/blobs/sha256/"

#: How many steps of one history are told; no engine builds an image with more layers than 127.
_MAX_STEPS = 500


def image(entry: Mapping, used: dict[str, int]) -> Mapping:
    """Return one image from the list of images. ``created`` is in seconds since the epoch.

    :param used: how many containers use an image, by its id.
    """
    identifier = text(entry.get("Id"))
    labels = mapping(entry.get("Labels"))
    tags = [tag for tag in texts(entry.get("RepoTags")) if tag != "<none>:<none>"]
    digests = [item for item in texts(entry.get("RepoDigests")) if not item.startswith("<none>@")]
    return {
        "id": identifier,
        "tags": tags,
        "digests": digests,
        "references": [
            {key: value for key, value in reference(name).items() if key != "by_id"}
            for name in [*tags, *digests]
        ],
        "dangling": not tags,
        "used_by": used.get(identifier, 0),
        "size": integer(entry.get("Size")) or 0,
        "created": integer(entry.get("Created")) or 0,
        "label_count": len(labels),
        "bulkhead": "bulkhead.role" in labels and _is_ours(tags, digests),
    }


def _is_ours(tags: list[str], digests: list[str]) -> bool:
    """Tell whether all names of an image are of those that Bulkhead gives, and none of a registry.

    An image may label itself. A containerd image store gives digests to what was imported, too.
    """
    names = {name.partition("@")[0].rpartition(":")[0] for name in tags}
    names |= {name.partition("@")[0] for name in digests}
    return bool(tags) and names <= {HEALTH, PROOF}


# -- where the configuration of an image is kept ---------------------------------------------------
class Store:
    """The files in which the engine keeps the configurations of its images.

    :param root: the data root in use. ``driver`` is the storage driver's name.
    :param containerd_roots: where its containerd may keep its content.
    """

    def __init__(
        self, host: Host, root: str, driver: str, containerd_roots: typing.Sequence[str]
    ) -> None:
        self._host = host
        self._places = [posixpath.join(root, "image", driver, "imagedb/content/sha256/")]
        self._places += [posixpath.join(path, _BLOBS) for path in containerd_roots]

    def config(self, identifier: str, architecture: str) -> Mapping:
        """Return the configuration of an image.

        :param architecture: of the host, as Go names it, to choose from an image of several.
        :raises UnreadableError: it is not in the store, or not what its name says.
        """
        document = self._read(identifier)
        for _ in range(3):  # an index may name an index, that a manifest, that the configuration
            if "rootfs" in document:
                return document
            document = self._next(document, architecture)
        raise UnreadableError("more than an index, a manifest and a configuration")

    def _next(self, document: Mapping, architecture: str) -> Mapping:
        if "config" in document:
            return self._read(text(mapping(document["config"]).get("digest")))
        rows = [mapping(item) for item in sequence(document.get("manifests"))]
        rows.sort(key=lambda row: _platform(row) != architecture)
        reason = "an index without manifests"
        for row in rows:
            if _platform(row) == "unknown":
                continue  # an attestation, not an image
            try:
                return self._read(text(row.get("digest")))
            except UnreadableError as exc:  # other platforms are rarely there
                reason = str(exc)
        raise UnreadableError(reason)

    def _read(self, digest: str) -> Mapping:
        match = re.match(r"sha256:([0-9a-f]{64})\Z", digest)
        if not match:
            raise UnreadableError("no SHA-256 names it")
        reason = "not in the image store"
        for place in self._places:
            try:
                data = self._host.read_bytes(place + match.group(1))
            except FileNotFoundError:
                continue
            except OSError as exc:
                reason = os_reason(exc)
                continue
            if hashlib.sha256(data).hexdigest() != match.group(1):
                reason = "its content is not what its name says"
                continue
            try:
                return mapping(json.loads(data))
            except (ValueError, RecursionError):
                reason = "no valid JSON"
        raise UnreadableError(reason)


def _platform(row: Mapping) -> str:
    return text(mapping(row.get("platform")).get("architecture"))


def asked(inspect: Mapping, history: list[typing.Any] | None) -> Mapping:
    """Return a configuration from the answers of the engine, in the shape of the stored one.

    :param history: the answer about the history, newest first; None when it was not asked for.
    """
    document: Mapping = {
        "config": inspect.get("Config"),
        "architecture": inspect.get("Architecture"),
        "os": inspect.get("Os"),
        "created": inspect.get("Created"),
        "rootfs": {"diff_ids": mapping(inspect.get("RootFS")).get("Layers")},
    }
    if history is not None:
        document["history"] = [
            {
                "created_by": row.get("CreatedBy"),
                "created": integer(row.get("Created")),
                "comment": row.get("Comment"),
                # The answer does not tell empty layers from layers without bytes.
                "empty_layer": not integer(row.get("Size")),
            }
            for row in map(mapping, reversed(history))
        ]
    return document


# -- what the configuration says -------------------------------------------------------------------
def contents(document: Mapping, source: str) -> Mapping:
    """Return what an image sets and how it was built, from its configuration.

    :param source: ``store`` or ``api``. Both tell ``history`` as None when there was none to read.
    """
    config = mapping(document.get("config"))
    steps = document.get("history")
    return {
        "error": None,
        "config": {
            "user": text(config.get("User")),
            "healthcheck": healthcheck(config),
            "env_names": _env_names(config),
            "exposed_ports": sorted(mapping(config.get("ExposedPorts"))),
            "volumes": len(mapping(config.get("Volumes"))),
            "has_entrypoint": bool(config.get("Entrypoint")),
            "has_command": bool(config.get("Cmd")),
            "architecture": text(document.get("architecture")),
            "os": text(document.get("os")),
        },
        "created_at": _moment(document.get("created")),
        "layer_count": len(layers(document)),
        "base_ids": [],
        "history": None if steps is None and source == "api" else _history(document),
        "history_source": source,
    }


def unreadable(reason: str) -> Mapping:
    """Return the same of an image whose configuration cannot be read."""
    names = ("config", "created_at", "layer_count", "base_ids", "history", "history_source")
    return {**dict.fromkeys(names), "error": reason}


def layers(document: Mapping) -> list[str]:
    """Return the digests of an image's layers, lowest first."""
    return texts(mapping(document.get("rootfs")).get("diff_ids"))


def _env_names(config: Mapping) -> list[str]:
    return [item.partition("=")[0] for item in texts(config.get("Env"))]


def _moment(value: typing.Any) -> float | None:
    seconds = integer(value)
    return float(seconds) if seconds is not None else timestamp(value)


def _history(document: Mapping) -> list[Mapping]:
    names = frozenset(_env_names(mapping(document.get("config"))))
    found = []
    first = True
    for index, row in enumerate(map(mapping, sequence(document.get("history"))[:_MAX_STEPS])):
        empty = row.get("empty_layer") is True
        step = _step(text(row.get("created_by")), text(row.get("comment")), names)
        step.update(
            index=index,
            empty=empty,
            created_at=_moment(row.get("created")),
            own=True,
            first_layer=first and not empty,
        )
        first = first and empty
        found.append(step)
    return found


_INSTRUCTIONS = frozenset(
    {"ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL",
     "MAINTAINER", "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"}
)  # fmt: skip

# ``|2 A=x B=y /bin/sh -c command``: build arguments stand before the command.
_SHELL = re.compile(r"(?:\|\d+ .*?)?(?:/\S+/)?\w*sh(?: -\w+)* -\w*c\w* ", re.DOTALL)


def _step(created_by: str, comment: str, names: frozenset[str]) -> Mapping:
    """Return what one step of a build did, without its arguments.

    The classic builder writes ``/bin/sh -c #(nop) ENV a=b`` and ``/bin/sh -c command``, BuildKit
    ``ENV a=b`` and ``RUN /bin/sh -c command # buildkit``.
    """
    instruction, arguments = "OTHER", ""
    legacy = re.match(r"\S*sh -\w+ #\(nop\)\s+(\S+)\s*(.*)\Z", created_by, re.DOTALL)
    shell = _SHELL.match(created_by)
    word, _, rest = created_by.partition(" ")
    if legacy:
        instruction, arguments = legacy.groups()
    elif word in _INSTRUCTIONS:
        instruction, arguments = word, re.sub(r"\s+# buildkit\s*\Z", "", rest)
    elif shell:
        instruction, arguments = "RUN", created_by
    elif comment.startswith("Imported from") or (not created_by and comment):
        instruction = "IMPORT"
    if instruction not in _INSTRUCTIONS and instruction != "IMPORT":
        instruction = "OTHER"
    packages = _packages(arguments) if instruction == "RUN" else frozenset()
    return {
        "instruction": instruction,
        "index_update": "update" in packages,
        "install": "install" in packages,
        "add_remote": _remote(arguments, legacy is not None) if instruction == "ADD" else None,
        "names": _assigned(instruction, arguments, names),
    }


def _remote(arguments: str, legacy: bool) -> bool | None:
    """Tell whether an ADD fetched something. The classic builder shows only a hash of it."""
    if re.search(r"(?:\A|\s|\")(?:https?|ftp|git|ssh)://|(?:\A|\s)git@", arguments):
        return True
    if legacy and not re.match(r"(?:file|dir):", arguments):
        return None
    return False


def _assigned(instruction: str, arguments: str, names: frozenset[str]) -> list[str]:
    """Return the names that an ENV or ARG sets. A value may look like another assignment."""
    if instruction == "ARG":
        match = re.match(r"\s*([A-Za-z_]\w*)", arguments)
        return [match.group(1)] if match else []
    if instruction != "ENV":
        return []
    try:
        words = shlex.split(arguments)
    except ValueError:
        words = arguments.split()
    found = []
    for word in words:
        name = word.partition("=")[0]
        if name in names and name not in found:  # what the image itself says it sets
            found.append(name)
    return found


_TOOLS = frozenset(
    {"apk", "apt", "apt-get", "aptitude", "dnf", "microdnf", "tdnf", "yum", "zypper"}
)
_UPDATES = frozenset({"update", "makecache", "check-update", "refresh", "ref"})
_INSTALLS = frozenset(
    {"add", "install", "in", "upgrade", "dist-upgrade", "full-upgrade", "dist-sync", "reinstall",
     "groupinstall", "group", "localinstall", "build-dep", "patch", "dup"}
)  # fmt: skip
# Options whose value is a word of its own.
_WITH_VALUE = frozenset(
    {"-o", "-c", "-t", "-X", "-p", "-R", "--option", "--target-release", "--repository",
     "--root", "--installroot", "--releasever", "--setopt", "--disablerepo", "--enablerepo"}
)  # fmt: skip


def _packages(command: str) -> frozenset[str]:
    """Return ``update`` and ``install`` for what a command does to packages."""
    found = set()
    for part in re.split(r"&&|\|\||[;|&\n(){}]", command):
        words = part.replace('"', " ").replace("'", " ").split()
        for position, word in enumerate(words):
            if posixpath.basename(word) in _TOOLS:
                verb = _verb(words[position + 1 :])
                if verb in _UPDATES:
                    found.add("update")
                elif verb in _INSTALLS:
                    found.add("install")
                break
    return frozenset(found)


def _verb(words: list[str]) -> str:
    skip = False
    for word in words:
        if skip or word == "\\":
            skip = False
        elif word.startswith("-"):
            skip = word in _WITH_VALUE
        else:
            return word
    return ""


def find_bases(rows: typing.Sequence[Mapping], documents: dict[str, Mapping]) -> None:
    """Fill in on which images of this host each one is built, and which steps are its own.

    :param rows: images with their contents.
    :param documents: their configurations, by id; those without one have no base.
    """
    known = {identifier: tuple(layers(item)) for identifier, item in documents.items()}
    by_layers: dict[tuple[str, ...], list[str]] = {}
    for identifier, chain in known.items():
        by_layers.setdefault(chain, []).append(identifier)
    for row in rows:
        chain = known.get(row["id"], ())
        bases: list[str] = []
        for length in range(len(chain) - 1, 0, -1):
            bases += sorted(by_layers.get(chain[:length], ()))
        if bases and row.get("history"):
            _mark(row["history"], documents[row["id"]], documents[bases[0]])
        if row.get("base_ids") is not None:
            row["base_ids"] = bases


def _mark(history: list[Mapping], document: Mapping, base: Mapping) -> None:
    """Mark the steps of a history that are those of the base."""
    steps, below = sequence(document.get("history")), sequence(base.get("history"))
    inherited = len(below)
    if steps[:inherited] != below:  # not told in the same words: count layers instead
        left, inherited = len(layers(base)), 0
        for step in history:
            left -= not step["empty"]
            if left < 0:
                break
            inherited += 1
            if left == 0:
                break
    for step in history[:inherited]:
        step["own"] = False
