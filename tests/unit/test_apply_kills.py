"""A process that is killed between any two of its effects, or halfway through a line of its journal.

``test_apply_crash`` and its like die at every record of the journal. Here a run dies before its n-th
effect: a call that changes something outside of its process. Between two effects the host does not
change, so these are all moments that there are. Which of them are tried is drawn from a seed; with
BULKHEAD_KILLS all are.
"""

from __future__ import annotations

import os
import random
import threading
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import ledger
from ansible_collections.bulkhead.hardening.plugins.module_utils.docker_api import DockerApi
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction import apply
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_undo import undo

from .fakes import ActHost, Killed, plan
from .test_apply_crash import CASES, Countdown, build, prepare, state
from .test_apply_purge import removal

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, as root does")

Json = dict[str, typing.Any]
Call = typing.Callable[..., typing.Any]
State = tuple[typing.Any, ...]

SEED = 20260724
#: Moments that are tried of each run.
POINTS = 30
ALL = bool(os.environ.get("BULKHEAD_KILLS"))

#: The calls that change files. A file that is written as a stream counts where it is made.
_CALLS = {
    getattr(os, name)
    for name in (
        "chmod", "chown", "fchmod", "fchown", "ftruncate", "mkdir", "rename", "rmdir",
        "setxattr", "symlink", "unlink", "utime", "write",
    )
}  # fmt: skip
_WRITE = os.write


def makes_a_file(_path: object, flags: int, *_: object) -> bool:
    return bool(flags & os.O_CREAT)


def is_no_look(_api: object, method: str, *_: object) -> bool:
    return method != "GET"


def starts_a_program(_host: object, argv: list[str], *_: object) -> bool:
    return argv[:2] != ["systemctl", "show"]


class Reaper:
    """Kills a process before its n-th effect. Nothing that it does afterwards has an effect.

    :param torn: when that effect is a line of the journal, kill halfway through it.
    """

    def __init__(self, patch: pytest.MonkeyPatch, number: int, torn: bool = False) -> None:
        self.seen = 0
        self._number = number
        self._torn = torn
        #: systemd, the daemon and the account tools are processes of their own, and go on
        self._others = False
        for call in _CALLS:
            patch.setattr(os, call.__name__, self._counted(call))
        patch.setattr(os, "open", self._counted(os.open, makes_a_file))
        patch.setattr(ActHost, "run", self._counted(ActHost.run, starts_a_program))
        patch.setattr(DockerApi, "request", self._counted(DockerApi.request, is_no_look))

    def _counted(self, call: Call, counts: Call | None = None) -> Call:
        def counted(*arguments: typing.Any, **options: typing.Any) -> typing.Any:
            mine = threading.current_thread() is threading.main_thread() and not self._others
            if not mine or (counts is not None and not counts(*arguments)):
                return call(*arguments, **options)
            self.seen += 1
            if self.seen >= self._number:
                if self.seen == self._number and self._torn and call is _WRITE:
                    call(arguments[0], arguments[1][: len(arguments[1]) // 2])
                raise Killed
            self._others = True
            try:
                return call(*arguments, **options)
            finally:
                self._others = False

        return counted


class Run(typing.NamedTuple):
    """What is done to which host: ``prepare`` comes before the kill, ``act`` is killed.

    ``recovers``: it only puts right what an earlier kill left, so there is no old state to go back to.
    """

    host: str
    prepare: typing.Callable[[ActHost], object]
    act: typing.Callable[[ActHost], Json]
    recovers: bool = False


def applying(name: str) -> Run:
    return Run(
        name, lambda host: prepare(name, host), lambda host: apply(host, CASES[name][0](host))
    )


def undoing(name: str) -> Run:
    def before(host: ActHost) -> None:
        prepare(name, host)
        apply(host, CASES[name][0](host))

    return Run(name, before, lambda host: undo(host, "last"))


def taking_off(host: ActHost) -> Json:
    return apply(host, removal(host))


def left_open(host: ActHost) -> None:
    """A first run that died after the daemon had restarted."""
    prepare("strict", host)
    with pytest.MonkeyPatch.context() as patch:
        Countdown(40, True, patch)
        with pytest.raises(Killed):
            apply(host, CASES["strict"][0](host))


RUNS = {
    **{"apply " + name: applying(name) for name in CASES},
    **{"undo " + name: undoing(name) for name in CASES},
    "take off": Run("strict", undoing("strict").prepare, taking_off),
    "recover": Run("strict", left_open, lambda host: apply(host, plan()), True),
}


def whole(run: Run) -> tuple[int, State]:
    """Return how many effects a run has when nobody kills it, and the state then."""
    with build(run.host) as host:
        run.prepare(host)
        with pytest.MonkeyPatch.context() as patch:
            reaper = Reaper(patch, 10**6)
            answer = run.act(host)
        assert answer["transaction"]["outcome"] in ("committed", "recovered"), answer["msg"]
        return reaper.seen, state(host)


def ended(host: ActHost) -> int:
    """Return how many transactions were committed."""
    journals = [ledger.read_journal(host, one) for one in ledger.transaction_ids(host)]
    return sum(any(r["record"] == "committed" for r in journal) for journal in journals)


def killed(run: Run, number: int, torn: bool, new: State) -> None:
    with build(run.host) as host:
        run.prepare(host)
        old, committed = state(host), ended(host)
        with pytest.MonkeyPatch.context() as patch:
            Reaper(patch, number, torn)
            with pytest.raises(Killed):
                run.act(host)
        done = run.recovers or ended(host) > committed
        recovered = apply(host, plan())
        assert recovered["transaction"]["outcome"] in ("recovered", "nothing"), recovered["msg"]
        assert ledger.open_transaction(host) is None
        assert state(host) == (new if done else old)
        # A normal run converges.
        if not done:
            assert run.act(host)["transaction"]["outcome"] == "committed"
            assert state(host) == new


@pytest.mark.parametrize("name", RUNS)
def test_killed_between_any_two_effects(name: str) -> None:
    run = RUNS[name]
    count, new = whole(run)
    dice = random.Random("%d %s" % (SEED, name))
    moments = range(1, count + 1)
    for number in moments if ALL else sorted(dice.sample(moments, POINTS)):
        for torn in (False, True) if ALL else (dice.random() < 0.5,):
            try:
                killed(run, number, torn, new)
            except AssertionError as exc:
                at = "%d of %d%s" % (number, count, ", torn" if torn else "")
                raise AssertionError("killed before effect %s: %s" % (at, exc)) from exc
