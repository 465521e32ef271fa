"""The look's section ``kernel``: parameters and who sets them at boot, modules, the command line."""

from __future__ import annotations

import hashlib
import pathlib
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import look, sysctls
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import Notes
from ansible_collections.bulkhead.hardening.plugins.module_utils.sysctls import Assignment

from .fake_engine import FakeHost, fake_host

Json = dict[str, typing.Any]
KPTR, PTRACE = "kernel.kptr_restrict", "kernel.yama.ptrace_scope"
REDIRECTS = "net.ipv4.conf.all.accept_redirects"


@pytest.fixture
def host() -> typing.Iterator[FakeHost]:
    with fake_host() as made:
        yield made


def section(host: FakeHost) -> Json:
    answer = look.observe(host, ["kernel"])
    assert answer["unread"] == []
    return typing.cast(Json, answer["kernel"])


def places(host: FakeHost, name: str) -> tuple[str | None, str | None]:
    """Return which line sets a parameter, and which one does in spite of ours: VALUE FILE:LINE."""
    row = section(host)["sysctls"][name]
    found = [row["set_by"], row["overruled_by"]]
    told = [one and "%s %s:%d" % (one["value"], one["path"], one["line"]) for one in found]
    return told[0], told[1]


# -- what is there ---------------------------------------------------------------------------------
def test_running_values_of_what_this_kernel_has(host: FakeHost) -> None:
    host.write("/proc/sys/fs/protected_fifos", " 1\t\n")
    found = section(host)["sysctls"]
    assert found[KPTR] == {"value": "0", "set_by": None, "overruled_by": None}
    assert found["fs.protected_fifos"]["value"] == "1"
    assert "kernel.warn_limit" not in found
    assert "net.ipv4.ip_forward" not in found


def test_the_command_line_gives_away_only_what_is_looked_for(host: FakeHost) -> None:
    host.write("/proc/cmdline", "secret=hunter2 vsyscall=none slab_nomerge lockdown=$(x)\n")
    assert section(host)["boot"] == {"vsyscall": "none", "slab_nomerge": ""}


def test_lockdown_and_modules(host: FakeHost) -> None:
    found = section(host)
    assert (found["lockdown"], found["modules_loaded"]) == ("none", ["udf"])
    (host.base / "sys/kernel/security/lockdown").unlink()
    (host.base / "proc/modules").unlink()
    found = section(host)
    assert (found["lockdown"], found["modules_loaded"]) == (None, [])


def test_modules_that_somebody_else_blocks(host: FakeHost) -> None:
    text = "# install rds /bin/false\ninstall dccp /bin/false\ninstall n-hdlc /usr/bin/true\n"
    host.write("/etc/modprobe.d/theirs.conf", text + "blacklist sctp\ninstall tipc /sbin/x\n")
    host.write("/usr/lib/modprobe.d/theirs.conf", "install atm /bin/false\n")
    host.write("/etc/modprobe.d/bulkhead-docker.conf", "install can /bin/false\n")
    assert section(host)["modules_blocked"] == {
        "dccp": "/etc/modprobe.d/theirs.conf:2",
        "n_hdlc": "/etc/modprobe.d/theirs.conf:3",
    }


def test_our_files_with_what_they_hold(host: FakeHost) -> None:
    host.write(sysctls.FILE, "x\n")
    files = {row["path"]: row for row in section(host)["files"]}
    assert files[sysctls.FILE]["sha256"] == hashlib.sha256(b"x\n").hexdigest()
    assert files[sysctls.FILE]["version"] == host.version(sysctls.FILE)
    other = files["/etc/modprobe.d/bulkhead-docker.conf"]
    assert (other["version"], other["sha256"]) == ("absent", None)
    assert section(host)["boot_directory"] is False


def test_what_cannot_be_read_is_said(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Host.read_bytes

    def read(self: Host, path: str, *rest: int) -> bytes:
        if path in ("/proc/cmdline", "/proc/modules", "/proc/sys/kernel/kptr_restrict"):
            raise PermissionError(13, "Permission denied")
        return original(self, path, *rest)

    monkeypatch.setattr(Host, "read_bytes", read)
    answer = look.observe(host, ["kernel"])
    assert {row["item"] for row in answer["unread"]} == {"/proc/cmdline", "/proc/modules", KPTR}
    assert answer["kernel"]["boot"] is None


# -- who sets it at boot ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "overrules"),
    [
        ("/etc/sysctl.d/99-theirs.conf", True),
        ("/etc/sysctl.d/61.conf", True),
        ("/usr/lib/sysctl.d/99-protect-links.conf", True),
        ("/run/sysctl.d/60-z.conf", True),
        ("/etc/sysctl.d/50-theirs.conf", False),
        ("/etc/sysctl.d/60-a.conf", False),
    ],
)
def test_files_are_read_in_the_order_of_their_names(
    host: FakeHost, path: str, overrules: bool
) -> None:
    host.write(sysctls.FILE, KPTR + " = 2\n")
    host.write(path, "; note\n\n%s=1\n" % KPTR)
    line = "1 %s:3" % path
    assert places(host, KPTR) == (line, line if overrules else None)


def test_the_last_file_wins_over_the_last_line_of_others(host: FakeHost) -> None:
    host.write("/usr/lib/sysctl.d/70-a.conf", KPTR + "=1\n" + KPTR + "=0\n")
    host.write("/etc/sysctl.d/50-b.conf", KPTR + "=2\n")
    assert places(host, KPTR)[0] == "0 /usr/lib/sysctl.d/70-a.conf:2"


def test_a_name_in_etc_hides_the_same_elsewhere(host: FakeHost) -> None:
    host.write("/usr/lib/sysctl.d/99-x.conf", KPTR + "=0\n")
    host.write("/etc/sysctl.d/99-x.conf", PTRACE + "=1\n")
    assert places(host, KPTR) == (None, None)


def test_a_link_to_nothing_hides_it_in_all(host: FakeHost) -> None:
    host.write("/usr/lib/sysctl.d/99-x.conf", KPTR + "=0\n")
    (host.base / "etc/sysctl.d").mkdir(parents=True, exist_ok=True)
    (host.base / "etc/sysctl.d/99-x.conf").symlink_to("/dev/null")
    assert places(host, KPTR) == (None, None)


def test_sysctl_conf_counts_where_a_link_says_so(host: FakeHost) -> None:
    """Debian 12 has the link; on 13 nothing reads the file at boot."""
    host.write("/etc/sysctl.conf", KPTR + "=0\n")
    assert places(host, KPTR) == (None, None)
    (host.base / "etc/sysctl.d").mkdir(parents=True, exist_ok=True)
    (host.base / "etc/sysctl.d/99-sysctl.conf").symlink_to("../sysctl.conf")
    assert places(host, KPTR)[1] == "0 /etc/sysctl.d/99-sysctl.conf:1"


def test_a_glob_sets_what_nobody_names_and_never_overrules(host: FakeHost) -> None:
    host.write("/proc/sys/net/ipv4/conf/all/accept_redirects", "1\n")
    host.write("/etc/sysctl.d/99-x.conf", "net.ipv4.conf.*.accept_redirects = 1\n")
    assert places(host, REDIRECTS) == ("1 /etc/sysctl.d/99-x.conf:1", None)
    host.write("/etc/sysctl.d/10-y.conf", REDIRECTS + " = 0\n")
    assert places(host, REDIRECTS) == ("0 /etc/sysctl.d/10-y.conf:1", None)


def test_a_bare_key_keeps_globs_off(host: FakeHost) -> None:
    host.write("/proc/sys/net/ipv4/conf/all/accept_redirects", "1\n")
    host.write("/etc/sysctl.d/99-x.conf", "net.ipv4.conf.*.accept_redirects = 1\n-%s\n" % REDIRECTS)
    assert places(host, REDIRECTS) == (None, None)


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("a.b = 1", "a.b", "1"),
        ("-a.b=  1   2 ", "a.b", "1 2"),
        ("- a.b = 1", "a.b", "1"),
        ("a/b = 1", "a.b", "1"),
        ("net/ipv4/conf/eth0.1/x = 1", "net.ipv4.conf.eth0/1.x", "1"),
        ("net.ipv4.conf.eth0/1.x = 1", "net.ipv4.conf.eth0/1.x", "1"),
        ("-a.b", "a.b", None),
        ("a.b =", "a.b", ""),
    ],
)
def test_lines_as_systemd_takes_them(line: str, key: str, value: str | None) -> None:
    assert sysctls.parse(line, "f") == [Assignment(key, value, "f", 1, False)]


@pytest.mark.parametrize("line", ["", "# a=1", ";a=1", "a.b", "= 1", "-", "- = 1"])
def test_lines_that_systemd_leaves_out(line: str) -> None:
    assert sysctls.parse(line, "f") == []


def test_a_directory_with_too_much_in_it_is_said(host: FakeHost) -> None:
    for number in range(205):
        host.write("/etc/sysctl.d/%03d.conf" % number, "")
    notes = Notes()
    sysctls.assignments(host, notes)
    assert notes.rows == [
        {"section": "kernel", "item": "/etc/sysctl.d", "reason": "more than 200 files"}
    ]


def test_long_values_are_cut(host: FakeHost) -> None:
    host.write("/etc/sysctl.d/10-x.conf", KPTR + "=" + "9" * 5000)
    row = section(host)["sysctls"][KPTR]["set_by"]
    assert len(row["value"]) == 64


def test_nothing_is_touched(host: FakeHost) -> None:
    path = pathlib.Path(host.write("/etc/sysctl.d/10-x.conf", KPTR + "=1\n"))
    before = path.stat()
    section(host)
    after = path.stat()
    assert (before.st_atime_ns, before.st_mtime_ns) == (after.st_atime_ns, after.st_mtime_ns)
