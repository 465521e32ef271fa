"""Audit rules: what Bulkhead takes as one, the kernel's form of it, and what the transaction loads."""

from __future__ import annotations

import os
import string
import typing

import hypothesis
import pytest
from hypothesis import strategies as st

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    audit_rules,
    look,
    look_auditd,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.audit_kernel import shown
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction import apply
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_undo import undo

from .fakes import ActHost, act_host, file_absent, file_present, operation, plan

Json = dict[str, typing.Any]
RULES = "/etc/audit/rules.d/50-bulkhead-docker.rules"
OTHERS = "/etc/audit/rules.d/10-somebody.rules"
root = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, as root does")


def parsed(line: str) -> Json:
    rule = audit_rules.parse(line.split(), lambda path: path.endswith("/dir"))
    assert rule is not None
    return rule


# -- one rule --------------------------------------------------------------------------------------
#: Recorded on Debian 13 (kernel 6.12): what the kernel lists after ``auditctl -w /etc/docker -p wa -k
#: docker``: list, action, fields; their numbers, values and operators; the texts.
RECORDED = ([4, 2, 3], [107, 106, 210], [11, 10, 6], [0x40000000] * 3, b"/etc/dockerdocker")


def test_the_kernels_form_is_the_one_that_auditctl_makes() -> None:
    raw = audit_rules.encode(dict(parsed("-w /etc/docker -p wa -k docker"), kind="dir"))
    numbers = [int.from_bytes(raw[i : i + 4], "little") for i in range(0, 1040, 4)]
    head, fields, values, operators, texts = RECORDED
    assert numbers[:3] == head
    assert numbers[3:67] == [0xFFFFFFFF] * 64
    for part, found in ((fields, 67), (values, 131), (operators, 195)):
        assert numbers[found : found + 3] == part
        assert set(numbers[found + 3 : found + 64]) == {0}
    assert (numbers[259], raw[1040:]) == (len(texts), texts)


PATHS = st.lists(
    st.text(string.ascii_letters + string.digits + "-_.", min_size=1, max_size=12).filter(
        lambda part: part not in (".", "..")
    ),
    min_size=1,
    max_size=6,
).map(lambda parts: "/" + "/".join(parts))
KEYS = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=31)
USERS = st.tuples(
    st.sampled_from(["auid", "uid", "euid", "gid"]),
    st.sampled_from(["=", "!=", "<", ">", "<=", ">="]),
    st.one_of(st.just("unset"), st.integers(0, 2**32 - 2).map(str)),
).map("".join)


@hypothesis.given(
    PATHS,
    st.sets(st.sampled_from("rwxa"), min_size=1),
    st.lists(USERS, max_size=4),
    st.lists(KEYS, max_size=3),
    st.sampled_from(["-a always,exit", "-a never,exit", "-A exit,never", "-w"]),
    st.booleans(),
)
def test_a_line_survives_the_way_through_the_kernel(
    path: str, perm: set[str], users: list[str], keys: list[str], opening: str, directory: bool
) -> None:
    kind = "dir" if directory else "path"
    shape = {"-w": f"-w {path} -p {''.join(perm)}"}
    line = shape.get(opening, f"{opening} -F {kind}={path} -F perm={''.join(perm)}")
    line += "".join(f" -F {field}" for field in users) + "".join(f" -k {key}" for key in keys)
    rule = audit_rules.parse(line.split(), lambda _: directory)
    assert rule is not None
    again = audit_rules.decode(audit_rules.encode(rule))
    assert audit_rules.identity(again) == audit_rules.identity(rule)
    assert again == rule


@hypothesis.given(st.text(string.printable, max_size=80))
def test_any_text_is_a_rule_or_refused(text: str) -> None:
    """What is taken can be told to the kernel: no line comes to a file that auditd stumbles over."""
    try:
        found = audit_rules.read(text, lambda path: False)
    except ValueError:
        return
    for _, rule in found:
        assert audit_rules.encode(rule)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("-w /etc/docker -p wq", "of r, w, x and a"),
        ("-w etc/docker", "no plain absolute path"),
        ("-w /", "below /"),
        ("-w /etc/../root -p wa", "no plain absolute path"),
        ("-w /" + "x" * 5000, "longer than"),
        ("-a always,exit -S open -F path=/etc/x", "-S and arch"),
        ("-a always,exit -F arch=b64 -F path=/etc/x", "-S and arch"),
        ("-a always,exit -F perm=wa -F auid!=unset", "no file"),
        ("-a always,user -F uid=0", "exit list"),
        ("-a possible,exit -F path=/x", "always or never"),
        ("-a always,exit -F path=/etc/x -F auid>=many", "not taken"),
        ("-a always,exit -F path=/etc/x -F uid=4294967296", "not taken"),
        ("-a always,exit -F path=/etc/x -F exe=top", "not taken"),
        ("-a always,exit -F path=/etc/x -F success=1", "not taken"),
        ("-a always,exit -F path=/etc/x -F path=/etc/y", "more than one path"),
        ("-w /etc/x -F path=/etc/y", "another path"),
        ("-w /etc/x -w /etc/y", "has a rule already"),
        ("-w /etc/x -k " + "k" * 32, "1 to 31"),
        ("rm -rf /", "no option"),
        ("-w", "without a value"),
    ],
)
def test_what_is_refused_says_why_and_where(line: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r"line 2: .*" + reason):
        audit_rules.read("# a comment\n" + line + "\n", lambda path: False)


# -- in a transaction ------------------------------------------------------------------------------
@pytest.fixture
def host() -> typing.Iterator[ActHost]:
    with act_host(containers=["web"]) as made:
        made.write("/usr/sbin/dockerd", "")
        yield made


def kernel(host: ActHost) -> list[str]:
    return [shown(raw) for raw in host.kernel_rules or []]


def load(host: ActHost, *lines: str) -> None:
    """Let somebody load rules."""
    for line in lines:
        host.change_audit(audit_rules.encode(parsed(line)), add=True)


def placed(host: ActHost, *lines: str) -> Json:
    content = "".join(line + "\n" for line in lines)
    return apply(
        host,
        plan(
            file_present(host, RULES, content, mode="0640"),
            operation("audit_load", path=RULES, observed=host.version(RULES)),
        ),
    )


DOCKERD, PASSWD = "-w /usr/sbin/dockerd -p wa -k docker", "-w /etc/passwd -p wa -k identity"
SHOWN_DOCKERD = "always,exit path=/usr/sbin/dockerd perm=wa key=docker"
SHOWN_PASSWD = "always,exit path=/etc/passwd perm=wa key=identity"


@root
def test_rules_are_loaded_beside_those_of_others(host: ActHost) -> None:
    load(host, PASSWD)
    answer = placed(host, DOCKERD, "-a never,exit -F path=/etc/docker/x -F perm=wa")
    assert answer["transaction"]["outcome"] == "committed", answer["msg"]
    assert kernel(host) == [
        SHOWN_PASSWD, SHOWN_DOCKERD, "never,exit path=/etc/docker/x perm=wa",
    ]  # fmt: skip
    # An exception stands before what it is one from.
    assert int.from_bytes((host.kernel_rules or [])[-1][:4], "little") == 0x14
    steps = {row["step"]: row["detail"] for row in answer["transaction"]["steps"]}
    assert steps["audit_rules"] == "2 loaded"
    assert [row["after"] for row in answer["diff"] if "kernel" in row["after_header"]] == [
        SHOWN_DOCKERD + "\nnever,exit path=/etc/docker/x perm=wa\n"
    ]


@root
def test_undo_takes_out_what_was_loaded_and_nothing_else(host: ActHost) -> None:
    load(host, PASSWD)
    placed(host, DOCKERD)
    answer = undo(host)
    assert answer["transaction"]["outcome"] == "committed", answer["msg"]
    assert answer["transaction"]["changes"] == [
        RULES, "audit rules in the kernel: 1 loaded, 0 taken out",
    ]  # fmt: skip
    assert kernel(host) == [SHOWN_PASSWD]


@root
def test_undo_takes_out_what_a_boot_loaded_from_the_file(host: ActHost) -> None:
    """auditd did not run, so only the file was placed; then the host was booted."""
    apply(host, plan(file_present(host, RULES, DOCKERD + "\n", mode="0640")))
    assert kernel(host) == []
    load(host, DOCKERD)
    undo(host)
    assert kernel(host) == []


@root
def test_a_rule_that_somebody_elses_file_has_too_stays(host: ActHost) -> None:
    placed(host, DOCKERD, PASSWD)
    host.write(OTHERS, PASSWD + "\n")
    apply(host, plan(file_absent(host, RULES)))
    assert kernel(host) == [SHOWN_PASSWD]


@root
def test_a_rule_that_the_kernel_has_in_two_forms_goes_in_both(host: ActHost) -> None:
    placed(host, DOCKERD)
    assert host.kernel_rules is not None
    raw = host.kernel_rules[0]
    host.kernel_rules.append(raw[: 66 * 4] + b"\0\0\0\0" + raw[67 * 4 :])  # another last word
    assert len(set(kernel(host))) == 1
    undo(host)
    assert kernel(host) == []


@root
def test_a_watch_made_before_its_directory_was_there_goes_too(host: ActHost) -> None:
    placed(host, "-w /etc/late -p wa -k docker")
    assert kernel(host) == ["always,exit path=/etc/late perm=wa key=docker"]
    host.write("/etc/late/x", "")
    load(host, "-a always,exit -F dir=/etc/late -F perm=wa -k docker")
    apply(host, plan(file_absent(host, RULES)))
    assert kernel(host) == []


@root
def test_what_was_dropped_is_loaded_again(host: ActHost) -> None:
    placed(host, DOCKERD)
    assert host.kernel_rules is not None
    host.kernel_rules.clear()
    answer = apply(host, plan(operation("audit_load", path=RULES, observed=host.version(RULES))))
    assert (answer["transaction"]["outcome"], answer["changed"]) == ("committed", True)
    assert kernel(host) == [SHOWN_DOCKERD]
    assert undo(host)["transaction"]["outcome"] == "committed"
    assert kernel(host) == []


@root
def test_a_failure_afterwards_puts_the_kernels_rules_back(host: ActHost) -> None:
    placed(host, PASSWD)
    host.daemon.witness_code = 1
    answer = placed(host, DOCKERD)
    assert (answer["transaction"]["outcome"], answer["changed"]) == ("rolled_back", False)
    assert kernel(host) == [SHOWN_PASSWD]


@root
@pytest.mark.parametrize(
    ("line", "reason"),
    [("-w /etc/docker -p wq", "line 1: permissions"), ("-a always,exit -S all", "no file")],
)
def test_a_line_that_auditd_would_not_take_is_refused(
    host: ActHost, line: str, reason: str
) -> None:
    before = host.tree()
    answer = placed(host, line)
    assert (answer["transaction"]["outcome"], host.tree()) == ("refused", before)
    assert reason in answer["msg"]
    assert RULES in answer["msg"]


@root
def test_a_rule_that_the_kernel_does_not_take_is_rolled_back(host: ActHost) -> None:
    before = host.tree()
    answer = placed(host, DOCKERD, "-w /nowhere/x -p wa -k docker")
    assert answer["transaction"]["outcome"] == "rolled_back"
    assert (
        "audit rule always,exit path=/nowhere/x perm=wa key=docker: No such file" in answer["msg"]
    )
    assert (kernel(host), host.tree()) == ([], before)


@root
def test_locked_rules_are_not_fought(host: ActHost) -> None:
    placed(host, DOCKERD)
    host.audit_enabled = look_auditd.LOCKED
    assert "are locked" in placed(host, DOCKERD, PASSWD)["msg"]
    answer = apply(host, plan(file_absent(host, RULES)))
    assert answer["transaction"]["outcome"] == "committed"
    steps = {row["step"]: row["detail"] for row in answer["transaction"]["steps"]}
    assert steps["audit_rules"] == "1 rules stay in the kernel until the next boot: they are locked"
    assert kernel(host) == [SHOWN_DOCKERD]


@root
def test_a_kernel_without_audit_takes_no_rules(host: ActHost) -> None:
    host.kernel_rules = None
    answer = placed(host, DOCKERD)
    assert answer["transaction"]["outcome"] == "refused"
    assert "Protocol not supported" in answer["msg"]


@root
def test_a_kernel_without_audit_has_nothing_to_give_back(host: ActHost) -> None:
    placed(host, DOCKERD)
    host.kernel_rules = None
    answer = apply(host, plan(file_absent(host, RULES)))
    assert answer["transaction"]["outcome"] == "committed", answer["msg"]


def test_a_look_tells_the_kernels_rules_and_those_in_files(host: ActHost) -> None:
    load(host, PASSWD)
    host.write(OTHERS, DOCKERD + "\n-b 8192\n")
    host.write(RULES.replace(".rules", ".late"), "-i\n" + PASSWD + "\n")
    found = look.observe(host, ["audit"])["audit"]
    assert [rule["path"] for rule in found["loaded"]] == ["/etc/passwd"]
    assert [(rule["path"], rule["file"]) for rule in found["persistent"]] == [
        ("/usr/sbin/dockerd", OTHERS),
        ("/etc/passwd", RULES.replace(".rules", ".late")),
    ]
    assert (found["enabled"], found["rate_limit"], found["backlog_limit"]) == (1, 0, 8192)
