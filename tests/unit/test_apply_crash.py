"""A transaction that dies at any moment leaves a host that is exactly old or exactly new."""

from __future__ import annotations

import contextlib
import os
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import ledger, runner
from ansible_collections.bulkhead.hardening.plugins.module_utils.audit_kernel import shown
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction import apply
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_journal import Journal

from .fake_selinux import FakeSelinux
from .fakes import (
    ActHost,
    Killed,
    accounts,
    act_host,
    file_absent,
    file_present,
    json_remove,
    json_set,
    operation,
    plan,
    profile,
    selinux,
    sysctl_set,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, as root does")

Json = dict[str, typing.Any]
DROPIN = "/etc/systemd/system/docker-.scope.d/10-bulkhead.conf"
FOREIGN = "/etc/docker/seccomp.json"


def strict(host: ActHost) -> Json:
    """Everything at once on a host without containers."""
    return plan(
        *accounts(host),
        json_set(host, "userns-remap", "bulkhead-userns"),
        json_set(host, "debug", False),
        json_set(host, "log-opts", "10m", member="max-size"),
        file_present(host, DROPIN, "[Scope]\nTasksMax=512\n"),
        file_present(host, FOREIGN, "{}", mode="0640"),
        operation("mode", path="/run/docker.sock", mode="0600", owner=None, group="docker",
                  observed=host.version("/run/docker.sock")),
        effect="restart",
    )  # fmt: skip


def compatible(host: ActHost) -> Json:
    """live-restore first, then a restart, with containers."""
    return plan(
        json_set(host, "live-restore", True),
        json_set(host, "no-new-privileges", True),
        effect="restart",
        live_restore_first=True,
    )


def reload(host: ActHost) -> Json:
    """A reload alone, which also takes a key away."""
    return plan(
        json_set(host, "live-restore", True),
        json_remove(host, "shutdown-timeout"),
        file_absent(host, DROPIN),
        effect="reload",
    )


RULES = "/etc/audit/rules.d/50-bulkhead-docker.rules"
FORMER, KEPT = "-w /etc/passwd -p wa -k docker\n", "-w /etc/docker -p wa -k docker\n"


def rules(host: ActHost) -> Json:
    """Audit rules: one that goes, one that stays and two that come, and a drop-in."""
    more = "-w /usr/sbin/dockerd -p wa -k docker\n-w /run/new -p wa -F auid!=unset -k docker\n"
    return plan(
        file_present(host, RULES, KEPT + more, mode="0640"),
        operation("audit_load", path=RULES, observed=host.version(RULES)),
        file_present(host, "/etc/systemd/system/docker.service.d/50-x.conf", "[Service]\n"),
    )


def profiles(host: ActHost) -> Json:
    """AppArmor profiles that come, change and go, and one in the place of the engine's own."""
    return plan(
        profile(host, "docker-new", "file"),
        profile(host, "docker-upgraded", "file", "network"),
        profile(host, "docker-default", "file"),
        file_absent(host, "/etc/apparmor.d/docker-gone"),
    )


SYSCTLS = "/etc/sysctl.d/60-bulkhead-docker.conf"


def parameters(host: ActHost) -> Json:
    """Parameters of the kernel: one that comes, one that changes and one that goes, and their file."""
    return plan(
        file_present(host, SYSCTLS, "kernel.kptr_restrict = 2\n"),
        sysctl_set(host, "kernel.kptr_restrict", "2"),
        sysctl_set(host, "kernel.yama.ptrace_scope", "2"),
        operation("sysctl_restore", name="kernel.unprivileged_bpf_disabled"),
    )


def policy(host: ActHost) -> Json:
    """SELinux modules that come, change and go, a boolean, a labelled path and enforcing, and a restart."""
    return plan(
        selinux("module", name="new", content="(new)"),
        selinux("module", name="changed", content="(after)"),
        selinux("module_absent", name="gone"),
        selinux("boolean", name="container_use_nfs", value=True),
        selinux("equivalence", name="/srv/docker", like="/var/lib/docker"),
        selinux("relabel", path="/srv/docker"),
        json_set(host, "selinux-enabled", True),
        effect="restart",
    )


def enforcing(host: ActHost) -> Json:
    """SELinux made to enforce, and a restart."""
    return plan(selinux("enforcing"), json_set(host, "selinux-enabled", True), effect="restart")


CASES: dict[str, tuple[typing.Callable[[ActHost], Json], list[str], int]] = {
    # plan, containers, how many records there are at least
    "strict": (strict, [], 40),
    "compatible": (compatible, ["web", "db"], 25),
    "reload": (reload, ["web"], 25),
    "rules": (rules, ["web"], 15),
    "profiles": (profiles, ["web"], 30),
    "parameters": (parameters, ["web"], 25),
    "selinux": (policy, [], 30),
}
#: What an undo on request leaves as it is; a transaction that fails takes it back as well.
ONE_WAY: typing.Final = {"enforcing": (enforcing, list[str](), 15)}
ALL: typing.Final = {**CASES, **ONE_WAY}


def build(name: str) -> typing.ContextManager[ActHost]:
    return act_host('{\n  "debug": true,\n  "mtu": 1400\n}\n', ALL[name][1])


def prepare(name: str, host: ActHost) -> None:
    host.write(FOREIGN, '{"defaultAction": "SCMP_ACT_ALLOW"}', mode=0o600)
    if name == "rules":
        first = apply(
            host,
            plan(
                file_present(host, RULES, FORMER + KEPT, mode="0640"),
                operation("audit_load", path=RULES, observed="absent"),
            ),
        )
        assert first["transaction"]["outcome"] == "committed", first["msg"]
    if name == "reload":
        first = apply(
            host,
            plan(
                json_set(host, "shutdown-timeout", 30),
                file_present(host, DROPIN, "x"),
                effect="reload",
            ),
        )
        assert first["transaction"]["outcome"] == "committed", first["msg"]
    if name == "parameters":
        former = [("kernel.yama.ptrace_scope", "1"), ("kernel.unprivileged_bpf_disabled", "0")]
        first = apply(host, plan(*(sysctl_set(host, *one) for one in former)))
        assert first["transaction"]["outcome"] == "committed", first["msg"]
    if name == "enforcing":
        host.selinux = FakeSelinux(host, enforcing=False)
    if name == "selinux":
        host.selinux = FakeSelinux(host, enforcing=False)
        (host.base / "srv/docker").mkdir(parents=True)
        # setsebool never forgets a value that it was once given.
        host.selinux.run("setsebool", ["-P", "container_use_nfs=0"])
        former = [selinux("module", name=name, content="(before)") for name in ("changed", "gone")]
        first = apply(host, plan(*former))
        assert first["transaction"]["outcome"] == "committed", first["msg"]
    if name == "profiles":
        names = ("docker-upgraded", "docker-gone")
        first = apply(host, plan(*(profile(host, name, "file") for name in names)))
        assert first["transaction"]["outcome"] == "committed", first["msg"]


class Countdown:
    """Kills the process at the n-th record of a journal, before or after it is on disk."""

    def __init__(self, number: int, after: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = number
        self.seen = 0
        self.dead = False
        original = Journal.write

        def write(journal: Journal, record: Json) -> None:
            if self.dead:
                raise Killed
            self.seen += 1
            self.left -= 1
            if self.left == 0 and not after:
                self.dead = True
                raise Killed
            original(journal, record)
            if self.left == 0:
                self.dead = True
                raise Killed

        monkeypatch.setattr(Journal, "write", write)


def state(host: ActHost) -> tuple[typing.Any, ...]:
    effective = {"live-restore": False, "shutdown-timeout": 15, **host.daemon.effective}
    mode = oct((host.base / "run/docker.sock").stat().st_mode & 0o7777)
    audit = sorted(shown(raw) for raw in host.kernel_rules or [])
    policies = dict(host.apparmor.policies), host.selinux and host.selinux.state()
    return host.tree(), effective, host.pids(), mode, audit, policies, host.sysctls()


def total(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, tuple[typing.Any, ...]]:
    """Run a case to its end; return the number of records and the state then."""
    with build(name) as host, monkeypatch.context() as patch:
        prepare(name, host)
        counter = Countdown(10**6, True, patch)
        answer = apply(host, ALL[name][0](host))
        assert answer["transaction"]["outcome"] == "committed", answer["msg"]
        return counter.seen, state(host)


def interrupted(
    name: str,
    number: int,
    after: bool,
    new: tuple[typing.Any, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with build(name) as host:
        prepare(name, host)
        old = state(host)
        with monkeypatch.context() as patch:
            Countdown(number, after, patch)
            with pytest.raises(Killed):
                apply(host, ALL[name][0](host))
        committed = any(
            record["record"] == "committed"
            for record in ledger.read_journal(host, ledger.transaction_ids(host)[-1])
        )
        # The next run recovers first. Its own plan is one that changes nothing.
        answer = apply(host, plan(operation("disown", kind="user", name="nobody")))
        assert answer["transaction"]["outcome"] == "committed", answer["msg"]
        assert ledger.open_transaction(host) is None
        tree, effective, pids, mode, audit, policies, parameters = state(host)
        if committed:
            rest = (mode, audit, policies, parameters)
            assert (tree, effective, *rest) == (new[0], new[1], *new[3:])
            return
        assert parameters == old[6]
        assert policies == old[5]
        assert tree == old[0]
        assert mode == old[3]
        assert effective == old[1]
        assert pids == old[2]
        assert audit == old[4]
        assert host.daemon.images == {}
        assert [i for i in host.daemon.containers.values() if i["Config"]["Labels"]] == []


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ALL)
def test_a_crash_at_every_record(name: str, after: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    count, new = total(name, monkeypatch)
    assert count >= ALL[name][2]
    for number in range(1, count + 1):
        try:
            interrupted(name, number, after, new, monkeypatch)
        except AssertionError as exc:
            raise AssertionError("died at record %d of %d: %s" % (number, count, exc)) from exc


@pytest.mark.parametrize("number", range(1, 12))
def test_a_crash_while_undoing(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second crash, during the recovery from the first one, is recovered from as well."""
    with build("compatible") as host:
        prepare("compatible", host)
        old = state(host)
        host.daemon.witness_error = "no"
        with monkeypatch.context() as patch:
            # In the middle of the health gate the plan fails; the undo dies after some records.
            Countdown(22 + number, True, patch)
            with contextlib.suppress(Killed):
                apply(host, compatible(host))
        host.daemon.witness_error = None
        answer = apply(host, plan(operation("disown", kind="user", name="nobody")))
        assert answer["transaction"]["outcome"] == "committed", answer["msg"]
        tree, effective, pids, *_ = state(host)
        assert (tree, effective, pids) == old[:3]


def test_a_reboot_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power loss the daemon starts with the new file; the next run takes it back."""
    with build("strict") as host:
        prepare("strict", host)
        old = state(host)
        number = 0
        while True:
            number += 1
            with monkeypatch.context() as patch:
                Countdown(number, True, patch)
                with pytest.raises(Killed):
                    apply(host, strict(host))
            if host.config() != {"debug": True, "mtu": 1400}:
                break
            apply(host, plan(operation("disown", kind="user", name="nobody")))
        host.daemon.stop()
        assert host.daemon.start() is None
        assert host.daemon.effective["debug"] is False
        apply(host, plan(operation("disown", kind="user", name="nobody")))
        tree, effective, *_ = state(host)
        assert (tree, effective) == old[:2]


@pytest.mark.parametrize("name", ["compatible", "strict"])
def test_a_boot_after_every_record(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads files at boot finds those of before, and so does the daemon."""
    count = total(name, monkeypatch)[0]
    for number in range(1, count):
        with build(name) as host:
            prepare(name, host)
            old = state(host)
            config = host.config()
            with monkeypatch.context() as patch:
                Countdown(number, True, patch)
                with pytest.raises(Killed):
                    apply(host, ALL[name][0](host))
            if ledger.open_transaction(host) is None:
                continue
            host.daemon.stop()
            runner.put_files_back(host)
            assert host.config() == config
            assert not (host.base / DROPIN.lstrip("/")).exists()
            assert host.daemon.start() is None
            apply(host, plan())
            tree, effective, *_ = state(host)
            assert (tree, effective) == old[:2], number


def test_recovery_leaves_alone_what_somebody_changed_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with build("strict") as host:
        prepare("strict", host)
        with monkeypatch.context() as patch:
            Countdown(30, True, patch)
            with pytest.raises(Killed):
                apply(host, strict(host))
        assert (host.base / DROPIN.lstrip("/")).exists()
        host.write(DROPIN, "mine")
        answer = apply(host, plan(operation("disown", kind="user", name="nobody")))
        assert (host.base / DROPIN.lstrip("/")).read_text() == "mine"
        recover = next(r for r in answer["transaction"]["steps"] if r["step"] == "recover")
        assert DROPIN + " was changed by somebody else, and is left alone" in recover["detail"]
        assert host.config() == {"debug": True, "mtu": 1400}


def test_check_mode_reports_an_open_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    with build("strict") as host:
        prepare("strict", host)
        with monkeypatch.context() as patch:
            Countdown(20, True, patch)
            with pytest.raises(Killed):
                apply(host, strict(host))
        before = host.tree(times=True)
        answer = apply(host, plan(json_set(host, "icc", False)), check_mode=True)
        assert "would be undone first" in answer["transaction"]["steps"][0]["detail"]
        assert host.tree(times=True) == before


def test_an_empty_plan_undoes_what_was_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    with build("strict") as host:
        prepare("strict", host)
        old = host.tree()
        with monkeypatch.context() as patch:
            Countdown(30, True, patch)
            with pytest.raises(Killed):
                apply(host, strict(host))
        before = host.tree(times=True)
        answer = apply(host, plan(), check_mode=True)
        assert (answer["transaction"]["outcome"], answer["changed"]) == ("checked", True)
        assert "would be undone" in answer["transaction"]["steps"][0]["detail"]
        assert host.tree(times=True) == before
        answer = apply(host, plan())
        assert (answer["transaction"]["outcome"], answer["changed"]) == ("recovered", True)
        assert answer["observation"]["bulkhead"]["open_transaction"] is None
        assert host.tree() == old
        answer = apply(host, plan())
        assert (answer["transaction"]["outcome"], answer["changed"]) == ("nothing", False)


def test_a_torn_last_line_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    with build("strict") as host:
        prepare("strict", host)
        old = host.tree()
        with monkeypatch.context() as patch:
            Countdown(25, True, patch)
            with pytest.raises(Killed):
                apply(host, strict(host))
        identifier = ledger.transaction_ids(host)[-1]
        path = host.base / ledger.TRANSACTIONS.lstrip("/") / identifier / ledger.JOURNAL_NAME
        path.write_bytes(path.read_bytes() + b'{"record": "eff')
        assert ledger.open_transaction(host) is not None
        apply(host, plan(operation("disown", kind="user", name="nobody")))
        assert host.tree() == old
        assert ledger.read_journal(host, identifier)[-1]["record"] == "rolled_back"
