"""A host that answers with templates, terminal escapes or 50 MiB of text: inert on the controller.

The roles, planners and action plugins are the real ones; only the two modules are replaced by ones
that say what a hostile host would say. `make test-full` runs this on each supported ansible-core.
"""

from __future__ import annotations

import copy
import os
import pathlib
import subprocess
import sys
import typing

import pytest

from tests.unit import answers, observations as obs

PLAY = """
- hosts: all
  gather_facts: false
  roles:
    - role: bulkhead.hardening.docker_harden
  tasks:
    - name: Use what the host said as a user would
      ansible.builtin.debug:
        msg: "{{ docker_harden_result.before.settings | map(attribute='affected') | flatten }}"
"""

RECOMMEND = """
- hosts: all
  gather_facts: false
  roles:
    - role: bulkhead.hardening.docker_recommend
      docker_recommend_report_dir: reports
      docker_recommend_memory_factor: 3
      docker_recommend_pids_factor: 50
      docker_recommend_timeout: 5
"""


@pytest.fixture
def play(tmp_path: pathlib.Path) -> typing.Callable[..., subprocess.CompletedProcess[str]]:
    """Return a runner of the role against a host that gives a chosen answer."""

    def run(
        look: typing.Any, *arguments: str, text: str = PLAY
    ) -> subprocess.CompletedProcess[str]:
        (tmp_path / "play.yml").write_text(text)
        answers.collection(tmp_path / "collections", look)
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "collections"),
            "ANSIBLE_CONFIG": str(tmp_path / "none.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "HOME": str(tmp_path),
        }
        command = [
            str(pathlib.Path(sys.executable).with_name("ansible-playbook")),
            "-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}",
            *arguments, str(tmp_path / "play.yml"),
        ]  # fmt: skip
        return subprocess.run(
            command,
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


def test_names_that_are_templates_or_escapes_are_inert(
    play: typing.Callable[..., subprocess.CompletedProcess[str]], tmp_path: pathlib.Path
) -> None:
    bait = tmp_path / "templated"
    template = "{{ lookup('ansible.builtin.pipe', 'touch %s') }}" % bait
    look = obs.stock(
        containers=[obs.container(template), obs.container("\x1b]0;owned\x07\x1b[2J")],
        volumes=[{"name": template}],
    )
    look["containers"][0]["labels"] = {"org.opencontainers.image.title": template}
    look["audit"]["objects"][0].update(what=template, path=template, resolved=f"/{template}")
    look["containers"][0]["config"]["mounts"] = [{"source": template}]
    done = play(look, "-e", "docker_daemon_profile=strict", "-vvv")
    assert "docker_harden : Harden | act" in done.stdout
    assert not bait.exists(), done.stdout[-2000:]
    assert "\x1b" not in done.stdout
    assert "lookup(" in done.stdout


def test_recommendations_hold_names_as_names(
    play: typing.Callable[..., subprocess.CompletedProcess[str]], tmp_path: pathlib.Path
) -> None:
    bait = tmp_path / "templated"
    template = "{{ lookup('ansible.builtin.pipe', 'touch %s') }}" % bait
    container = obs.container(template, user="", memory=0, cap_add=[])
    container["kernel"].update(
        cap_bnd="00000000a80425fb", cap_eff="00000000a80425fb", host_uid=0, memory_current=2**26
    )
    container["processes"] = [
        {"comm": template, "host_uid": uid, "cap_eff": "00000000a80425fb"} for uid in (0, 33)
    ]
    container["layer_writes"] = {"count": 1, "directories": [template]}
    done = play({"schema": "x", "containers": [container], "lsm": {}}, "-v", text=RECOMMEND)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert not bait.exists()
    folder = tmp_path / "reports" / "localhost"
    files = sorted(folder.iterdir())
    assert [file.name.rpartition("%29%20%7D%7D")[2] for file in files] == [
        ".compose.yml",
        ".run.txt",
    ]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert template in files[0].read_text()
    assert "mem_limit: 192m" in files[0].read_text()
    assert "--pids-limit 150" in files[1].read_text()


def test_an_enormous_answer_is_refused_by_size(
    play: typing.Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    look = copy.deepcopy(obs.stock())
    look["junk"] = "x" * (50 * 1024 * 1024)
    done = play(look)
    assert done.returncode != 0
    assert "more than the" in done.stdout
    assert len(done.stdout) < 100_000


def test_an_answer_of_another_shape_is_refused_in_words(
    play: typing.Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = play({"schema": "bulkhead.observation/1", "engine": [], "containers": "{{ 1 }}"})
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    assert "look" in done.stdout
