"""SELinux in a transaction: modules, booleans, paths labelled like others, enforcing, and the way back."""

from __future__ import annotations

import os
import stat
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import (
    look,
    selinux as host_selinux,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction import apply
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_undo import undo

from .fake_selinux import KERNEL, POLICY, STORE, FakeSelinux
from .fakes import ActHost, act_host, json_set, operation, plan, selinux

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, as root does")

Json = dict[str, typing.Any]
SUBS = POLICY + "/contexts/files/file_contexts.subs"
WEB = "(block web (type process))\n"


@pytest.fixture
def host() -> typing.Iterator[ActHost]:
    with act_host() as made:
        made.selinux = FakeSelinux(made)
        yield made


def policy(host: ActHost) -> FakeSelinux:
    assert host.selinux
    return host.selinux


def done(host: ActHost, *operations: Json, **more: typing.Any) -> Json:
    answer = apply(host, plan(*operations, **more))
    assert answer["transaction"]["outcome"] == "committed", answer["msg"]
    return answer


def whole(host: ActHost) -> typing.Any:
    return host.tree(), policy(host).state() if host_selinux.enabled(host) else None


def refused(host: ActHost, *operations: Json) -> str:
    before = whole(host)
    answer = apply(host, plan(*operations))
    assert answer["transaction"]["outcome"] == "refused"
    assert whole(host) == before
    return str(answer["msg"])


def owned(host: ActHost) -> list[Json]:
    rows = look.observe(host, ["bulkhead"])["bulkhead"]["owned"].get("docker_selinux", [])
    return typing.cast("list[Json]", rows)


# -- modules -------------------------------------------------------------------------------------
def test_a_module_is_installed_once(host: ActHost) -> None:
    done(host, selinux("module", name="web", content=WEB))
    assert policy(host).state()[0] == {"web": WEB.encode()}
    (row,) = owned(host)
    assert row["intact"] is True
    assert row["sha256"] == host_selinux.digest(WEB.encode())
    host.calls.clear()
    done(host, selinux("module", name="web", content=WEB))
    assert not any(call.startswith("semodule") for call in host.calls)


def test_modules_that_come_change_and_go_compile_once(host: ActHost) -> None:
    done(host, *(selinux("module", name=name, content=WEB) for name in ("old", "web")))
    host.calls.clear()
    done(
        host,
        selinux("module", name="web", content=WEB + "; more\n"),
        selinux("module", name="new", content=WEB),
        selinux("module_absent", name="old"),
    )
    assert len([call for call in host.calls if call.startswith("semodule")]) == 1
    assert sorted(policy(host).state()[0]) == ["new", "web"]
    assert not list((host.base / "var/lib/bulkhead").rglob("*.cil"))


def test_a_text_that_does_not_compile_leaves_the_host_alone(host: ActHost) -> None:
    before = whole(host)
    answer = apply(host, plan(selinux("module", name="web", content="bogus")))
    assert (answer["transaction"]["outcome"], answer["transaction"]["failed_step"]) == (
        "rolled_back",
        "selinux",
    )
    assert "Failed to resolve web" in answer["msg"]
    assert whole(host) == before


def test_a_later_failure_takes_the_module_back(host: ActHost) -> None:
    done(host, selinux("module", name="web", content=WEB))
    before = whole(host)
    host.daemon.witness_error = "no"
    answer = apply(
        host,
        plan(
            selinux("module", name="web", content=WEB + "; more\n"),
            selinux("module", name="new", content=WEB),
            selinux("boolean", name="container_use_nfs", value=True),
        ),
    )
    assert answer["transaction"]["outcome"] == "rolled_back"
    assert whole(host)[1] == before[1]


def test_a_module_of_somebody_else_is_left_alone(host: ActHost) -> None:
    assert "a module container is installed" in refused(
        host, selinux("module", name="container", content=WEB)
    )


def test_a_module_that_somebody_changed_is_not_removed(host: ActHost) -> None:
    done(host, selinux("module", name="web", content=WEB))
    host.write(STORE + "/modules/400/web/cil", "(other)")
    assert owned(host)[0]["intact"] is False
    assert "changed by somebody else" in refused(host, selinux("module_absent", name="web"))
    answer = undo(host)
    assert "changed by somebody else" in answer["msg"]


def test_an_undo_brings_the_former_text_back(host: ActHost) -> None:
    done(host, selinux("module", name="web", content=WEB))
    done(host, selinux("module", name="web", content=WEB + "; more\n"))
    answer = undo(host)
    assert answer["transaction"]["outcome"] == "committed", answer["msg"]
    assert answer["transaction"]["changes"] == ["SELinux module web"]
    assert policy(host).state()[0] == {"web": WEB.encode()}
    assert owned(host)[0]["intact"] is True
    assert undo(host)["transaction"]["outcome"] == "committed"
    assert policy(host).state()[0] == {}
    assert owned(host) == []


# -- booleans ------------------------------------------------------------------------------------
def test_a_boolean_is_set_for_good_and_given_back(host: ActHost) -> None:
    done(host, selinux("boolean", name="container_use_nfs", value=True))
    assert policy(host).state()[1]["container_use_nfs"] == "1 1"
    assert host_selinux.kept_booleans(host) == {"container_use_nfs": True}
    assert owned(host)[0]["intact"] is True
    done(host, selinux("boolean_back", name="container_use_nfs"))
    assert policy(host).state()[1]["container_use_nfs"] == "0 0"
    assert owned(host) == []


def test_a_boolean_that_is_so_for_now_is_made_to_stay(host: ActHost) -> None:
    host.write(KERNEL + "/booleans/container_use_nfs", "1 1")
    done(host, selinux("boolean", name="container_use_nfs", value=True))
    assert host_selinux.kept_booleans(host) == {"container_use_nfs": True}
    done(host, selinux("boolean_back", name="container_use_nfs"))
    assert policy(host).state()[1]["container_use_nfs"] == "1 1"


def test_a_boolean_that_the_policy_lacks(host: ActHost) -> None:
    assert "no boolean nope" in refused(host, selinux("boolean", name="nope", value=True))


# -- paths labelled like others ------------------------------------------------------------------
def test_a_path_is_labelled_like_another_one(host: ActHost) -> None:
    host.write(SUBS, "# mine\n/home2 /home\n")
    (host.base / "srv/docker").mkdir(parents=True)
    done(
        host,
        selinux("equivalence", name="/srv/docker", like="/var/lib/docker"),
        selinux("relabel", path="/srv/docker"),
    )
    text = (host.base / SUBS.lstrip("/")).read_text()
    assert text == "# mine\n/home2 /home\n/srv/docker /var/lib/docker\n"
    assert policy(host).relabelled == ["/srv/docker"]
    assert owned(host)[0]["intact"] is True
    # Somebody adds a line: theirs stays, ours goes.
    host.write(SUBS, text + "/home3 /home\n")
    done(host, selinux("equivalence_absent", name="/srv/docker"))
    assert (host.base / SUBS.lstrip("/")).read_text() == "# mine\n/home2 /home\n/home3 /home\n"
    assert owned(host) == []


def test_a_path_below_another_one_comes_before_it(host: ActHost) -> None:
    """The first line that covers a path counts: behind its data root, a remapped folder's is never used."""
    own, root = "/srv/docker/231072.231072", "/srv/docker"
    host.write(SUBS, "/home2 /home\n/srv /var\n")
    lines = [selinux("equivalence", name=name, like="/var/lib/docker") for name in (root, own)]
    done(host, *lines)
    ours = "%s /var/lib/docker\n%s /var/lib/docker\n" % (own, root)
    assert (host.base / SUBS.lstrip("/")).read_text() == "/home2 /home\n" + ours + "/srv /var\n"
    # As somebody may have written it: what is never used does not count, and is written where it is.
    host.write(SUBS, "%s /var/lib/docker\n/srv/dockers /var\n%s /var/lib/docker\n" % (root, own))
    assert [item["intact"] for item in owned(host)] == [True, False]
    done(host, lines[1])
    assert (host.base / SUBS.lstrip("/")).read_text() == ours + "/srv/dockers /var\n"


def test_the_file_goes_with_our_last_line(host: ActHost) -> None:
    before = whole(host)
    done(host, selinux("equivalence", name="/srv/docker", like="/var/lib/docker"))
    answer = undo(host)
    assert answer["transaction"]["outcome"] == "committed", answer["msg"]
    assert whole(host) == before


def test_a_data_root_is_made_before_it_is_labelled(host: ActHost) -> None:
    before = whole(host)
    host.daemon.witness_error = "no"
    answer = apply(host, plan(selinux("relabel", path="/srv/docker")))
    assert answer["transaction"]["outcome"] == "rolled_back"
    assert whole(host) == before
    host.daemon.witness_error = None
    done(host, selinux("relabel", path="/srv/docker"))
    assert (host.base / "srv/docker").stat().st_mode & 0o7777 == 0o711


def test_nodes_of_devices_and_what_links_lead_to_keep_their_labels(host: ActHost) -> None:
    """The policy lets nobody label the node that dockerd makes for quotas: restorecon -R fails on it."""
    root = host.base / "srv/docker/volumes"
    root.mkdir(parents=True)
    os.mknod(root / "backingFsBlockDev", stat.S_IFCHR | 0o600, 0)
    (root / "kept").mkdir()
    (root / "away").symlink_to("/etc")
    done(host, selinux("relabel", path="/srv/docker"))
    assert sorted(policy(host).relabelled) == [
        "/srv/docker",
        "/srv/docker/volumes",
        "/srv/docker/volumes/away",
        "/srv/docker/volumes/kept",
    ]


def test_labels_go_once_the_daemon_has_left_them(host: ActHost) -> None:
    """dockerd would be denied the locks of files that are not Docker's data any more."""
    before = whole(host)
    moved = plan(
        json_set(host, "data-root", "/srv/docker"),
        selinux("equivalence", name="/srv/docker", like="/var/lib/docker"),
        selinux("relabel", path="/srv/docker"),
        effect="restart",
    )
    host.daemon.witness_error = "no"
    assert apply(host, moved)["transaction"]["outcome"] == "rolled_back"
    assert whole(host) == before
    host.daemon.witness_error = None
    assert apply(host, moved)["transaction"]["outcome"] == "committed"
    answer = undo(host)
    assert answer["transaction"]["outcome"] == "committed", answer["msg"]
    assert "labels below /srv/docker" in [row["before_header"] for row in answer["diff"]]
    assert policy(host).roots == ["/var/lib/docker"] * 4


def test_an_undo_leaves_labels_that_the_daemon_goes_on_using(host: ActHost) -> None:
    host.write("/etc/docker/daemon.json", '{"data-root": "/srv/docker"}')
    done(host, selinux("relabel", path="/srv/docker"))
    assert undo(host)["transaction"]["outcome"] == "committed"
    assert policy(host).relabelled == ["/srv/docker"]


# -- enforcing -----------------------------------------------------------------------------------
def test_enforcing_is_switched_on_and_never_off(host: ActHost) -> None:
    host.selinux = FakeSelinux(host, enforcing=False)
    done(host, selinux("enforcing"))
    assert policy(host).state()[2] == "1"
    config = (host.base / "etc/selinux/config").read_text()
    assert config == "# hosts\nSELINUX=enforcing\nSELINUXTYPE=default\n"
    answer = undo(host)
    assert answer["transaction"]["outcome"] == "committed", answer["msg"]
    assert answer["transaction"]["changes"] == [
        "/etc/selinux/config",
        "SELinux enforcing, which an undo leaves",
    ]
    assert policy(host).state()[2] == "1"
    assert (host.base / "etc/selinux/config").read_text() == config


def test_a_host_that_does_not_work_enforcing_is_permissive_again(host: ActHost) -> None:
    host.selinux = FakeSelinux(host, enforcing=False)
    before = whole(host)
    host.daemon.witness_error = "no"
    answer = apply(host, plan(selinux("enforcing")))
    assert answer["transaction"]["outcome"] == "rolled_back"
    assert whole(host) == before


# -- hosts that cannot ---------------------------------------------------------------------------
def test_a_kernel_without_selinux(host: ActHost) -> None:
    (host.base / KERNEL.lstrip("/") / "enforce").unlink()
    assert "without SELinux" in refused(host, selinux("module", name="web", content=WEB))


@pytest.mark.parametrize(
    ("program", "wanted"),
    [
        ("semodule", selinux("module", name="web", content=WEB)),
        ("setsebool", selinux("boolean", name="container_use_nfs", value=True)),
        ("restorecon", selinux("relabel", path="/var/lib")),
    ],
)
def test_a_program_that_is_missing(host: ActHost, program: str, wanted: Json) -> None:
    (host.base / "usr/sbin" / program).unlink()
    assert "%s is not on this host; install" % program in refused(host, wanted)


def test_a_dry_run_shows_the_policy(host: ActHost) -> None:
    before = whole(host)
    answer = apply(
        host,
        plan(
            selinux("module", name="web", content=WEB),
            selinux("boolean", name="container_use_nfs", value=True),
        ),
        check_mode=True,
    )
    assert answer["changed"] is True
    shown = {row["before_header"]: (row["before"], row["after"]) for row in answer["diff"]}
    assert shown == {
        "SELinux module web": ("", WEB),
        "SELinux boolean container_use_nfs": ("0\n", "1\n"),
    }
    assert whole(host) == before


def test_with_the_daemon_in_one_transaction(host: ActHost) -> None:
    answer = done(
        host,
        json_set(host, "selinux-enabled", True),
        selinux("module", name="web", content=WEB),
        operation("disown", kind="user", name="nobody"),
        effect="restart",
    )
    assert answer["transaction"]["daemon_restarts"] == 1
    assert host.daemon.effective == {"selinux-enabled": True}


def test_the_look_tells_the_policy(host: ActHost) -> None:
    host.write(
        "/var/log/audit/audit.log",
        'type=AVC msg=audit(1900000000.1:7): avc:  denied  { read write } for  pid=1 comm="x" '
        "scontext=system_u:system_r:container_t:s0:c1,c2 tcontext=system_u:object_r:var_t:s0 "
        "tclass=file permissive=0\n" * 2,
    )
    found = look.observe(host, ["lsm"])["lsm"]["selinux"]
    assert (found["enabled"], found["enforcing"], found["policy"]) == (True, True, "default")
    assert found["contexts"]["process"] == "system_u:system_r:container_t:s0"
    assert found["types_known"] is True
    assert found["booleans"] == {"container_manage_cgroup": False, "container_use_nfs": False}
    assert found["modules"] == {"container": 100}
    assert found["denials"] == [
        {"source": "container_t", "target": "var_t", "class": "file",
         "permissions": "read write", "count": 2}
    ]  # fmt: skip
