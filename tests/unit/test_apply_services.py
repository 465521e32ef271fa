"""Falco in a transaction: rules that it reads first, a service that must stay up, all of it taken back."""

from __future__ import annotations

import json
import os
import typing

import jsonschema
import pytest

from ansible_collections.bulkhead.hardening.plugins.filter.uninstall_plan import uninstall_plan
from ansible_collections.bulkhead.hardening.plugins.module_utils import falco, look
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction import apply
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_undo import undo

from .checkout import ROOT
from .fake_falco import DIES, REFUSES
from .fakes import ActHost, act_host, file_present, observe, operation, plan

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, as root does")

Json = dict[str, typing.Any]
SCHEMA = json.loads((ROOT / "docs/schemas/observation.schema.json").read_text())
GOOD = "- rule: Mine\n  desc: mine\n"


@pytest.fixture
def host() -> typing.Iterator[ActHost]:
    with act_host() as made:
        made.falco.install()
        yield made


def own(row: Json) -> Json:
    return {**row, "role": "docker_falco"}


def wanted(host: ActHost, rules: str = GOOD) -> Json:
    """Return a plan that places a file of rules and runs Falco with it."""
    return plan(
        own(file_present(host, falco.RULES, rules)),
        own(operation("service_running", name=falco.UNIT)),
    )


def done(host: ActHost, given: Json) -> Json:
    answer = apply(host, given)
    assert answer["transaction"]["outcome"] == "committed", answer["msg"]
    return answer


def runs(host: ActHost) -> tuple[str, str]:
    return host.falco.unit["ActiveState"], host.falco.unit["UnitFileState"]


def owned(host: ActHost) -> list[Json]:
    answer = look.observe(host, ["bulkhead"])
    jsonschema.validate(answer, SCHEMA)
    return list(answer["bulkhead"]["owned"].get("docker_falco", []))


# -- there ---------------------------------------------------------------------------------------
def test_it_is_enabled_started_and_owned(host: ActHost) -> None:
    answer = done(host, wanted(host))
    assert runs(host) == ("active", "enabled")
    assert {row["kind"]: row["intact"] for row in owned(host)} == {"file": True, "service": True}
    assert answer["changed"] is True


def test_falco_reads_the_rules_with_those_of_its_package_before_they_are_placed(
    host: ActHost,
) -> None:
    done(host, wanted(host))
    assert host.falco.asked == [
        [falco.PROGRAM, "-V", "/etc/falco/falco_rules.yaml", "-V", "/dev/stdin"]
    ]


def test_rules_that_falco_refuses_change_nothing(host: ActHost) -> None:
    before = host.tree()
    answer = apply(host, wanted(host, GOOD + REFUSES))
    assert answer["transaction"]["outcome"] == "refused"
    assert f"Falco does not take {falco.RULES}: no such field" in answer["msg"]
    assert host.tree() == before
    assert host.calls == []


def test_a_dry_run_asks_falco_and_changes_nothing(host: ActHost) -> None:
    before = host.tree(times=True)
    answer = apply(host, wanted(host), check_mode=True)
    assert answer["changed"] is True
    service = next(row for row in answer["diff"] if "service" in row["before_header"])
    assert service["before"] == "not enabled\nnot active\n"
    assert service["after"] == "enabled\nactive\nwith the files of now\n"
    assert host.tree(times=True) == before
    refused = apply(host, wanted(host, REFUSES), check_mode=True)
    assert refused["transaction"]["outcome"] == "refused"


def test_rules_without_a_falco_are_refused(host: ActHost) -> None:
    (host.base / falco.PROGRAM.lstrip("/")).unlink()
    answer = apply(host, wanted(host))
    assert "Falco is not installed (/usr/bin/falco is absent)" in answer["msg"]


def test_a_service_that_is_not_there_is_refused(host: ActHost) -> None:
    host.falco.unit["LoadState"] = "masked"
    answer = apply(host, plan(own(operation("service_running", name=falco.UNIT))))
    assert answer["transaction"]["outcome"] == "refused"
    assert "is not there or masked" in answer["msg"]


def test_another_service_is_no_operation(host: ActHost) -> None:
    answer = apply(host, plan(own(operation("service_running", name="ssh.service"))))
    assert "'ssh.service' is no service that may be started" in answer["msg"]


# -- taken back ----------------------------------------------------------------------------------
def test_a_service_that_does_not_stay_up_is_rolled_back(host: ActHost) -> None:
    before = host.tree()
    answer = apply(host, wanted(host, GOOD + "# " + DIES))
    assert answer["transaction"]["outcome"] == "rolled_back"
    assert f"{falco.UNIT} does not stay up (it is activating)" in answer["msg"]
    assert host.tree() == before
    assert runs(host) == ("inactive", "disabled")


def test_a_failed_second_change_leaves_the_first_running(host: ActHost) -> None:
    done(host, wanted(host))
    answer = apply(host, wanted(host, GOOD + "# " + DIES))
    assert answer["transaction"]["outcome"] == "rolled_back"
    assert host.read_text(falco.RULES) == GOOD
    assert runs(host) == ("active", "enabled")


def test_a_failure_later_takes_the_service_back(host: ActHost) -> None:
    host.daemon.witness_error = "no"
    answer = apply(host, wanted(host))
    assert answer["transaction"]["outcome"] == "rolled_back"
    assert runs(host) == ("inactive", "disabled")


def test_an_undo_takes_files_and_service_back(host: ActHost) -> None:
    before = host.tree()
    done(host, wanted(host))
    answer = undo(host)
    assert answer["transaction"]["outcome"] == "committed", answer["msg"]
    assert f"service {falco.UNIT}" in answer["transaction"]["changes"]
    assert host.tree() == before
    assert runs(host) == ("inactive", "disabled")
    assert owned(host) == []


def test_an_undo_of_a_later_change_starts_it_with_the_rules_of_before(host: ActHost) -> None:
    done(host, wanted(host))
    first = host.falco.unit["MainPID"]
    done(host, wanted(host, GOOD + "- rule: Another\n"))
    undo(host)
    assert host.read_text(falco.RULES) == GOOD
    assert runs(host) == ("active", "enabled")
    assert host.falco.unit["MainPID"] > first
    assert {row["kind"] for row in owned(host)} == {"file", "service"}


def test_uninstall_gives_both_back(host: ActHost) -> None:
    before = host.tree()
    done(host, wanted(host))
    done(
        host,
        {
            k: uninstall_plan(observe(host))[k]
            for k in ("schema", "profile", "operations", "daemon")
        },
    )
    assert host.tree() == before
    assert runs(host) == ("inactive", "disabled")


def test_one_that_ran_before_runs_on_without_our_rules(host: ActHost) -> None:
    host.falco.unit.update(ActiveState="active", UnitFileState="enabled", MainPID="12")
    done(host, wanted(host))
    done(host, plan(
        own(operation("file_absent", path=falco.RULES, observed=host.version(falco.RULES))),
        own(operation("service_back", name=falco.UNIT)),
    ))  # fmt: skip
    assert runs(host) == ("active", "enabled")
    assert not (host.base / falco.RULES.lstrip("/")).exists()


def test_one_that_somebody_stopped_is_theirs(host: ActHost) -> None:
    done(host, wanted(host))
    host.falco.unit["ActiveState"] = "inactive"
    assert [row["intact"] for row in owned(host) if row["kind"] == "service"] == [False]
    given = uninstall_plan(observe(host))
    assert [op["op"] for op in given["operations"] if op.get("kind") == "service"] == ["disown"]


def test_one_that_is_not_ours_is_not_put_back(host: ActHost) -> None:
    answer = apply(host, plan(own(operation("service_back", name=falco.UNIT))))
    assert "was not started by Bulkhead" in answer["msg"]


# -- the look ------------------------------------------------------------------------------------
def test_the_look_tells_of_a_running_falco(host: ActHost) -> None:
    host.write("/sys/kernel/btf/vmlinux", "")
    host.falco.others["falco-kmod.service"] = {"LoadState": "loaded", "ActiveState": "inactive"}
    done(host, wanted(host))
    answer = look.observe(host, ["falco"])
    jsonschema.validate(answer, SCHEMA)
    seen = answer["falco"]
    assert (seen["installed"], seen["container_plugin"], seen["btf"]) == (True, True, True)
    assert seen["units"][falco.UNIT]["active_state"] == "active"
    assert sorted(seen["units"]) == ["falco-kmod.service", falco.UNIT]
    assert {row["path"]: row["rules"] for row in seen["rules_files"]} == {
        "/etc/falco/falco_rules.yaml": 2,
        falco.RULES: 1,
    }
    files = {row["path"]: row["sha256"] for row in seen["files"]}
    assert files[falco.RULES]
    assert files[falco.CONFIG] is None


def test_the_look_at_a_host_without_falco_asks_systemd_nothing() -> None:
    with act_host() as host:
        answer = look.observe(host, ["falco"])
        jsonschema.validate(answer, SCHEMA)
        assert answer["falco"] == {
            "installed": False,
            "container_plugin": False,
            "btf": False,
            "units": {},
            "rules_files": [],
            "files": [
                {"path": path, "version": "absent", "sha256": None}
                for path in (falco.CONFIG, falco.RULES, falco.DROPIN)
            ],
        }
        assert [argv for argv in host.commands if argv[-1].startswith("falco")] == []
