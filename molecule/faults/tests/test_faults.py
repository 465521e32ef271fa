"""Whatever goes wrong, the host ends exactly as it was or exactly as planned, and a normal run converges.

Exactly as it was: all files below /etc and of units, by checksum, mode and owner; the daemon's
effective options; the main process of every container that was at rest; images; no rule or unit of
ours left. Exactly as planned: the run succeeded and the next one finds nothing to do; and undoing it
gives exactly what was before.
"""

from __future__ import annotations

import itertools
import os
import random
import typing

import pytest
from target import RESTLESS, START, Done, Json, Target

KILLS = int(os.environ.get("BULKHEAD_KILLS", "0"))
POWER_CUTS = int(os.environ.get("BULKHEAD_POWER_CUTS", "1"))
SEED = 20260724

DROPIN = "/etc/systemd/system/docker.service.d/99-fault.conf"
#: True in a shell once the planned daemon.json is in place.
PLANNED = "grep -q nofile /etc/docker/daemon.json"


def dropin(*lines: str) -> str:
    text = "\\n".join(("[Service]", *lines))
    return f"mkdir -p {os.path.dirname(DROPIN)}; printf '{text}\\n' > {DROPIN}; systemctl daemon-reload"


NO_DROPIN = f"rm {DROPIN}; rmdir {os.path.dirname(DROPIN)}; systemctl daemon-reload"
CONFIG = "/etc/docker/daemon.json"
SAVE, BACK = f"cp -p {CONFIG} /root/daemon.json", f"cp -p /root/daemon.json {CONFIG}"


class Fault(typing.NamedTuple):
    """What goes wrong, how it is put right again, and what the run must say of it."""

    inject: str
    heal: str
    says: str = ""
    variables: Json | None = None
    #: containers that come back with another process
    replaced: tuple[str, ...] = ()


FAULTS = {
    "an option that dockerd refuses": Fault(
        "true", "true", "dns", {"docker_daemon_options": {"dns": ["nowhere"]}}
    ),
    "an option with which dockerd cannot start": Fault(
        "true", "true", "",
        {"docker_daemon_options": {"default-address-pools": [{"base": "10.9.0.0/16", "size": 8}]}},
    ),
    "a seccomp profile under which no container starts": Fault(
        "echo '{\"defaultAction\": \"SCMP_ACT_ERRNO\"}' > /etc/docker/deny.json",
        "rm /etc/docker/deny.json", "",
        {"docker_daemon_seccomp_profile": "/etc/docker/deny.json"},
    ),
    "a daemon that never gets ready": Fault(
        dropin(f"ExecStartPre=/bin/sh -c \"! {PLANNED} || sleep 1000\""), NO_DROPIN,
        "did not start within", {"docker_harden_daemon_timeout": 25},
    ),
    "a stable container that does not come back": Fault(
        # The death of its shim takes a container with it.
        f"printf '! {PLANNED} || pkill -9 -f shim.*%s\\n' $(docker inspect -f '{{{{.Id}}}}' limited)"
        " > /root/fault; " + dropin("ExecStartPre=-/bin/sh /root/fault"),
        NO_DROPIN, "limited", {"docker_harden_health_timeout": 30}, ("limited",),
    ),
    "no space for what Bulkhead keeps": Fault(
        "mkdir -p /var/lib/bulkhead; mount -t tmpfs -o size=16k,mode=700 none /var/lib/bulkhead",
        "umount /var/lib/bulkhead", "space",
    ),
    "no space beside daemon.json": Fault(
        f"{SAVE}; mount -t tmpfs -o size=16k none /etc/docker; {BACK}", "umount /etc/docker", "bytes"
    ),
    "a read-only /etc/docker": Fault(
        "mount --bind /etc/docker /etc/docker; mount -o remount,ro,bind /etc/docker",
        "umount /etc/docker", "read-only",
    ),
    "an immutable daemon.json": Fault(f"chattr +i {CONFIG}", f"chattr -i {CONFIG}", "immutable"),
    "daemon.json with a byte-order mark": Fault(
        f"{SAVE}; (printf '\\357\\273\\277'; cat /root/daemon.json) > {CONFIG}", BACK
    ),
    "daemon.json with a key twice": Fault(
        f"{SAVE}; printf '{{\"labels\": [], \"labels\": [\"a=b\"]}}' > {CONFIG}", BACK, "labels"
    ),
    "daemon.json with comments": Fault(
        f"{SAVE}; (echo '// ours'; cat /root/daemon.json) > {CONFIG}", BACK, CONFIG
    ),
    "daemon.json in UTF-16": Fault(
        f"{SAVE}; iconv -t UTF-16 /root/daemon.json > {CONFIG}", BACK, CONFIG
    ),
    "docker.service masked": Fault(
        "systemctl mask docker.service", "systemctl unmask docker.service", "mask"
    ),
    "docker.service missing": Fault(
        "mv /usr/lib/systemd/system/docker.service /root/; systemctl daemon-reload",
        "mv /root/docker.service /usr/lib/systemd/system/; systemctl daemon-reload",
    ),
    "containerd down": Fault(
        "systemctl stop containerd", f"systemctl start containerd; systemctl restart docker; {START}"
    ),
}  # fmt: skip


def as_before(seen: Json, before: Json, replaced: typing.Iterable[str] = ()) -> bool:
    """Tell whether everything is as it was."""
    parts = [part for part in before if part not in ("pids", "left")]
    names = seen["pids"].keys() == before["pids"].keys()
    processes = (
        all(seen["pids"][n] == p for n, p in before["pids"].items() if n not in replaced)
        if names
        else False
    )
    return processes and all(seen[part] == before[part] for part in parts)


def difference(seen: Json, before: Json) -> Json:
    found = {k: (before[k], seen[k]) for k in before if k != "files" and seen[k] != before[k]}
    paths = before["files"].keys() | seen["files"].keys()
    changed = [p for p in paths if before["files"].get(p) != seen["files"].get(p)]
    return {**found, "files": sorted(changed)}


def outcome(done: Done) -> str:
    if done.rc == 0:
        return "succeeds"
    # What the planner refuses never reaches the host.
    refused = ("Refused before", "_plan' failed: ")
    for phrase, word in (*((p, "is refused") for p in refused), ("Rolled back", "is rolled back")):
        if phrase in done.out:
            return word
    return "fails"


def judge(
    target: Target, before: Json, done: Done, row: Json, replaced: tuple[str, ...] = ()
) -> bool:
    """Assert that the host is exactly old or exactly new; return whether it is new."""
    row["outcome"] = outcome(done)
    assert row["outcome"] != "fails", done.out[-3000:]
    seen = target.state()
    assert seen["left"] == []
    if as_before(seen, before, replaced):
        return False
    assert done.rc == 0, f"{difference(seen, before)}\n{done.out[-3000:]}"
    again = target.play()
    assert again.rc == 0, again.out[-3000:]
    assert not again.changed, difference(seen, before)
    return True


def go_back(target: Target, before: Json, replaced: typing.Iterable[str] = ()) -> None:
    """Undo the last transaction; everything must be as before."""
    done = target.play("rollback", bulkhead_rollback="last")
    assert done.rc == 0, done.out[-3000:]
    seen = target.state()
    assert as_before(seen, before, replaced), difference(seen, before)


#: Left to the long run: another row shows the same class, and unit tests show these.
LONG = (
    "an option with which dockerd cannot start",
    "no space for what Bulkhead keeps",
    "daemon.json with a byte-order mark",
)


@pytest.mark.parametrize("name", [name for name in FAULTS if KILLS or name not in LONG])
def test_a_fault(target: Target, row: Json, name: str) -> None:
    fault = FAULTS[name]
    target.run(fault.inject)
    try:
        before = target.whole_state()
        done = target.play(**(fault.variables or {}))
        assert fault.says in done.out, done.out[-3000:]
        new = judge(target, before, done, row, fault.replaced)
        if new:
            go_back(target, before)
        row["host"] = "as planned" if new else "as it was"
    finally:
        target.run(fault.heal)
        target.settle()


WATCH = """
cd /var/lib/bulkhead/transactions 2>/dev/null
old=" $(ls 2>/dev/null | tr '\\n' ' ') "
for i in $(seq 3000); do
  for d in /var/lib/bulkhead/transactions/*; do
    case "$old" in *" ${d##*/} "*) continue;; esac
    grep -qs '"step": "%s"' "$d/journal.jsonl" && { sleep %.2f; %s; exit 0; }
  done
  sleep 0.05
done
exit 1
"""
VICTIMS = {
    "controller": "true",
    "module": "kill -9 $(ps -o ppid= -C systemd-run)",
    "unit": "systemctl kill --signal=KILL --kill-whom=main 'bulkhead-*.service'",
}
STEPS = ("stage", "daemon", "health")


def kill(target: Target, row: Json, victim: str, step: str, delay: float) -> None:
    """Kill one of the three processes of a run, then judge, and let a normal run converge."""
    before = target.whole_state()
    run = target.begin()
    try:
        target.run(WATCH % (step, delay, VICTIMS[victim]), check=False)
        if victim == "controller":
            run.kill()
    finally:
        killed = run.end()
    target.settle()
    seen = target.state()
    row["outcome"] = "is killed" if victim != "unit" else outcome(killed)
    untouched = as_before(seen, before)
    done = target.play()
    assert done.rc == 0, done.out[-3000:]
    if victim != "unit":
        assert not untouched
        assert "whose controller was gone" in done.out, done.out[-3000:]
    converged = target.state()
    assert converged["left"] == []
    if not untouched:
        assert as_before(seen | {"left": []}, converged | {"left": []}), difference(converged, seen)
    go_back(target, before)
    row["host"] = "as it was" if untouched else "as planned"


def moments() -> typing.Iterator[typing.Any]:
    """Controller and module once; if moments by chance are asked for, all at every step, and then those."""
    sure = [("controller", "stage"), ("module", "health")]
    for victim, step in itertools.product(VICTIMS, STEPS) if KILLS else sure:
        yield pytest.param(victim, step, 0.0, id=f"{victim} killed at {step}")
    for number in range(KILLS):
        dice = random.Random(SEED + number)
        victim, step, delay = dice.choice(sorted(VICTIMS)), dice.choice(STEPS), dice.uniform(0, 6)
        name = f"{victim} killed {delay:.1f} s into {step} ({number + 1})"
        yield pytest.param(victim, step, delay, id=name)


@pytest.mark.parametrize(("victim", "step", "delay"), list(moments()))
def test_a_kill(target: Target, row: Json, victim: str, step: str, delay: float) -> None:
    kill(target, row, victim, step, delay)


@pytest.mark.parametrize(
    "number", [pytest.param(n, id=f"power cut ({n + 1})") for n in range(POWER_CUTS)]
)
def test_a_power_cut(target: Target, row: Json, number: int) -> None:
    """After the boot, and before any run, the host is as it was: the unit for the boot did it."""
    dice = random.Random(SEED + number)
    step = "daemon" if number == 0 else dice.choice(STEPS)
    before = target.whole_state()
    run = target.begin()
    try:
        target.run(WATCH % (step, 0 if number == 0 else dice.uniform(0, 6), "true"))
        target.lab("power-cut", "used")
    finally:
        run.kill()
        run.end()
    target.lab("start", "used")
    target.settle()
    row["outcome"] = "is cut off"
    target.run(f"{START} {' '.join(RESTLESS)}")
    seen = target.state()
    new = "nofile" in target.run(f"cat {CONFIG}")
    assert number != 0 or not new
    if not new:
        assert as_before(seen, before, before["pids"]), difference(seen, before)
    done = target.play()
    assert done.rc == 0, done.out[-3000:]
    go_back(target, before, before["pids"])
    row["host"] = "as planned" if new else "as it was"


@pytest.mark.parametrize("number", ["two controllers at once"])
def test_two_controllers(target: Target, row: Json, number: str) -> None:
    before = target.whole_state()
    runs = [target.begin(), target.begin()]
    ends = [run.end() for run in runs]
    assert 0 in [done.rc for done in ends], ends[0].out[-3000:]
    for done in ends:
        assert done.rc == 0 or "changed since the look" in done.out, done.out[-3000:]
    assert judge(target, before, min(ends, key=lambda done: done.rc), row)
    row["outcome"] = " and ".join(outcome(done) for done in ends)
    go_back(target, before)
    row["host"] = "as planned"


def test_a_normal_run_converges_afterwards(target: Target) -> None:
    done = target.play()
    assert done.rc == 0, done.out[-3000:]
    assert done.changed
    assert not target.play().changed
