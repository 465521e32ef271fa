# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""systemd as a look sees it: the state of units, and the command line that a unit would run.

Source: systemctl(1), systemd.service(5) "Command lines", systemd.exec(5) EnvironmentFile=, and for
the corners of quoting systemd's extract-word.c, env-util.c and env-file.c.
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    Mapping,
    UnreadableError,
    number,
    os_reason,
)

UNITS = ("docker.service", "docker.socket", "containerd.service")

_PROPERTIES = (
    "Id,LoadState,ActiveState,SubState,UnitFileState,FragmentPath,DropInPaths,EnvironmentFiles,"
    "NeedDaemonReload,MainPID,Result,NRestarts,Listen,SocketMode,SocketUser,SocketGroup"
)


def is_init(host: Host) -> bool:
    """Tell whether systemd runs this host, as sd_booted(3) does."""
    return host.lstat("/run/systemd/system") is not None


def manager(host: Host, timeout: float) -> dict[str, list[str]]:
    """Return properties of systemd itself: Version and DefaultTasksMax.

    :raises UnreadableError: systemd did not answer.
    """
    return _show(host, ["--property=Version,DefaultTasksMax"], timeout)[0]


def show_units(host: Host, timeout: float) -> dict[str, Mapping]:
    """Return the state of docker.service, docker.socket and containerd.service, in one call.

    :raises UnreadableError: systemd did not answer.
    """
    blocks = _show(host, ["--property=" + _PROPERTIES, "--", *UNITS], timeout)
    if len(blocks) != len(UNITS):
        raise UnreadableError("systemctl show described %d of %d units" % (len(blocks), len(UNITS)))
    return {name: _unit(name, block) for name, block in zip(UNITS, blocks)}


def socket_units(host: Host, timeout: float) -> dict[str, str]:
    """Return which active socket unit listens on which address: ``{"/run/x.sock": "x.socket"}``.

    :raises UnreadableError: systemd did not answer.
    """
    found = {}
    arguments = ["--property=Id,Listen,ActiveState", "--", "*.socket"]
    for block in _show(host, arguments, timeout):
        if block.get("ActiveState") == ["active"]:
            for address in _addresses(block):
                found[address] = _first(block, "Id") or "?"
    return found


def unit_states(host: Host, name: str, timeout: float) -> Mapping:
    """Return ``load_state``, ``active_state``, ``unit_file_state`` and ``main_pid`` of one unit.

    :raises UnreadableError: systemd did not answer.
    """
    properties = "--property=LoadState,ActiveState,UnitFileState,MainPID"
    block = _show(host, [properties, "--", name], timeout)[0]
    return {
        "load_state": _first(block, "LoadState"),
        "active_state": _first(block, "ActiveState"),
        "unit_file_state": _first(block, "UnitFileState"),
        "main_pid": number(_first(block, "MainPID")) or None,
    }


def _show(host: Host, arguments: list[str], timeout: float) -> list[dict[str, list[str]]]:
    done = host.run(["systemctl", "show", "--no-pager", *arguments], timeout=timeout)
    if done.rc != 0:
        reason = done.err.strip().split("\n")[0] or "exit status %d" % done.rc
        raise UnreadableError("systemctl show: %s" % reason)
    blocks: list[dict[str, list[str]]] = []
    for chunk in re.split(r"\n\s*\n", done.out.strip("\n")):
        block: dict[str, list[str]] = {}
        for line in chunk.split("\n"):
            name, separator, value = line.partition("=")
            if separator:
                block.setdefault(name, []).append(value)
        blocks.append(block)
    return blocks


def _first(block: dict[str, list[str]], name: str) -> str | None:
    values = block.get(name)
    return values[0] if values and values[0] else None


def _unit(name: str, block: dict[str, list[str]]) -> Mapping:
    unit: Mapping = {
        "load_state": _first(block, "LoadState"),
        "active_state": _first(block, "ActiveState"),
        "sub_state": _first(block, "SubState"),
        "unit_file_state": _first(block, "UnitFileState"),
        "fragment": _first(block, "FragmentPath"),
        "dropins": split_words(_first(block, "DropInPaths") or ""),
        "environment_files": [
            re.sub(r" \(ignore_errors=(?:yes|no)\)\Z", "", value)
            for value in block.get("EnvironmentFiles", [])
            if value
        ],
        "need_daemon_reload": _first(block, "NeedDaemonReload") == "yes",
        "main_pid": number(_first(block, "MainPID")) or None,
        "result": _first(block, "Result"),
        "n_restarts": number(_first(block, "NRestarts")),
    }
    if name.endswith(".socket"):
        unit["listen"] = _addresses(block)
        # Of a unit that is not loaded systemd shows its own default, 0666.
        loaded = unit["load_state"] == "loaded"
        unit["socket_mode"] = _first(block, "SocketMode") if loaded else None
        unit["socket_user"] = _first(block, "SocketUser")
        unit["socket_group"] = _first(block, "SocketGroup")
    return unit


def _addresses(block: dict[str, list[str]]) -> list[str]:
    return [re.sub(r" \(\w+\)\Z", "", value) for value in block.get("Listen", []) if value]


# -- words -------------------------------------------------------------------------------------
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "s": " "}
_CODE = re.compile(r"x([0-9a-fA-F]{2})|([0-3][0-7]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})")


def split_words(line: str, escapes: bool = True) -> list[str]:
    """Split a line as systemd splits commands: blanks part words, both kinds of quotes join them.

    :param escapes: decode C escapes; without, a backslash only protects the next character.
    """
    words: list[str] = []
    word: str | None = None
    quote = ""
    position = 0
    while position < len(line):
        char = line[position]
        position += 1
        if char == "\\" and position < len(line):
            decoded, width = _escape(line, position) if escapes else (line[position], 1)
            word = (word or "") + decoded
            position += width
        elif quote:
            if char == quote:
                quote = ""
            else:
                word = (word or "") + char
        elif char in "\"'":
            quote, word = char, word or ""
        elif char in " \t\n\r":
            if word is not None:
                words.append(word)
            word = None
        else:
            word = (word or "") + char
    if word is not None:
        words.append(word)
    return words


def _escape(line: str, position: int) -> tuple[str, int]:
    """Decode the escape whose first character after the backslash is at ``position``."""
    code = _CODE.match(line, position)
    if code:
        octal = code.group(2)
        value = int(octal, 8) if octal else int(code.group(1) or code.group(3) or code.group(4), 16)
        return (chr(value) if 0 < value < 0x110000 else ""), len(code.group(0))
    char = line[position]
    if char in _ESCAPES:
        return _ESCAPES[char], 1
    return (char if char in "\\\"'" else "\\" + char), 1


# -- the command line of a service ---------------------------------------------------------------
class Word(typing.NamedTuple):
    """One argument of a service, and where its text stands.

    ``source`` is ``flag`` (in the unit) or ``environment`` (it came in through a variable).
    ``where`` is the path of the unit, drop-in or environment file.
    """

    text: str
    source: str
    where: str


class Variable(typing.NamedTuple):
    """The value of an environment variable of a service, and the file that sets it."""

    value: str
    where: str


class Service:
    """What the files of a service say it runs: ``words`` and ``environment``.

    :param files: its fragment and then its drop-ins, in the order in which systemd reads them.
    :raises UnreadableError: one of them cannot be read, or there is no ExecStart.
    """

    def __init__(self, host: Host, files: typing.Sequence[str]) -> None:
        self._host = host
        commands: list[Variable] = []
        inline: list[Variable] = []
        env_files: list[Variable] = []
        lists = {"ExecStart": commands, "Environment": inline, "EnvironmentFile": env_files}
        for path in files:
            try:
                content = host.read_text(path)
            except OSError as exc:
                raise UnreadableError("%s: %s" % (path, os_reason(exc))) from exc
            for name, value in assignments(content, "Service"):
                if name in lists:
                    if not value:  # an empty assignment forgets all earlier ones
                        del lists[name][:]
                    else:
                        lists[name].append(Variable(value, path))
        if not commands:
            raise UnreadableError("no ExecStart in %s" % ", ".join(files))
        self.environment = self._environment(inline, env_files)
        #: what stands before the program, of "-", "@", ":", "+", "!" and "|"
        self.prefix = ""
        self.words = self._resolve(commands[-1])

    def _environment(
        self, inline: list[Variable], env_files: list[Variable]
    ) -> dict[str, Variable]:
        found = {}
        for entry in inline:
            for word in split_words(entry.value):
                name, separator, value = word.partition("=")
                if separator:
                    found[name] = Variable(value.replace("%%", "%"), entry.where)
        for entry in env_files:  # these override Environment=, later ones override earlier ones
            for path in self._matching(entry.value.lstrip("-").strip()):
                try:
                    content = self._host.read_text(path)
                except OSError:  # with a leading "-" not needed; without it the unit cannot start
                    continue
                for name, value in parse_environment_file(content).items():
                    found[name] = Variable(value, path)
        return found

    def _matching(self, pattern: str) -> list[str]:
        """Return the files that an EnvironmentFile= names, which may hold wildcards."""
        directory, name = posixpath.split(pattern)
        if not re.search(r"[*?\[]", name):
            return [pattern]
        try:
            names = self._host.listdir(directory)
        except OSError:
            return []
        return [posixpath.join(directory, item) for item in fnmatch.filter(names, name)]

    def _resolve(self, command: Variable) -> list[Word]:
        words = split_words(command.value)
        prefix = re.match(r"[-@:+!|]*", words[0]) if words else None
        marks = self.prefix = prefix.group(0) if prefix else ""
        words[:1] = [words[0][len(marks) :]] if words else []
        if "@" in marks:  # the second word is only argv[0]
            del words[1:2]
        if ":" in marks:  # no variables
            return [Word(word.replace("%%", "%"), "flag", command.where) for word in words]
        resolved: list[Word] = []
        for word in words:
            resolved.extend(self._expand(word.replace("%%", "%"), command.where))
        return resolved

    def _expand(self, word: str, where: str) -> list[Word]:
        """Expand ``$NAME`` as a whole word, which is split, and ``${NAME}``, which is not."""
        whole = re.match(r"\$([A-Za-z_][A-Za-z0-9_]*)\Z", word)
        if whole:
            variable = self.environment.get(whole.group(1))
            if variable is None:
                return []
            parts = split_words(variable.value, escapes=False)
            return [Word(part, "environment", variable.where) for part in parts]
        origin = ["flag", where]

        def replace(match: re.Match[str]) -> str:
            if match.group(0) == "$$":
                return "$"
            variable = self.environment.get(match.group(1))
            if variable is None:
                return ""
            origin[:] = ["environment", variable.where]
            return variable.value

        expanded = re.sub(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)\}", replace, word)
        return [Word(expanded, origin[0], origin[1])]


def assignments(content: str, section: str) -> list[tuple[str, str]]:
    """Return the ``name = value`` pairs of one section of a unit file, in order.

    A backslash at the end of a line joins it with the next one; comments in between are skipped.
    """
    found = []
    current = ""
    pending = ""
    for line in content.split("\n"):
        stripped = line.strip()
        if stripped[:1] in ("#", ";"):
            continue
        if stripped.endswith("\\"):
            pending += stripped[:-1] + " "
            continue
        stripped, pending = (pending + stripped).strip(), ""
        header = re.match(r"\[(.*)\]\Z", stripped)
        if header:
            current = header.group(1)
        elif current == section and "=" in stripped:
            name, _, value = stripped.partition("=")
            found.append((name.strip(), value.strip()))
    return found


_ENVIRONMENT_LINE = re.compile(
    r"""
    ^[ \t]*(?:[\#;](?:[^\n\\]|\\.)*                   # a comment, to the end of its (joined) line
    |(?P<name>[^\s=\#;][^=\n]*?)[ \t]*=[ \t]*         # a name
     (?P<value>(?:"(?:[^"\\]|\\.)*"|'[^']*'|\\.|[^\n"'\\])*)
    )""",
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
_ENVIRONMENT_PART = re.compile(
    r'"(?P<double>(?:[^"\\]|\\.)*)"|\'(?P<single>[^\']*)\'|\\(?P<escaped>.)|(?P<plain>[^"\'\\]+)',
    re.DOTALL,
)


def parse_environment_file(content: str) -> dict[str, str]:
    """Return the variables that an EnvironmentFile= sets, as systemd reads it (it is no shell)."""
    found = {}
    for line in _ENVIRONMENT_LINE.finditer(content):
        name = line.group("name")
        if name is None or not re.match(r"[A-Za-z_][A-Za-z0-9_]*\Z", name):
            continue
        value = ""
        raw = line.group("value").rstrip(" \t\r")
        for part in _ENVIRONMENT_PART.finditer(raw):
            if part.group("double") is not None:
                value += _unescape_double(part.group("double"))
            elif part.group("escaped") is not None:
                value += "" if part.group("escaped") == "\n" else part.group("escaped")
            else:
                value += part.group("single") or part.group("plain") or ""
        found[name] = value
    return found


def _unescape_double(value: str) -> str:
    """Undo the escapes that count between double quotes: those of ``" \\ ` $`` and of a newline."""

    def replace(match: re.Match[str]) -> str:
        char = match.group(1)
        if char == "\n":
            return ""
        return char if char in '"\\`$' else "\\" + char

    return re.sub(r"\\(.)", replace, value, flags=re.DOTALL)
