"""Options that dockerd gets as flags, taken over by daemon.json."""

from __future__ import annotations

import json
import os
import pathlib
import typing

import pytest
from hypothesis import given, strategies as st

from ansible_collections.bulkhead.hardening.plugins.module_utils.flags_dropin import (
    FLAGS_DROPIN,
    dropin,
)
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Host, HostError
from ansible_collections.bulkhead.hardening.plugins.module_utils.look_systemd import Service
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction import apply
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction_undo import undo

from .fakes import CONFIG, ActHost, act_host, file_absent, json_remove, json_set, operation, plan

Json = dict[str, typing.Any]
UNIT = "/usr/lib/systemd/system/docker.service"
DIRECTORY = "/etc/systemd/system/docker.service.d"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, as root does")


def unit(root: pathlib.Path, files: dict[str, str]) -> tuple[Host, Json]:
    """Write a service's files; return the host and the unit as a look shows it."""
    for path, content in files.items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    dropins = sorted((path for path in files if path.startswith(DIRECTORY)), key=os.path.basename)
    return Host(str(root)), {"fragment": UNIT, "dropins": dropins}


def words(host: Host, text: str) -> list[str]:
    """Return what systemd would run with that drop-in."""
    target = pathlib.Path(host.path(FLAGS_DROPIN))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    return [word.text for word in Service(host, [UNIT, FLAGS_DROPIN]).words]


def exec_start(line: str) -> dict[str, str]:
    return {UNIT: "[Service]\nExecStart=%s\n" % line}


def test_flags_of_unit_and_environment_go_and_all_others_stay(tmp_path: pathlib.Path) -> None:
    line = "/usr/sbin/dockerd -H fd:// --containerd=/run/c.sock $DOCKER_OPTS"
    files = exec_start(line + "\nEnvironmentFile=-/etc/default/docker")
    files["/etc/default/docker"] = "DOCKER_OPTS='--icc -D --label a=b --log-opt=tag=x%y -l warn'\n"
    host, shown = unit(tmp_path, files)
    text, arguments = dropin(host, shown, ["icc", "log-level"])
    assert words(host, text) == ["/usr/sbin/dockerd", *arguments]
    assert arguments == [
        "--host=fd://",
        "--containerd=/run/c.sock",
        "--debug=true",
        "--label=a=b",
        "--log-opt=tag=x%y",
    ]


def test_our_own_drop_in_is_left_out_of_account(tmp_path: pathlib.Path) -> None:
    """So that a flag comes back whose key is no longer taken, and what a package changed counts."""
    host, shown = unit(
        tmp_path,
        {
            **exec_start("/usr/bin/dockerd --icc=true --debug"),
            FLAGS_DROPIN: "[Service]\nExecStart=\nExecStart=/old/dockerd\n",
        },
    )
    assert shown["dropins"] == [FLAGS_DROPIN]
    text, arguments = dropin(host, shown, ["debug"])
    assert arguments == ["--icc=true"]
    assert "/old" not in text


def test_a_configuration_file_elsewhere_stays(tmp_path: pathlib.Path) -> None:
    host, shown = unit(tmp_path, exec_start("/usr/bin/dockerd --config-file /srv/d.json --icc"))
    assert dropin(host, shown, ["icc"])[1] == ["--config-file=/srv/d.json"]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (exec_start("/usr/bin/dockerd --of-tomorrow=1 --icc"), "--of-tomorrow"),
        (exec_start("-/usr/bin/dockerd --icc"), "plain path"),
        (exec_start("dockerd --icc"), "plain path"),
        (exec_start('/usr/bin/dockerd "--bip=a\\nb"'), "control character"),
        ({UNIT: "[Service]\nType=notify\n"}, "no ExecStart"),
        (
            {
                **exec_start("/usr/bin/dockerd --icc"),
                DIRECTORY + "/zzz.conf": "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd\n",
            },
            DIRECTORY + "/zzz.conf",
        ),
    ],
)
def test_what_is_not_certain_is_refused(
    tmp_path: pathlib.Path, files: dict[str, str], says: str
) -> None:
    host, shown = unit(tmp_path, files)
    with pytest.raises(HostError, match="docker_daemon_take_over_flags") as caught:
        dropin(host, shown, ["icc"])
    assert says in str(caught.value)


PRINTABLE = st.text(st.characters(min_codepoint=32, exclude_characters="\x7f", codec="utf-8"))


@given(st.lists(PRINTABLE, max_size=4))
def test_any_value_is_read_back_by_systemd_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, values: list[str]
) -> None:
    def quote(value: str) -> str:
        for plain, escaped in (("\\", "\\\\"), ("'", "\\'"), ("%", "%%"), ("$", "$$")):
            value = value.replace(plain, escaped)
        return "'--dns-search=%s'" % value

    line = " ".join(["/usr/bin/dockerd", "--icc", *map(quote, values)])
    host, shown = unit(tmp_path_factory.mktemp("unit"), exec_start(line))
    text, arguments = dropin(host, shown, ["icc"])
    assert arguments == ["--dns-search=" + value for value in values]
    assert words(host, text) == ["/usr/bin/dockerd", *arguments]


# -- as a transaction ------------------------------------------------------------------------------
def taken(host: ActHost, *keys: str) -> Json:
    return operation(
        "flags_taken", path=FLAGS_DROPIN, keys=list(keys), observed=host.version(FLAGS_DROPIN)
    )


@pytest.fixture
def flagged() -> typing.Iterator[ActHost]:
    """Give a host whose daemon gets icc and a secret label from an environment file."""
    with act_host() as host:
        host.write("/etc/default/docker", "DOCKER_OPTS='--icc=true --label=token=hunter2secret'\n")
        host.calls.clear()
        assert host._systemctl("restart").rc == 0
        host.calls.clear()
        assert host.flags["icc"] is True
        yield host


def take(host: ActHost, **options: typing.Any) -> Json:
    raw = plan(json_set(host, "icc", False), taken(host, "icc"), effect="restart")
    return apply(host, raw, **options)


@needs_root
def test_the_key_counts_once_its_flag_is_taken(flagged: ActHost) -> None:
    before = flagged.tree()
    answer = take(flagged)
    assert answer["transaction"]["outcome"] == "committed", answer["msg"]
    assert flagged.daemon.effective["icc"] is False
    assert "icc" not in flagged.flags
    assert flagged.flags["labels"] == ["token=hunter2secret"]
    assert os.stat(flagged.path(FLAGS_DROPIN)).st_mode & 0o777 == 0o600
    assert "hunter2secret" not in json.dumps(answer)
    (item,) = (i for i in flagged.ledger()["owned"]["docker_daemon"] if i["kind"] == "file")
    assert item["flags"] == ["icc"]
    # Undone: the flag counts again, and every file is as it was.
    answer = undo(flagged, "last")
    assert answer["transaction"]["outcome"] == "committed", answer["msg"]
    assert flagged.flags["icc"] is True
    assert flagged.tree() == before


@needs_root
def test_check_mode_shows_that_a_drop_in_comes_and_none_of_its_values(flagged: ActHost) -> None:
    before = flagged.tree(times=True)
    answer = take(flagged, check_mode=True)
    assert answer["transaction"]["outcome"] == "checked", answer["msg"]
    assert flagged.tree(times=True) == before
    shown = {row["after_header"]: row for row in answer["diff"]}
    assert shown[FLAGS_DROPIN]["after"] == "(hidden)\n"


@needs_root
def test_a_key_whose_flag_is_not_taken_is_still_refused(flagged: ActHost) -> None:
    before = flagged.tree()
    raw = plan(json_set(flagged, "icc", False), taken(flagged, "labels"), effect="restart")
    answer = apply(flagged, raw)
    assert answer["transaction"]["outcome"] == "refused"
    assert "icc" in answer["msg"]
    assert flagged.tree() == before


@needs_root
def test_the_flag_comes_back_when_the_drop_in_goes(flagged: ActHost) -> None:
    before = flagged.tree()
    assert take(flagged)["transaction"]["outcome"] == "committed"
    back = plan(json_remove(flagged, "icc"), file_absent(flagged, FLAGS_DROPIN), effect="restart")
    answer = apply(flagged, back)
    assert answer["transaction"]["outcome"] == "committed", answer["msg"]
    assert flagged.flags["icc"] is True
    assert flagged.tree() == before
    # And that, undone, takes it again.
    answer = undo(flagged, "last")
    assert answer["transaction"]["outcome"] == "committed", answer["msg"]
    assert "icc" not in flagged.flags
    assert json.loads((flagged.base / CONFIG.lstrip("/")).read_text()) == {"icc": False}
    assert flagged.daemon.effective["icc"] is False


@needs_root
def test_the_drop_in_alone_is_not_removed_beside_the_key(flagged: ActHost) -> None:
    assert take(flagged)["transaction"]["outcome"] == "committed"
    before = flagged.tree()
    raw = plan(
        json_set(flagged, "icc", False), file_absent(flagged, FLAGS_DROPIN), effect="restart"
    )
    answer = apply(flagged, raw)
    assert answer["transaction"]["outcome"] == "refused"
    assert flagged.tree() == before
