# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The lab's own decisions. No virtual host is started here: Molecule does that all the time."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import typing
from pathlib import Path

import pytest

from lab import (
    __main__ as command_line,
    boot,
    hosts,
    images,
    kinds,
    lifecycle,
    paths,
    processes,
    qemu,
    tools,
)
from lab.errors import LabError

MARKER = "bulkhead-lab/under-test"


@pytest.fixture(autouse=True)
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a cache and a state directory of its own."""
    monkeypatch.setenv("BULKHEAD_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BULKHEAD_LAB_STATE", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture
def image(tmp_path: Path) -> images.Image:
    directory = tmp_path / "cache" / "images" / "trixie-000000000000"
    directory.mkdir(parents=True)
    return images.Image(kinds.get("trixie"), directory)


@pytest.fixture
def host(image: images.Image) -> hosts.Host:
    (created,) = hosts.create([(hosts.Spec("one"), image, None)])
    return created


@pytest.fixture
def sleeper() -> typing.Iterator[subprocess.Popen[bytes]]:
    """Run a process that bears the marker, as a host's QEMU does."""
    code = "import time; print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, MARKER], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def write_kinds(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "kinds.yml"
    path.write_text(text)
    return path


# -- kinds ------------------------------------------------------------------------------------
def test_every_kind_that_is_shipped_is_valid() -> None:
    found = kinds.load()
    assert "trixie" in found
    for kind in found.values():
        assert {"docker.io", "openssh-server", "python3"} <= set(kind.packages)
        assert "root=/dev/vda" in kind.append
        assert kind.description


def test_an_unknown_kind_is_refused_with_those_that_exist() -> None:
    with pytest.raises(LabError, match=r"unknown kind 'sarge'; valid kinds: .*trixie"):
        kinds.get("sarge")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected a mapping with the key 'kinds'"),
        ("kinds: {}\nkind: {}", "unknown key 'kind'; valid are common, kinds"),
        ("kinds: {a: 3}", "kind 'a': expected a mapping, not int"),
        ("kinds: {A b: {}}", "kind 'A b': a name is"),
        ("kinds: {a: {suit: sid}}", "kind 'a': unknown key 'suit'; valid are append,"),
        ("kinds: {a: {packages: vim}}", "kind 'a': packages must be a list of strings"),
        ("kinds: {a: {packages: [1]}}", "kind 'a': packages must be a list of strings"),
        ("kinds: {a: {selinux: maybe}}", "selinux must be true or false, not 'maybe'"),
        ("kinds: {a: {suite: ''}}", "suite must be a non-empty string"),
        ("kinds: {a: {disk: 6 GB}}", "disk must look like 6G or 800M, not '6 GB'"),
        ("kinds: {a: {packages: [vim]}}", "kind 'a' needs suite"),
        ("kinds: {a: {suite: sid}}", "kind 'a' needs packages"),
        ("kinds: {a: {extends: b}}", "kind 'a' extends 'b', which is no kind; valid kinds: a"),
        ("kinds: {a: {extends: b}, b: {extends: a}}", "in a circle: a -> b"),
        ("kinds: [", "while parsing"),
    ],
)
def test_a_mistake_in_kinds_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LabError) as caught:
        kinds.load(write_kinds(tmp_path, text))
    assert message in str(caught.value)


def test_a_kind_adds_to_what_it_extends(tmp_path: Path) -> None:
    path = write_kinds(
        tmp_path,
        """
        common: {packages: [a, b], append: [rw], disk: 1G}
        kinds:
          base: {suite: sid, packages: [c], description: Base}
          more: {extends: base, packages: [d, a], omit_packages: [b], append: [selinux=1],
                 selinux: true, disk: 2G}
        """,
    )
    found = kinds.load(path)
    assert found["base"].packages == ("a", "b", "c")
    assert found["more"].packages == ("a", "c", "d")
    assert found["more"].append == ("rw", "selinux=1")
    assert (found["more"].suite, found["more"].disk, found["more"].selinux) == ("sid", "2G", True)
    assert not found["base"].selinux


# -- recipes ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "change",
    [
        {"suite": "sid"},
        {"packages": ("vim",)},
        {"mask": ()},
        {"enable": ()},
        {"disk": "7G"},
        {"apt_options": ()},
        {"dpkg_options": ()},
        {"mirror": "http://example.org/debian"},
        {"selinux": True},
        {"name": "other"},
    ],
)
def test_what_is_in_an_image_decides_its_hash(change: dict[str, typing.Any]) -> None:
    kind = kinds.get("trixie")
    changed = dataclasses.replace(kind, **change)
    assert kinds.recipe_hash(changed, "key") != kinds.recipe_hash(kind, "key")


def test_what_is_not_in_an_image_does_not_decide_its_hash() -> None:
    kind = kinds.get("trixie")
    changed = dataclasses.replace(kind, description="Other words", append=("quiet",))
    assert kinds.recipe_hash(changed, "key") == kinds.recipe_hash(kind, "key")


def test_key_builder_and_guest_files_decide_the_hash(tmp_path: Path) -> None:
    kind = kinds.get("trixie")
    (tmp_path / "file").write_text("one")
    first = kinds.recipe_hash(kind, "key", tmp_path)
    assert first == kinds.recipe_hash(kind, "key", tmp_path)
    assert first != kinds.recipe_hash(kind, "other key", tmp_path)
    assert first != kinds.recipe_hash(kind, "key", tmp_path, format_version=99)
    (tmp_path / "file").write_text("two")
    second = kinds.recipe_hash(kind, "key", tmp_path)
    (tmp_path / "file").rename(tmp_path / "renamed")
    assert len({first, second, kinds.recipe_hash(kind, "key", tmp_path)}) == 3


def test_guest_files_are_packed_as_roots(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir(mode=0o700)
    (tmp_path / "etc" / "file").write_text("text")
    packed = images.pack(tmp_path, {"root/.ssh/authorized_keys": "key\n"})
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        members = {member.name: (member.mode, member.uid, member.gid) for member in archive}
        key = archive.extractfile("root/.ssh/authorized_keys")
        assert key is not None
        assert key.read() == b"key\n"
    assert members == {
        "etc": (0o755, 0, 0),
        "etc/file": (0o644, 0, 0),
        "root/.ssh": (0o700, 0, 0),
        "root/.ssh/authorized_keys": (0o600, 0, 0),
    }


def test_an_image_in_use_is_not_rebuilt_under_its_host(
    host: hosts.Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Path(host.image)
    with pytest.raises(LabError, match=f"in use; run: python3 -m lab down {host.id}"):
        images.discard(directory)
    hosts.remove(host)
    images.discard(directory)
    assert not directory.exists()


def test_old_images_go_and_used_ones_stay(host: hosts.Host) -> None:
    used, images_dir = Path(host.image), Path(host.image).parent
    for name in ("trixie-111111111111", "trixie-222222222222", "trixie-x-333333333333"):
        (images_dir / name).mkdir()
    for directory in images_dir.iterdir():
        os.utime(directory, (0, 0))
    os.utime(images_dir / "trixie-222222222222")
    images.prune(images_dir / "trixie-444444444444")
    left = {directory.name for directory in images_dir.iterdir()}
    assert left == {used.name, "trixie-222222222222", "trixie-x-333333333333"}


# -- tools ------------------------------------------------------------------------------------
def test_missing_programs_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    with pytest.raises(LabError) as caught:
        tools.find("mke2fs", "mmdebstrap")
    assert str(caught.value) == (
        "not installed: mke2fs, mmdebstrap. On Debian: apt-get install e2fsprogs mmdebstrap"
    )


def test_what_a_failed_program_said_is_shown(tmp_path: Path) -> None:
    script = "echo first; echo the reason >&2; exit 3"
    with pytest.raises(LabError, match=r"sh failed with code 3.*\n.*first\nthe reason"):
        tools.run(["sh", "-c", script], tmp_path / "log")


def test_the_end_of_a_console_is_readable(tmp_path: Path) -> None:
    path = tmp_path / "console"
    lines = [f"line {number}" for number in range(100)]
    path.write_bytes("\r\n".join([*lines, "\x1b[K[\x1b[0;32m  OK  \x1b[0m] Up\x07"]).encode())
    assert tools.tail(path, 3) == "line 98\nline 99\n[  OK  ] Up"
    assert len(tools.tail(path).splitlines()) == 40


def test_a_console_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    assert "No such file" in tools.tail(tmp_path / "none")
    (tmp_path / "empty").touch()
    assert tools.tail(tmp_path / "empty") == "(empty)"


# -- places -----------------------------------------------------------------------------------
def test_a_state_directory_that_others_can_write_is_refused(directories: Path) -> None:
    paths.state_dir().chmod(0o777)
    with pytest.raises(LabError, match="can be written by others; run: chmod go-w"):
        paths.state_dir()


def test_a_link_instead_of_a_state_directory_is_refused(directories: Path) -> None:
    (directories / "elsewhere").mkdir()
    (directories / "state").symlink_to(directories / "elsewhere")
    with pytest.raises(LabError, match="is not a directory of this user"):
        paths.state_dir()


# -- processes --------------------------------------------------------------------------------
def test_the_process_that_was_recorded_is_ended(sleeper: subprocess.Popen[bytes]) -> None:
    identity = processes.identify(sleeper.pid, MARKER)
    assert identity is not None
    assert processes.alive(identity)
    assert processes.find(MARKER) == identity
    assert processes.kill(identity)
    assert sleeper.wait() == -signal.SIGKILL
    assert not processes.kill(identity)


@pytest.mark.parametrize(
    "change",
    [{"start_ticks": 1}, {"boot_id": "another boot"}, {"marker": "bulkhead-lab/somebody-else"}],
)
def test_a_process_with_the_same_number_is_left_alone(
    sleeper: subprocess.Popen[bytes], change: dict[str, typing.Any]
) -> None:
    identity = processes.identify(sleeper.pid, MARKER)
    assert identity is not None
    assert not processes.kill(dataclasses.replace(identity, **change))
    assert sleeper.poll() is None


def test_a_process_that_waits_to_be_reaped_counts_as_gone(
    sleeper: subprocess.Popen[bytes],
) -> None:
    identity = processes.identify(sleeper.pid, MARKER)
    assert identity is not None
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not processes.alive(identity)
    assert processes.identify(sleeper.pid, MARKER) is None


def test_a_host_does_not_end_a_foreign_process(
    host: hosts.Host, sleeper: subprocess.Popen[bytes]
) -> None:
    """As when the machine was rebooted and somebody else has the recorded number now."""
    recorded = processes.identify(sleeper.pid, MARKER)
    assert recorded is not None
    host.process = dataclasses.replace(recorded, marker=host.marker)
    assert host.state == "stopped"
    hosts.remove(host)
    assert sleeper.poll() is None
    assert not host.directory.exists()
    assert not host.storage.exists()


# -- hosts ------------------------------------------------------------------------------------
def test_a_host_is_found_by_name_and_by_id(host: hosts.Host) -> None:
    assert hosts.find("one") == hosts.find(host.id) == host
    with pytest.raises(LabError, match="no host 'two'; existing: one"):
        hosts.find("two")


def test_hosts_of_another_scope_are_found_by_id_only(
    host: hosts.Host, directories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BULKHEAD_LAB_STATE", str(directories / "other"))
    assert hosts.load_all() == []
    assert hosts.load_all(everywhere=True) == [host]
    assert hosts.find(host.id) == host
    with pytest.raises(LabError, match="no host 'one'; existing: none"):
        hosts.find("one")


def test_a_name_is_taken_once_in_a_scope(
    host: hosts.Host, image: images.Image, directories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [(hosts.Spec(name), image, None) for name in ("two", "one")]
    with pytest.raises(LabError, match=rf"host one exists already \({host.id}, stopped\)"):
        hosts.create(wanted)
    assert hosts.load_all() == [host]
    monkeypatch.setenv("BULKHEAD_LAB_STATE", str(directories / "other"))
    assert [created.name for created in hosts.create(wanted)] == ["two", "one"]
    with pytest.raises(LabError, match="host three is named twice"):
        hosts.create([(hosts.Spec("three"), image, None)] * 2)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (hosts.Spec("One"), "host name 'One'"),
        (hosts.Spec("one-"), "host name 'one-'"),
        (hosts.Spec("../one"), "host name '../one'"),
        (hosts.Spec("one", memory=64), "64 MiB of memory is too little"),
        (hosts.Spec("one", cpus=0), "needs at least one cpu"),
    ],
)
def test_a_host_that_cannot_work_is_refused(spec: hosts.Spec, message: str) -> None:
    with pytest.raises(LabError, match=message):
        spec.check()


def test_what_is_left_of_a_vanished_host_is_swept(host: hosts.Host, image: images.Image) -> None:
    (other,) = hosts.create([(hosts.Spec("other"), image, None)])
    (host.directory / "meta.json").unlink()
    host.directory.rmdir()
    hosts.sweep()
    assert not host.storage.exists()
    assert other.storage.exists()


def test_a_damaged_record_is_named(host: hosts.Host) -> None:
    (host.directory / "meta.json").write_text("{")
    with pytest.raises(LabError, match=r"meta\.json is damaged"):
        hosts.load_all()


# -- starting ---------------------------------------------------------------------------------
@pytest.fixture
def fake_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> typing.Iterator[Path]:
    """Stand in for QEMU: binds the host's port, says what QEMU says when it cannot, and hangs up."""
    script = tmp_path / "fake-qemu.py"
    script.write_text(
        "import socket, sys\n"
        "listener = socket.socket()\n"
        # As QEMU does: a connection that was closed from here must not keep the port.
        "listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
        "try:\n"
        "    listener.bind(('127.0.0.1', int(sys.argv[1])))\n"
        "except OSError:\n"
        '    sys.exit("Could not set up host forwarding rule")\n'
        "listener.listen()\n"
        "while True:\n"
        "    listener.accept()[0].close()\n"
    )

    def command(host: hosts.Host) -> list[str]:
        return [sys.executable, str(script), str(host.port), host.marker]

    monkeypatch.setattr(qemu, "command", command)
    yield script
    for host in hosts.load_all():
        hosts.remove(host)


def test_a_port_that_somebody_took_meanwhile_is_replaced(
    host: hosts.Host, fake_qemu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as other:
        other.bind((hosts.ADDRESS, 0))
        taken, free = other.getsockname()[1], qemu.free_port()
        offers = iter([taken, taken, free])
        monkeypatch.setattr(qemu, "free_port", lambda: next(offers))
        qemu.launch(host)
    assert host.port == free
    assert hosts.find("one").process == host.process
    assert host.running


def test_a_port_is_kept_when_a_host_starts_again(host: hosts.Host, fake_qemu: Path) -> None:
    qemu.launch(host)
    port = host.port
    assert hosts.stop(host)
    assert host.state == "stopped"
    qemu.launch(host)
    assert host.port == port
    assert host.state == "starting"


def test_an_emulator_that_fails_is_quoted(host: hosts.Host, fake_qemu: Path) -> None:
    fake_qemu.write_text("raise SystemExit('no such machine')")
    with pytest.raises(LabError, match="host one: QEMU did not start:\nno such machine"):
        qemu.launch(host)


def test_ports_are_free() -> None:
    port = qemu.free_port()
    with socket.socket() as probe:
        probe.bind((hosts.ADDRESS, port))


def test_a_host_that_is_never_ready_is_shown_with_its_console(
    host: hosts.Host, fake_qemu: Path
) -> None:
    host.disk.touch()
    host.console.write_text("".join(f"line {number}\n" for number in range(99)))
    with pytest.raises(LabError) as caught:
        boot.boot([host], deadline=0.5)
    text = str(caught.value)
    assert text.startswith(
        "host one: was not ready in time (see --timeout)\nthe end of its console"
    )
    assert text.endswith("line 97\nline 98")
    assert "line 58\n" not in text


def test_a_host_that_panics_or_dies_is_not_waited_for(host: hosts.Host, fake_qemu: Path) -> None:
    qemu.launch(host)
    host.console.write_text("Kernel panic - not syncing: no init\n")
    with pytest.raises(LabError, match="host one: its kernel panicked"):
        boot.check(host, float("inf"), threading.Event())
    hosts.stop(host)
    with pytest.raises(LabError, match="host one: QEMU ended"):
        boot.check(host, float("inf"), threading.Event())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whoever_interrupts_finds_nothing_left(
    number: int, image: images.Image, fake_qemu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "ensure", lambda kind: image)
    monkeypatch.setattr(qemu, "create_disk", lambda host: host.disk.touch())
    before = signal.getsignal(number)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), number))
    timer.start()
    specs = [hosts.Spec("one"), hosts.Spec("two")]
    with pytest.raises(lifecycle.Interrupted, match=signal.Signals(number).name):
        lifecycle.up(specs, cold=True, deadline=60)
    assert hosts.load_all() == []
    assert processes.find("bulkhead-lab/one-") is None
    assert processes.find("bulkhead-lab/two-") is None
    assert list(images.overlays_dir().glob("*/")) == []
    assert signal.getsignal(number) == before


def test_one_host_that_fails_takes_the_others_along(
    image: images.Image, fake_qemu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create_disk(host: hosts.Host) -> None:
        if host.name == "two":
            raise LabError("no space")

    monkeypatch.setattr(images, "ensure", lambda kind: image)
    monkeypatch.setattr(qemu, "create_disk", create_disk)
    with pytest.raises(LabError, match="no space"):
        lifecycle.up([hosts.Spec("one"), hosts.Spec("two")], cold=True, deadline=60)
    assert hosts.load_all() == []
    assert processes.find("bulkhead-lab/one-") is None


# -- the command line -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web", hosts.Spec("web", "trixie", 1536, 2)),
        ("web,kind=forky", hosts.Spec("web", "forky", 1536, 2)),
        ("web,memory=512,cpus=1", hosts.Spec("web", "trixie", 512, 1)),
    ],
)
def test_hosts_on_the_command_line(text: str, expected: hosts.Spec) -> None:
    assert command_line.parse_host(text, hosts.Spec("")) == expected


@pytest.mark.parametrize("text", ["web,memory=much", "web,disk=6G", "web,forky"])
def test_a_mistyped_host_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(LabError, match="expected NAME,kind=K,memory=MIB,cpus=N"):
        command_line.parse_host(text, hosts.Spec(""))


def test_platforms_of_a_molecule_file(tmp_path: Path) -> None:
    path = tmp_path / "molecule.yml"
    path.write_text(
        "platforms:\n  - {name: empty}\n"
        "  - {name: used, kind: forky, memory: 2048, cpus: 1, groups: [a]}\n"
    )
    assert command_line.read_platforms(path, hosts.Spec("")) == [
        hosts.Spec("empty"),
        hosts.Spec("used", "forky", 2048, 1),
    ]
    path.write_text("platforms: [{kind: trixie}]")
    with pytest.raises(LabError, match="'platforms', a list of mappings with name"):
        command_line.read_platforms(path, hosts.Spec(""))


def test_the_list_as_text_and_as_json(host: hosts.Host, capsys: pytest.CaptureFixture[str]) -> None:
    tools_key = images.key_path()
    assert tools_key.stat().st_mode & 0o777 == 0o600
    assert command_line.main(["list"]) == 0
    assert "one" in capsys.readouterr().out
    assert command_line.main(["list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["hosts"]
    assert row["id"] == host.id
    assert row["state"] == "stopped"
    assert row["uptime"] is None
    assert row["key"] == str(tools_key)


def test_errors_are_short_and_the_code_tells(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["ssh", "nobody"]) == 1
    assert capsys.readouterr().err == "lab: error: no host 'nobody'; existing: none\n"
    assert command_line.main(["down"]) == 1
    assert command_line.main(["down", "nobody", "--ignore-missing"]) == 0


def test_down_ends_only_what_is_named(
    host: hosts.Host, image: images.Image, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts.create([(hosts.Spec("two"), image, None)])
    assert command_line.main(["down", host.id]) == 0
    assert [left.name for left in hosts.load_all()] == ["two"]
    assert command_line.main(["down", "--all-of-mine"]) == 0
    assert hosts.load_all() == []


# -- the inventory ----------------------------------------------------------------------------
def load_inventory() -> typing.Any:
    path = Path(__file__).resolve().parents[2] / "inventories" / "lab" / "lab_hosts.py"
    spec = importlib.util.spec_from_file_location("lab_hosts", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with contextlib.ExitStack() as stack:
        stack.callback(sys.path.__setitem__, slice(None), list(sys.path))
        spec.loader.exec_module(module)
    return module


def test_the_inventory_without_hosts() -> None:
    answer = load_inventory().inventory([])
    assert answer["docker_hosts"]["hosts"] == []
    assert answer["_meta"] == {"hostvars": {}}


def test_the_inventory_lists_running_hosts(
    host: hosts.Host, image: images.Image, fake_qemu: Path
) -> None:
    hosts.create([(hosts.Spec("off"), image, None)])
    qemu.launch(host)
    host.ready = True
    host.save()
    answer = load_inventory().inventory(hosts.load_all())
    assert answer["docker_hosts"]["hosts"] == ["one"]
    assert answer["kind_trixie"] == {"hosts": ["one"]}
    assert answer["_meta"]["hostvars"]["one"]["ansible_port"] == host.port
