"""The kernel's AppArmor and its parser, as files below a directory and a program that answers."""

from __future__ import annotations

import hashlib
import pathlib
import re
import shutil
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Completed

if typing.TYPE_CHECKING:
    from .fake_engine import FakeHost

PARSER = "/usr/sbin/apparmor_parser"
KERNEL = "/sys/kernel/security/apparmor"
#: What the engine loads by itself.
BUILTIN = "profile docker-default {\n  network,\n  file,\n}\n"
_COMPILED = b"compiled "


class FakeAppArmor:
    """What is loaded, by name; ``refuses``: return what the kernel says against a text, or None."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host
        self.policies: dict[str, str] = {}
        self.refuses: typing.Callable[[str], str | None] = lambda text: None
        host.write(PARSER, "", 0o755)
        host.write("/etc/apparmor.d/abi/3.0", "")
        host.write("/etc/systemd/system/sysinit.target.wants/apparmor.service", "")
        (host.base / "var/cache/apparmor/1a2b.0").mkdir(parents=True)
        self.replace(BUILTIN)

    def run(self, arguments: list[str], stdin: bytes | None) -> Completed:
        """Do what apparmor_parser does with these arguments."""
        if arguments == ["--version"]:
            return Completed(0, "AppArmor parser version 4.1.0\nCopyright\n", "")
        path = pathlib.Path(arguments[-1]) if arguments[-1][0] == "/" else None
        binary = "--binary" in arguments
        if path is not None and not binary:
            path = self._host.base / str(path).lstrip("/")
        data = path.read_bytes() if path else stdin or b""
        if binary:
            assert data.startswith(_COMPILED)
            data = data[len(_COMPILED) :]
        text = data.decode()
        match = re.search(r"^profile (\S+)", text, re.MULTILINE)
        bogus = next((n for n, line in enumerate(text.splitlines(), 1) if "bogus" in line), 0)
        if bogus or not match:
            return Completed(1, "", "AppArmor parser error at line %d: syntax error\n" % bogus)
        if "--skip-kernel-load" in arguments:
            return Completed(0, "", "Warning from stdin: no cache\n")
        if "--remove" in arguments:
            if match[1] not in self.policies:
                return Completed(254, "", "%s: Profile doesn't exist\n" % match[1])
            del self.policies[match[1]]
            self._show()
            return Completed(0, "", "")
        assert "--replace" in arguments
        reason = self.refuses(text)
        if reason:
            return Completed(1, "", reason)
        if "--write-cache" in arguments and path:
            (self._host.base / "var/cache/apparmor/1a2b.0" / path.name).write_text(text)
        self.replace(text)
        return Completed(0, "", "")

    def replace(self, text: str) -> None:
        """Load a profile."""
        match = re.search(r"^profile (\S+)", text, re.MULTILINE)
        assert match
        self.policies[match[1]] = text
        self._show()

    def _show(self) -> None:
        base = self._host.base / KERNEL.lstrip("/") / "policy/profiles"
        shutil.rmtree(base, ignore_errors=True)
        rows = []
        for number, (name, text) in enumerate(sorted(self.policies.items())):
            directory = "%s/policy/profiles/%s.%d" % (KERNEL, name, number)
            self._host.write(directory + "/name", name + "\n")
            digest = hashlib.sha256(text.encode()).hexdigest()
            self._host.write(directory + "/sha256", digest + "\n")
            self._host.write(directory + "/raw_data", _COMPILED + text.encode())
            head = next(line for line in text.splitlines() if line.startswith("profile "))
            rows.append("%s (%s)\n" % (name, "complain" if "complain" in head else "enforce"))
        self._host.write(KERNEL + "/profiles", "".join(rows))
