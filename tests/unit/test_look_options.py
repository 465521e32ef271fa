"""dockerd's flags as options, and what of their values may be shown."""

from __future__ import annotations

import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import look_options
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_systemd import Word


def parse(*arguments: str) -> tuple[dict[str, typing.Any], str]:
    """Return the values by key, and the configuration file."""
    words = [Word(text, "flag", "unit") for text in arguments]
    settings, config_file = look_options.parse_flags(words)
    return {key: setting.value for key, setting in settings.items()}, config_file


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ([], {}),
        (["--icc=false"], {"icc": False}),
        (["--icc"], {"icc": True}),
        (["--icc", "false"], {"icc": True}),  # pflag: a switch takes no separate value
        (["--icc=0", "--iptables=F", "--ip6tables=TRUE"],
         {"icc": False, "iptables": False, "ip6tables": True}),
        (["--icc=maybe"], {"icc": "maybe"}),
        (["-D"], {"debug": True}),
        (["-D=false"], {"debug": False}),
        (["-H", "fd://"], {"hosts": ["fd://"]}),
        (["-Hfd://"], {"hosts": ["fd://"]}),
        (["-H=fd://", "--host", "unix:///x"], {"hosts": ["fd://", "unix:///x"]}),
        (["-DH", "fd://"], {"debug": True, "hosts": ["fd://"]}),
        (["-l", "warn", "-s", "vfs", "-G", "ops", "-g", "/d", "-b", "br0", "-p", "/p"],
         {"log-level": "warn", "storage-driver": "vfs", "group": "ops", "data-root": "/d",
          "bridge": "br0", "pidfile": "/p"}),
        (["--graph=/d"], {"data-root": "/d"}),
        (["--log-driver", "syslog", "--log-opt", "a=b", "--log-opt=c=d=e"],
         {"log-driver": "syslog", "log-opts": {"a": "b", "c": "d=e"}}),
        (["--default-ulimit", "nofile=1:2", "--default-ulimit=nproc=5"],
         {"default-ulimits": {"nofile": {"Name": "nofile", "Soft": 1, "Hard": 2},
                              "nproc": {"Name": "nproc", "Soft": 5, "Hard": 5}}}),
        (["--exec-opt", "native.cgroupdriver=systemd"],
         {"exec-opts": ["native.cgroupdriver=systemd"]}),
        (["--add-runtime", "runsc=/usr/bin/runsc"],
         {"runtimes": {"runsc": {"path": "/usr/bin/runsc"}}}),
        (["--insecure-registry=r:5000", "--registry-mirror=https://m"],
         {"insecure-registries": ["r:5000"], "registry-mirrors": ["https://m"]}),
        (["--feature", "cdi=false", "--feature=time-namespaces"],
         {"features": {"cdi": False, "time-namespaces": True}}),
        (["--default-network-opt", "bridge=a.b=false", "--default-network-opt=bridge=c=d"],
         {"default-network-opts": {"bridge": {"a.b": "false", "c": "d"}}}),
        (["--default-address-pool", "base=10.0.0.0/8,size=24"],
         {"default-address-pools": [{"base": "10.0.0.0/8", "size": 24}]}),
        (["--default-shm-size=64M", "--mtu=1400"], {"default-shm-size": 67108864, "mtu": 1400}),
        (["--containerd-plugins-namespace=x"], {"containerd-plugin-namespace": "x"}),
        (["--selinux-enabled", "--live-restore", "--userns-remap=u"],
         {"selinux-enabled": True, "live-restore": True, "userns-remap": "u"}),
        (["--validate", "--version", "-v", "--restart=false"], {}),
        (["--no-such-flag=x"], {"no-such-flag": "x"}),
        (["--", "--icc=false"], {}),
        (["--host"], {"hosts": [""]}),
        (["-"], {}),
    ],
)  # fmt: skip
def test_flags_become_options(arguments: list[str], values: dict[str, typing.Any]) -> None:
    assert parse(*arguments)[0] == values


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ([], "/etc/docker/daemon.json"),
        (["--config-file=/x"], "/x"),
        (["--config-file", "/x", "-D"], "/x"),
    ],
)
def test_the_configuration_file(arguments: list[str], path: str) -> None:
    assert parse(*arguments)[1] == path


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("nofile=1024", {"Name": "nofile", "Soft": 1024, "Hard": 1024}),
        ("nofile=1024:2048", {"Name": "nofile", "Soft": 1024, "Hard": 2048}),
        ("core=-1", {"Name": "core", "Soft": -1, "Hard": -1}),
        ("nofile=many:2", {"Name": "nofile", "Soft": "many", "Hard": 2}),
        ("nofile", {"Name": "nofile", "Soft": "", "Hard": ""}),
    ],
)
def test_limits(text: str, limit: dict[str, typing.Any]) -> None:
    assert look_options.parse_ulimit(text) == limit


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64M", 67108864),
        ("1.5g", 1610612736),
        ("512", 512),
        ("1kB", 1024),
        ("2MiB", 2097152),
        ("x", "x"),
    ],
)
def test_sizes(text: str, size: object) -> None:
    assert look_options.parse_size(text) == size


@pytest.mark.parametrize(
    ("key", "value", "visible", "redacted"),
    [
        ("icc", False, False, False),
        ("icc", "false", None, True),  # of another type: put there for another purpose
        ("hosts", ["tcp://u:p@h:1?x=y", "fd://"], ["tcp://h:1", "fd://"], True),
        ("registry-mirrors", ["https://u:p@m/x"], ["https://m/x"], True),
        ("registry-mirrors", ["https://m/x"], ["https://m/x"], False),
        ("registry-mirrors", [{"password": "p"}], None, True),
        ("insecure-registries", ["u:p@r:5000"], ["r:5000"], True),
        ("labels", ["a=b"], None, True),
        ("http-proxy", "http://u:p@h", None, True),
        ("no-such-key", 1, None, True),
        ("log-opts", {"max-size": "1m", "splunk-token": "s"}, {"max-size": "1m"}, True),
        ("log-opts", {"max-size": "1m"}, {"max-size": "1m"}, False),
        ("log-opts", {"max-size": {"hidden": 1}}, {}, True),
        ("runtimes", {"r": {"path": "/r", "runtimeArgs": ["s"]}}, {"r": {"path": "/r"}}, True),
        ("features", {"cdi": True}, {"cdi": True}, False),
        ("default-address-pools", [{"base": "b", "size": 1}], [{"base": "b", "size": 1}], False),
    ],
)
def test_what_may_be_shown(key: str, value: object, visible: object, redacted: bool) -> None:
    shown = look_options.shown(key, value)
    assert (shown.value if shown.visible else None, shown.redacted) == (visible, redacted)


def test_source_and_place_are_those_of_the_last_flag() -> None:
    words = [Word("--icc", "flag", "unit"), Word("--icc=false", "environment", "file")]
    settings, _ = look_options.parse_flags(words)
    assert tuple(settings["icc"]) == (False, "environment", "file")
