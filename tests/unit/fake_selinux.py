"""The kernel's SELinux, the store of its policy and the programs that change it, below a directory."""

from __future__ import annotations

import bz2
import pathlib
import shutil
import typing

from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Completed

if typing.TYPE_CHECKING:
    from .fake_engine import FakeHost

POLICY = "/etc/selinux/default"
STORE = "/var/lib/selinux/default/active"
KERNEL = "/sys/fs/selinux"
PROGRAMS = ("semodule", "setsebool", "restorecon")


def _text(path: pathlib.Path) -> bytes:
    data = path.read_bytes()
    return bz2.decompress(data) if data.startswith(b"BZh") else data


class FakeSelinux:
    """A host whose policy is Debian 13's, in short.

    ``relabelled``: the paths that restorecon was given. ``roots``: the daemon's data
    root whenever it was. ``refuses``: what semodule says, or None.
    """

    def __init__(self, host: FakeHost, enforcing: bool = True) -> None:
        self._host = host
        self.relabelled: list[str] = []
        self.roots: list[str] = []
        self.refuses: str | None = None
        for name in PROGRAMS:
            host.write("/usr/sbin/" + name, "", 0o755)
        mode = "enforcing" if enforcing else "permissive"
        host.write("/etc/selinux/config", "# hosts\nSELINUX=%s\nSELINUXTYPE=default\n" % mode)
        host.write(KERNEL + "/enforce", "%d" % enforcing)
        host.write(KERNEL + "/context", "")
        host.write(
            POLICY + "/contexts/lxc_contexts",
            'process = "system_u:system_r:container_t:s0"\n'
            'file = "system_u:object_r:container_file_t:s0"\n',
        )
        host.write(POLICY + "/contexts/files/file_contexts", "")
        host.write(STORE + "/modules/100/container/cil", "")
        for name in ("container_use_nfs", "container_manage_cgroup"):
            host.write("%s/booleans/%s" % (KERNEL, name), "0 0")

    def state(self) -> typing.Any:
        """Return the modules, the booleans and the mode."""
        base = self._host.base
        modules = {
            path.parent.name: _text(path)
            for path in sorted((base / STORE.lstrip("/") / "modules").glob("400/*/cil"))
        }
        booleans = {
            path.name: path.read_text()
            for path in sorted((base / KERNEL.lstrip("/") / "booleans").iterdir())
        }
        return modules, booleans, (base / KERNEL.lstrip("/") / "enforce").read_text()

    def run(self, name: str, arguments: list[str], stdin: bytes | None = None) -> Completed:
        """Do what a program does with these arguments."""
        if name == "restorecon":
            assert arguments == ["-i", "-0", "-f", "-"]
            *paths, rest = (stdin or b"").decode().split("\0")
            self.roots.append(self._host.engine.answers["/info"]["DockerRootDir"])
            assert not rest, "restorecon loses the last character of a name that no separator ends"
            self.relabelled += [
                "/" + str(pathlib.Path(path).relative_to(self._host.base)) for path in paths
            ]
            return Completed(0, "", "")
        if name == "setsebool":
            assert arguments[0] == "-P"
            return self._set(dict(item.split("=") for item in arguments[1:]))
        assert arguments[0] == "--priority=400"
        return self._modules(arguments[1:])

    def _set(self, values: dict[str, str]) -> Completed:
        kept = self._host.base / STORE.lstrip("/") / "booleans.local"
        lines = dict(
            line.split("=") for line in (kept.read_text() if kept.exists() else "").splitlines()
        )
        for name, value in {**lines, **values}.items():
            self._host.write("%s/booleans/%s" % (KERNEL, name), "%s %s" % (value, value))
            lines[name] = value
        self._host.write(STORE + "/booleans.local", "".join("%s=%s\n" % i for i in lines.items()))
        return Completed(0, "", "")

    def _modules(self, arguments: list[str]) -> Completed:
        base = self._host.base / STORE.lstrip("/") / "modules/400"
        texts = {}
        for argument in arguments:
            option, _, value = argument.partition("=")
            if option == "--install":
                path = pathlib.Path(value)
                texts[path.stem] = path.read_bytes()
        wrong = [name for name, text in texts.items() if b"bogus" in text]
        if wrong or self.refuses:
            return Completed(1, "", self.refuses or "Failed to resolve %s at line 1" % wrong[0])
        for argument in arguments:
            option, _, value = argument.partition("=")
            if option == "--remove":
                if not (base / value).exists():
                    return Completed(1, "", "no module %s" % value)
                shutil.rmtree(base / value)
        for name, text in texts.items():
            (base / name).mkdir(parents=True, exist_ok=True)
            (base / name / "cil").write_bytes(bz2.compress(text))
        return Completed(0, "", "libsemanage.add_user: user sddm not in password file\n")
