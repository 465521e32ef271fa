"""The kernel: parameters in effect and for the next boot, those of others kept, packets still passed on."""

from __future__ import annotations

import typing

testinfra_hosts = ["ansible://all"]

Json = dict[str, typing.Any]
FILE = "/etc/sysctl.d/60-bulkhead-docker.conf"


def values(host: typing.Any, *names: str) -> dict[str, str]:
    lines = str(host.check_output(f"sysctl {' '.join(names)}")).splitlines()
    return dict(line.split(" = ") for line in lines)


def value(host: typing.Any, name: str) -> str:
    return values(host, name)[name]


def test_what_the_file_says_is_in_effect(host: typing.Any) -> None:
    file = host.file(FILE)
    assert (file.user, file.group, file.mode) == ("root", "root", 0o644)
    lines = [line for line in file.content_string.splitlines() if not line.startswith("#")]
    wanted = dict(line.split(" = ") for line in lines)
    assert len(wanted) > 20
    assert values(host, *wanted) == wanted


def test_the_kernel_is_stronger_than_before(host: typing.Any) -> None:
    found = values(host, "kernel.kptr_restrict", "kernel.yama.ptrace_scope")
    assert "0" not in found.values()


def test_a_file_of_somebody_elses_is_explained_and_not_fought(
    host: typing.Any, document: typing.Callable[..., Json]
) -> None:
    assert value(host, "dev.tty.ldisc_autoload") == "1"
    assert host.file("/etc/sysctl.d/99-somebody.conf").content_string == (
        "dev.tty.ldisc_autoload = 1\n"
    )
    plan = document("converge", "after")["plan"]
    (row,) = [row for row in plan["settings"] if row["setting"] == "dev.tty.ldisc_autoload"]
    assert row["state"] == "blocked"
    assert "set to 1 by /etc/sysctl.d/99-somebody.conf:1, after ours" in row["reason"]


def test_rare_modules_are_not_loaded_and_needed_ones_are(host: typing.Any) -> None:
    assert host.run("modprobe dccp").rc != 0
    assert "/bin/false" in host.check_output("modprobe --dry-run --show-depends dccp")
    for name in ("overlay", "br_netfilter", "veth", "vxlan"):
        host.check_output(f"modprobe --dry-run {name}")


def test_packets_are_passed_on_as_before(
    host: typing.Any, document: typing.Callable[..., Json]
) -> None:
    """The probe of these scenarios asks a container through this host all the while."""
    before = document("converge", "before")["observation"]["sysctls"]
    forwarding = values(host, "net.ipv4.ip_forward", "net.ipv4.conf.docker0.forwarding")
    assert set(forwarding.values()) == {"1"}
    assert before["net.ipv4.ip_forward"] == "1"
    assert before["user.max_user_namespaces"] == value(host, "user.max_user_namespaces")
    assert host.check_output("iptables --list-rules FORWARD").startswith("-P FORWARD DROP")


def test_nothing_was_set_for_good(host: typing.Any) -> None:
    assert value(host, "kernel.unprivileged_bpf_disabled") == "2"
    assert value(host, "kernel.kexec_load_disabled") == "0"
