"""What systemd would run: words, variables, environment files, drop-ins, and the state of units."""

from __future__ import annotations

import pathlib

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import look_systemd
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Completed, Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_common import (
    UnreadableError,
)

DOCKER_CE = """\
[Service]
Type=notify
ExecStart=/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock
"""
DEBIAN = """\
[Service]
EnvironmentFile=-/etc/default/docker
ExecStart=/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock $DOCKER_OPTS
"""
FEDORA = """\
[Service]
Type=notify
EnvironmentFile=-/etc/sysconfig/docker
EnvironmentFile=-/etc/sysconfig/docker-storage
ExecStart=/usr/bin/dockerd \\
          --host=fd:// \\
          # systemd skips a comment in between
          --exec-opt native.cgroupdriver=systemd \\
          $OPTIONS \\
          $DOCKER_STORAGE_OPTIONS
"""
UNIT = "/usr/lib/systemd/system/docker.service"
DROPIN = "/etc/systemd/system/docker.service.d/10.conf"


def service(tmp_path: pathlib.Path, files: dict[str, str]) -> look_systemd.Service:
    """Return the service whose unit and drop-ins are among ``files``."""
    for path, content in files.items():
        target = tmp_path / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    units = [path for path in (UNIT, DROPIN) if path in files]
    return look_systemd.Service(Host(str(tmp_path)), units)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("  a\tb  ", ["a", "b"]),
        ("'a b' \"c d\"", ["a b", "c d"]),
        ("a' b'\"c\"", ["a bc"]),
        ("''", [""]),
        (r"a\x20b \101 \u00e4", ["a b", "A", "\u00e4"]),
        (r"a\sb \\ \q", ["a b", "\\", "\\q"]),
        ("'un closed", ["un closed"]),
        ("end\\", ["end\\"]),
    ],
)
def test_words_are_split_as_systemd_does(line: str, words: list[str]) -> None:
    assert look_systemd.split_words(line) == words


@pytest.mark.parametrize(
    ("content", "variables"),
    [
        ("A=b", {"A": "b"}),
        ("# A=b\n; C=d\n\n", {}),
        ("A=b # no comment", {"A": "b # no comment"}),
        ("  A = b c  \r\n", {"A": "b c"}),
        ("A=\"b  c\" \nD='e f'", {"A": "b  c", "D": "e f"}),
        ('A="b\\"c\\\\d\\$e\\n"', {"A": 'b"c\\d$e\\n'}),
        ("A=b\\\nc", {"A": "bc"}),
        ("A='b\nc'", {"A": "b\nc"}),
        ("A=b\nA=c", {"A": "c"}),
        ("A=", {"A": ""}),
        ("export A=b\n1A=c\nno assignment\nB=d", {"B": "d"}),
        ("A=b'c d'e\\ f", {"A": "bc de f"}),
    ],
)
def test_environment_files_are_no_shell(content: str, variables: dict[str, str]) -> None:
    assert look_systemd.parse_environment_file(content) == variables


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(
            {UNIT: DOCKER_CE},
            [
                ("/usr/bin/dockerd", "flag", UNIT),
                ("-H", "flag", UNIT),
                ("fd://", "flag", UNIT),
                ("--containerd=/run/containerd/containerd.sock", "flag", UNIT),
            ],
            id="docker-ce",
        ),
        pytest.param(
            {
                UNIT: DEBIAN,
                "/etc/default/docker": "DOCKER_OPTS=\"--icc=false --log-opt 'tag=a b'\"\n",
            },
            [
                ("/usr/sbin/dockerd", "flag", UNIT),
                ("-H", "flag", UNIT),
                ("fd://", "flag", UNIT),
                ("--containerd=/run/containerd/containerd.sock", "flag", UNIT),
                ("--icc=false", "environment", "/etc/default/docker"),
                ("--log-opt", "environment", "/etc/default/docker"),
                ("tag=a b", "environment", "/etc/default/docker"),
            ],
            id="debian",
        ),
        pytest.param(
            {
                UNIT: FEDORA,
                "/etc/sysconfig/docker": "OPTIONS='--selinux-enabled --live-restore'\n",
            },
            [
                ("/usr/bin/dockerd", "flag", UNIT),
                ("--host=fd://", "flag", UNIT),
                ("--exec-opt", "flag", UNIT),
                ("native.cgroupdriver=systemd", "flag", UNIT),
                ("--selinux-enabled", "environment", "/etc/sysconfig/docker"),
                ("--live-restore", "environment", "/etc/sysconfig/docker"),
            ],
            id="fedora",
        ),
        pytest.param(
            {
                UNIT: DEBIAN,
                DROPIN: "[Service]\nExecStart=\n"
                'Environment="X=--debug --icc=false" "Y=a b"\n'
                "ExecStart=-/opt/dockerd $X --label=${Y}z $$HOME a$X $NONE ${NONE}\n",
            },
            [
                ("/opt/dockerd", "flag", DROPIN),
                ("--debug", "environment", DROPIN),
                ("--icc=false", "environment", DROPIN),
                ("--label=a bz", "environment", DROPIN),
                ("$HOME", "flag", DROPIN),
                ("a$X", "flag", DROPIN),
                ("", "flag", DROPIN),
            ],
            id="drop-in with variables",
        ),
        pytest.param(
            {UNIT: "[Service]\nEnvironment=X=y\nExecStart=:@/opt/dockerd dockerd $X 100%%\n"},
            [
                ("/opt/dockerd", "flag", UNIT),
                ("$X", "flag", UNIT),
                ("100%", "flag", UNIT),
            ],
            id="prefixes",
        ),
    ],
)
def test_the_command_line_of_a_unit(
    tmp_path: pathlib.Path, files: dict[str, str], expected: list[tuple[str, str, str]]
) -> None:
    assert [tuple(word) for word in service(tmp_path, files).words] == expected


def test_environment_files_override_and_may_have_wildcards(tmp_path: pathlib.Path) -> None:
    found = service(
        tmp_path,
        {
            UNIT: "[Service]\nEnvironmentFile=/etc/d/*.env\nEnvironmentFile=-/none\n"
            "Environment=A=unit B=unit\nExecStart=/x $A $B\n",
            "/etc/d/1.env": "A=one",
            "/etc/d/2.env": "A=two",
            "/etc/d/3.txt": "A=three",
        },
    )
    assert [word.text for word in found.words] == ["/x", "two", "unit"]


@pytest.mark.parametrize("content", ["[Service]\nType=simple\n", "[Unit]\nExecStart=/x\n"])
def test_a_unit_without_a_command(tmp_path: pathlib.Path, content: str) -> None:
    with pytest.raises(UnreadableError, match="no ExecStart"):
        service(tmp_path, {UNIT: content})


class Systemctl(Host):
    """A host whose systemctl answers what it is told."""

    def __init__(self, answer: Completed) -> None:
        super().__init__()
        self.answer = answer

    def run(self, argv: list[str], timeout: float = 60.0, stdin: bytes | None = None) -> Completed:
        """Answer."""
        return self.answer


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Completed(1, "", "Failed to connect to bus: Host is down\nmore"), "Host is down"),
        (Completed(127, "", "systemctl: not found"), "not found"),
        (Completed(3, "", ""), "exit status 3"),
        (Completed(0, "Id=docker.service\n", ""), "1 of 3 units"),
    ],
)
def test_systemd_that_does_not_answer(answer: Completed, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        look_systemd.show_units(Systemctl(answer), 1.0)
