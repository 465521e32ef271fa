#!/usr/bin/python3
# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
# Placed by Bulkhead's role docker_trust, which replaces it. What it demands is docker_trust_policy.
"""Pulls images as the host's policy demands: resolve to a digest, verify, pull by that digest, record.

A tag is resolved once. What is verified and what is pulled are both named by the digest that it led to, so
nobody can swap one for the other in between. The daemon resolves and pulls, with its own mirrors,
certificates and proxies; cosign verifies.

exit status:
  0  every image was pulled
  2  wrong usage, not root, or no policy that can be read
  3  an image was refused: unsigned, signed by nobody who is trusted, or ruled out
  4  the daemon could not resolve or pull an image
  5  cosign is needed and could not be run
  6  an image was pulled, and that could not be recorded
Of several images the highest counts; the others are pulled all the same.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import fcntl
import fnmatch
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import typing
import urllib.parse

SCHEMA = "bulkhead.trust/1"
POLICY = "/etc/bulkhead/trust/policy.json"
RECORDS = "/var/lib/bulkhead/trust"
RECORDS_FILE = "verifications.jsonl"
MOST_RECORDS = 2000

#: Programs are looked for here alone: the caller's PATH may lead elsewhere.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Variables of the caller that would change what cosign trusts.
_STEERING = ("COSIGN_", "SIGSTORE_", "TUF_")

OK, USAGE, REFUSED, NOT_PULLED, NO_COSIGN, NOT_RECORDED = 0, 2, 3, 4, 5, 6

_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REGISTRY = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?\Z")
_REPOSITORY = re.compile(r"%s(?:/%s)*\Z" % (_PART, _PART))
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_MOST_BYTES = 64 * 1024 * 1024

Json = dict[str, typing.Any]


class Failure(Exception):
    """An image, or all of them, cannot be pulled; ``code`` is the exit status for it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Image(typing.NamedTuple):
    """A name taken apart, as the engine does: ``registry/path``, and a tag, a digest or both."""

    registry: str
    path: str
    tag: str | None
    digest: str | None

    @property
    def repository(self) -> str:
        """The name without tag and digest, which patterns are compared with."""
        return "%s/%s" % (self.registry, self.path)


def parse(name: str) -> Image:
    """Take a name apart; without a registry it is Docker Hub's, without tag and digest ``latest``.

    Source: github.com/distribution/reference, ParseDockerRef and splitDockerDomain.

    :raises Failure: it is not the name of an image in a registry.
    """
    rest, at, digest = name.partition("@")
    match = re.match(r"(.+?)(?::([A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?\Z", rest)
    path, tag = match.groups() if match else ("", None)
    registry, slash, inner = path.partition("/")
    if slash and (re.search(r"[.:]", registry) or registry == "localhost"):
        path = inner
    else:
        registry = "docker.io"
    if registry in ("docker.io", "index.docker.io"):
        registry, path = "docker.io", path if "/" in path else "library/" + path
    if at and not _DIGEST.match(digest):
        raise Failure(USAGE, "the digest is not sha256: and 64 hexadecimal digits")
    if not _REGISTRY.match(registry) or not _REPOSITORY.match(path):
        raise Failure(USAGE, "this is not the name of an image in a registry")
    return Image(registry, path, tag if tag or digest else "latest", digest or None)


def printable(text: str, most: int = 300) -> str:
    """Return a text of somebody else's so that a terminal shows it and does nothing else."""
    return re.sub(r"[^\x20-\x7e]", "?", text)[:most]


# -- the policy ------------------------------------------------------------------------------------
def read_policy(path: str) -> Json:
    """Read the policy that the role placed.

    :raises Failure: it is not there, others may write it, or it is not of this release.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            status = os.fstat(stream.fileno())
            policy = json.load(stream)
    except (OSError, ValueError) as exc:
        raise Failure(USAGE, "%s cannot be read: %s" % (path, exc)) from exc
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise Failure(USAGE, "%s is somebody else's to write; be root, and let it be root's" % path)
    if not isinstance(policy, dict) or policy.get("schema") != SCHEMA:
        raise Failure(USAGE, "%s is not of schema %s" % (path, SCHEMA))
    return policy


def rule_for(policy: Json, image: Image) -> Json:
    """Return the first rule whose pattern fits; without one, what the policy says of the rest."""
    for rule in policy["rules"]:
        if fnmatch.fnmatchcase(image.repository, rule["pattern"]):
            return typing.cast(Json, rule)
    return {"pattern": "", "require": policy["default"], "keys": [], "identity": None}


def still_valid(policy: Json, rule: Json) -> Json:
    """Return a rule without the keys whose last day, in UTC, is over."""
    today = time.strftime("%Y-%m-%d", time.gmtime())
    over = {key["sha256"] for key in policy["expiring"] if key["expires"] < today}
    return {**rule, "keys": [key for key in rule["keys"] if key["sha256"] not in over]}


def fingerprint(path: str) -> str:
    """Return the SHA-256 of a public key (of its DER form), which the policy names it by."""
    with open(path, encoding="ascii") as stream:
        lines = [line.strip() for line in stream if not line.startswith("-----")]
    return hashlib.sha256(base64.b64decode("".join(lines), validate=True)).hexdigest()


# -- the daemon ------------------------------------------------------------------------------------
class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Engine:
    """The Docker Engine API over its unix socket.

    :param timeout: seconds that the daemon may be silent.
    """

    def __init__(self, path: str, timeout: float) -> None:
        self._path = path
        self._timeout = timeout

    def ask(
        self, method: str, path: str, auth: str | None = None, **query: str
    ) -> tuple[int, bytes]:
        """Make a request; return its status and the answer.

        :param auth: for the header X-Registry-Auth.
        :raises Failure: there is no answer.
        """
        headers = {"X-Registry-Auth": auth} if auth else {}
        target = urllib.parse.quote(path, safe="/:@")
        if query:
            target += "?" + urllib.parse.urlencode(query)
        connection = _Connection(self._path, self._timeout)
        try:
            connection.request(method, target, headers=headers)
            response = connection.getresponse()
            return response.status, response.read(_MOST_BYTES)
        except (OSError, http.client.HTTPException) as exc:
            raise Failure(NOT_PULLED, "the daemon at %s: %s" % (self._path, exc)) from exc
        finally:
            connection.close()

    def resolve(self, image: Image, auth: str | None) -> str:
        """Return the digest that a registry has for a tag now.

        :raises Failure: the daemon does not learn it.
        """
        name = "%s:%s" % (image.repository, image.tag)
        status, answer = self.ask("GET", "/distribution/%s/json" % name, auth)
        document = _decoded(answer)
        digest = (document.get("Descriptor") or {}).get("digest")
        if status >= 400 or not _DIGEST.match(str(digest)):
            raise Failure(NOT_PULLED, "not resolved: %s" % _message(document, status))
        return str(digest)

    def identifier(self, name: str) -> str | None:
        """Return the id of an image that is on this host; None when it is not."""
        status, answer = self.ask("GET", "/images/%s/json" % name)
        return str(_decoded(answer).get("Id")) if status < 400 else None

    def pull(self, image: Image, digest: str, auth: str | None) -> str:
        """Pull an image by its digest, give it its tag, and return its id.

        :raises Failure: it could not be pulled, or the daemon has something else now.
        """
        status, answer = self.ask(
            "POST", "/images/create", auth, fromImage=image.repository, tag=digest
        )
        # A stream of JSON lines, sent with status 200 before anything can go wrong.
        lines = [_decoded(line) for line in answer.splitlines()]
        wrong = [line for line in lines if line.get("error")] or (lines if status >= 400 else [])
        if wrong or status >= 400:
            raise Failure(NOT_PULLED, "not pulled: %s" % _message((wrong or [{}])[0], status))
        name = "%s@%s" % (image.repository, digest)
        identifier = self.identifier(name)
        if identifier is None:
            raise Failure(NOT_PULLED, "not pulled: the daemon has no image of that digest")
        if image.tag:
            status, answer = self.ask(
                "POST", "/images/%s/tag" % name, repo=image.repository, tag=image.tag
            )
            if status >= 400:
                raise Failure(NOT_PULLED, "not tagged: %s" % _message(_decoded(answer), status))
        return identifier


def _decoded(answer: bytes) -> Json:
    try:
        document = json.loads(answer)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _message(document: Json, status: int) -> str:
    text = document.get("error") or document.get("message") or "status %d" % status
    return printable(str(text))


def registry_auth(registry: str, path: str) -> str | None:
    """Return what ``docker login`` left for a registry, as the header X-Registry-Auth wants it.

    None when it left nothing there; helpers that keep credentials elsewhere are not asked.
    """
    address = "https://index.docker.io/v1/" if registry == "docker.io" else registry
    try:
        with open(path, encoding="utf-8") as stream:
            entry = json.load(stream)["auths"][address]
        user, _, password = base64.b64decode(entry.get("auth") or "").decode().partition(":")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    document = {"username": user, "password": password, "serveraddress": address}
    if entry.get("identitytoken"):
        document = {"identitytoken": entry["identitytoken"], "serveraddress": address}
    elif not user:
        return None
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode()


# -- cosign ----------------------------------------------------------------------------------------
def signer_options(rule: Json) -> typing.Iterator[tuple[Json, list[str]]]:
    """Yield those who may have signed, each with cosign's options for them.

    :raises Failure: the file of a key is not the one that the policy means.
    """
    for key in rule["keys"]:
        try:
            found = fingerprint(key["file"])
        except (OSError, ValueError):
            found = ""
        if found != key["sha256"]:
            raise Failure(USAGE, "%s is not the key that the policy means" % key["file"])
        options = ["--key", key["file"]]
        if rule["offline"]:
            options += ["--insecure-ignore-tlog=true"]
        yield {"key": key["name"], "key_sha256": found, "identity": None}, options
    identity = rule["identity"]
    if identity:
        subject = identity.get("subject_regexp")
        named = "--certificate-identity-regexp" if subject else "--certificate-identity"
        subject = subject or identity["subject"]
        options = [named, subject, "--certificate-oidc-issuer", identity["issuer"]]
        if rule["offline"]:
            options += ["--offline=true"]
        yield {"key": None, "key_sha256": None, "identity": subject}, options


def verify(image: Image, digest: str, rule: Json, timeout: float) -> Json:
    """Return who signed an image, of those who are trusted.

    :raises Failure: nobody did, or cosign could not be run.
    """
    program = shutil.which("cosign", path=PATH)
    if program is None:
        raise Failure(NO_COSIGN, "cosign is not installed, and the policy wants a signature")
    if not rule["keys"] and not rule["identity"]:
        raise Failure(REFUSED, "every key that could have signed it is revoked or has expired")
    reasons = []
    for signer, options in signer_options(rule):
        authority = "/etc/docker/certs.d/%s/ca.crt" % image.registry
        if os.path.exists(authority):
            options = [*options, "--registry-cacert", authority]
        argv = [program, "verify", "--output", "json", *options]
        rc, out, err = _run([*argv, "%s@%s" % (image.repository, digest)], timeout)
        if rc == 0 and signed_digests(out) == {digest}:
            return signer
        said = [line for line in err.splitlines() if line.strip()]
        reason = said[-1].rpartition("error during command execution: ")[2] if said else ""
        who = signer["key"] or signer["identity"]
        reasons.append("%s: %s" % (who, printable(reason) or "cosign ended with status %d" % rc))
    raise Failure(REFUSED, "not signed by anybody who is trusted (%s)" % "; ".join(reasons))


def signed_digests(output: str) -> set[str]:
    """Return the digests that verified signatures are about, from cosign's answer."""
    try:
        return {
            str(payload["critical"]["image"]["docker-manifest-digest"])
            for payload in json.loads(output)
        }
    except (ValueError, KeyError, TypeError):
        return set()


def _run(argv: list[str], timeout: float) -> tuple[int, str, str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_STEERING)}
    environment["PATH"] = PATH
    environment.setdefault("HOME", "/root")
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 124, "", "no answer within %g s" % timeout
    except OSError as exc:
        raise Failure(NO_COSIGN, "cosign could not be run: %s" % exc) from exc
    return (
        done.returncode,
        done.stdout.decode("utf-8", "replace"),
        done.stderr.decode("utf-8", "replace"),
    )


# -- the records -----------------------------------------------------------------------------------
def record(row: Json, directory: str) -> None:
    """Keep what was pulled and why; of the same name and digest only the newest.

    :raises OSError: it could not be written; what was there before is whole.
    """
    for made in (os.path.dirname(directory), directory):  # the host's own state: root's alone
        with contextlib.suppress(FileExistsError):
            os.mkdir(made, 0o700)
    path = os.path.join(directory, RECORDS_FILE)
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        rows = [old for old in read_records(path) if _subject(old) != _subject(row)]
        lines = [json.dumps(item, sort_keys=True) for item in [*rows, row][-MOST_RECORDS:]]
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + ".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path + ".new", flags, 0o600), "w", encoding="utf-8") as stream:
            stream.write("\n".join(lines) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(path + ".new", path)
        os.fsync(opened)
    finally:
        os.close(opened)


def _subject(row: Json) -> tuple[object, ...]:
    return tuple(row.get(name) for name in ("repository", "tag", "digest"))


def read_records(path: str) -> list[Json]:
    """Return the records that are kept; lines that are none are left out."""
    try:
        with open(path, "rb") as stream:
            rows = [_decoded(line) for line in stream]
    except FileNotFoundError:
        return []
    return [row for row in rows if row]


# -- all together ----------------------------------------------------------------------------------
def pull(name: str, policy: Json, engine: Engine, config: str, timeout: float) -> Json:
    """Pull one image as the policy demands; return the record of it, and whether anything changed.

    :raises Failure: it is refused, or something is in the way.
    """
    image = parse(name)
    rule = rule_for(policy, image)
    require = rule["require"]
    if require not in ("signed", "digest", "nothing"):
        raise Failure(REFUSED, "the policy rules it out%s" % _by(rule))
    if require == "digest" and not image.digest:
        raise Failure(REFUSED, "the policy wants it named by digest%s" % _by(rule))
    auth = registry_auth(image.registry, config)
    digest = image.digest or engine.resolve(image, auth)
    signer: Json = {"key": None, "key_sha256": None, "identity": None}
    if require == "signed":
        signer = verify(image, digest, still_valid(policy, rule), timeout)
    there = "%s:%s" % (image.repository, image.tag) if image.tag else ""
    before = engine.identifier(there or "%s@%s" % (image.repository, digest))
    identifier = engine.pull(image, digest, auth)
    return {
        "repository": image.repository,
        "tag": image.tag,
        "digest": digest,
        "image_id": identifier,
        "at": time.time(),
        "rule": rule["pattern"],
        "require": require,
        **signer,
        "changed": before != identifier,
    }


def _by(rule: Json) -> str:
    return " (rule %s)" % rule["pattern"] if rule["pattern"] else " (no rule names it)"


def shown(row: Json) -> str:
    """Return what was done about an image, as a line."""
    by = row["key"] or row["identity"]
    why = "signed by %s" % by if by else "by digest, unverified"
    rule = row["rule"] or "none"
    tag = ":%s" % row["tag"] if row["tag"] else ""
    return "%s%s %s: %s, rule %s" % (row["repository"], tag, row["digest"], why, rule)


def one(name: str, policy: Json, options: argparse.Namespace) -> int:
    """Pull and record one image, say how it went, and return the exit status for it."""
    answer: Json = {"image": name, "reason": None}
    code = OK
    try:
        engine = Engine(options.socket, options.timeout)
        row = pull(name, policy, engine, options.config, options.timeout)
        answer.update(row)
        del row["changed"]
        try:
            record(row, options.records)
        except OSError as exc:
            raise Failure(NOT_RECORDED, "pulled, but not recorded: %s" % exc) from exc
    except Failure as exc:
        code, answer["reason"] = exc.code, str(exc)
    answer["status"] = code
    if options.json:
        print(json.dumps(answer, sort_keys=True), flush=True)
    elif code:
        print("bulkhead-pull: %s: %s" % (printable(name), answer["reason"]), file=sys.stderr)
    else:
        print(shown(answer), flush=True)
    return code


def main(argv: list[str]) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(
        prog="bulkhead-pull",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    home = os.environ.get("DOCKER_CONFIG") or os.path.join(
        os.environ.get("HOME", "/root"), ".docker"
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--json", action="store_true", help="answer with a JSON document a line")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for each step")
    parser.add_argument("--socket", default="/var/run/docker.sock", help="the daemon's")
    parser.add_argument("--policy", default=POLICY, help=argparse.SUPPRESS)
    parser.add_argument("--records", default=RECORDS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    options.config = os.path.join(home, "config.json")
    try:
        policy = read_policy(options.policy)
    except Failure as exc:
        print("bulkhead-pull: %s" % exc, file=sys.stderr)
        return exc.code
    return max(one(name, policy, options) for name in dict.fromkeys(options.images))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
