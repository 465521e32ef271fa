"""The program that runs attacks in a container, run here as it is there."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import sys
import time
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import attacks

Json = dict[str, typing.Any]

ATTACKS = {
    "good": "from proof import HELD, Try\n\ndef attack():\n    return [Try('w', HELD, 'EPERM')]\n",
    "bad": "def attack():\n    raise ValueError('no')\n",
    "exits": "import sys\n\ndef attack():\n    sys.exit(3)\n",
    "dies": "import os\n\ndef attack():\n    os.kill(os.getpid(), 9)\n",
    "slow": "import time\n\ndef attack():\n    time.sleep(60)\n",
    # Its children hold the pipe open, too.
    "breeds": "import os, time\n\ndef attack():\n    os.fork()\n    time.sleep(60)\n",
    "floods": "from proof import HELD, Try\n\ndef attack():\n    return [Try('w' * 500000, HELD)]\n",
}


@pytest.fixture
def place(tmp_path: pathlib.Path) -> pathlib.Path:
    """Lay the programs out as in the image."""
    for path in attacks.PROGRAMS.glob("*.py"):
        shutil.copy(path, tmp_path)
    (tmp_path / "attacks").mkdir()
    for name, text in ATTACKS.items():
        (tmp_path / "attacks" / f"{name}.py").write_text(text)
    return tmp_path


def run(place: pathlib.Path, *words: str) -> list[Json]:
    """Run attacks and return their lines."""
    command = [sys.executable, "-I", "-S", "-B", str(place / "run.py"), "attack", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_an_attack_answers_with_its_tries(place: pathlib.Path) -> None:
    (line,) = run(place, "good", "10")
    assert line["tries"] == [{"what": "w", "outcome": "held", "detail": "EPERM"}]
    assert line["began"] <= line["ended"]


@pytest.mark.parametrize(
    ("name", "seconds", "said"),
    [
        ("bad", "10", "ValueError: no (bad.py:2)"),
        ("exits", "10", "SystemExit: 3"),
        ("dies", "10", "no answer"),
        ("slow", "1", "no answer within 1 s"),
        ("breeds", "1", "no answer within 1 s"),
        ("floods", "10", "no answer"),
        ("missing", "10", "FileNotFoundError"),
    ],
)
def test_what_goes_wrong_is_said_and_the_next_runs(
    place: pathlib.Path, name: str, seconds: str, said: str
) -> None:
    began = time.monotonic()
    first, second = run(place, name, seconds, "good", "10")
    assert said in first["error"]
    assert "tries" not in first
    assert second["id"] == "good"
    assert second["tries"]
    assert time.monotonic() - began < 30


def test_nothing_of_an_attack_outlives_it(place: pathlib.Path) -> None:
    mark = "bulkhead-test-%d" % time.monotonic_ns()
    command = ["sh", "-c", f": {mark}; sleep 60; :"]
    text = f"import subprocess\n\ndef attack():\n    subprocess.run({command})\n"
    (place / "attacks" / "spawns.py").write_text(text)
    run(place, "spawns", "2")
    left = subprocess.run(["pgrep", "-f", mark], check=False, capture_output=True, text=True)
    assert left.stdout == ""


PIECES = """
import errno, os, socket
from proof import UNREACHED, Try, ask_ping, attempt, connect, fork, works

def raises():
    raise ValueError("in a child")

OPEN = []

def answers(text):
    ours, theirs = socket.socketpair()
    theirs.sendall(text)
    theirs.shutdown(socket.SHUT_WR)
    OPEN.append(theirs)
    return ours

def refuses():
    raise PermissionError(errno.EACCES, "no")

def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]

def attack():
    child = fork(raises)
    return [
        Try("child", "held", str(os.waitpid(child, 0)[1])),
        ask_ping("an API", lambda: answers(b"HTTP/1.0 200 OK" + bytes((13, 10)))),
        ask_ping("with TLS", lambda: answers(b"HTTP/1.0 400 Bad Request")),
        ask_ping("closed", lambda: answers(b"")),
        ask_ping("refused", refuses),
        attempt("nobody", lambda: connect("127.0.0.1", free_port()).detach(), guards=UNREACHED),
        works("done", int),
        works("refused", refuses),
        works("wrong", raises),
    ]
"""


def test_pieces_of_attacks_tell_what_happened(place: pathlib.Path) -> None:
    (place / "attacks" / "pieces.py").write_text(PIECES)
    (line,) = run(place, "pieces", "20")
    assert [tuple(item.values()) for item in line["tries"]] == [
        ("child", "held", "0"),
        ("an API", "breached", "HTTP/1.0 200 OK"),
        ("with TLS", "held", "HTTP/1.0 400 Bad Request"),
        ("closed", "held", "an empty answer"),
        ("refused", "held", "EACCES"),
        ("nobody", "held", "ECONNREFUSED"),
        ("done", "breached", "done"),
        ("refused", "held", "[Errno 13] no"),
        ("wrong", "held", "in a child"),
    ]
