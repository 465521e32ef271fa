"""A host that answers with templates, terminal escapes or 50 MiB of text: inert on the controller.

The roles, planners and action plugins are the real ones; only the two modules are replaced by ones
that say what a hostile host would say. `make test-full` runs this on each supported ansible-core.
"""

from __future__ import annotations

import copy
import json
import os
import pathlib
import subprocess
import sys
import typing

import pytest

from tests.unit import observations as obs

ROOT = pathlib.Path(__file__).parents[2]


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


@pytest.fixture
def play(tmp_path: pathlib.Path) -> typing.Callable[..., subprocess.CompletedProcess[str]]:
    """Return a runner of the role against a host that gives a chosen answer."""
    collection = tmp_path / "collections" / "ansible_collections" / "bulkhead" / "hardening"
    (collection / "plugins" / "modules").mkdir(parents=True)
    for name in ("roles", "meta", "galaxy.yml"):
        (collection / name).symlink_to(ROOT / name)
    for name in ("action", "filter", "plugin_utils", "module_utils"):
        (collection / "plugins" / name).symlink_to(ROOT / "plugins" / name)
    (tmp_path / "play.yml").write_text(PLAY)

    def run(look: typing.Any, *arguments: str) -> subprocess.CompletedProcess[str]:
        for name in ("docker_host_info", "docker_host_apply"):
            answer = {"changed": name.endswith("apply"), "observation": look}
            if name.endswith("apply"):
                answer.update(
                    transaction={
                        "id": "x", "outcome": "committed", "steps": [], "reason": None,
                        "failed_step": None, "daemon_restarts": 1, "daemon_reloads": 0,
                    },
                    running_containers=[],
                )  # fmt: skip
            data = tmp_path / f"{name}.json"
            data.write_text(json.dumps(answer))
            (collection / "plugins" / "modules" / f"{name}.py").write_text(
                "#!/usr/bin/python\n# WANT_JSON\nimport sys\n"
                f"sys.stdout.write(open({str(data)!r}).read())\n"
            )
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
    look["containers"][0]["config"]["mounts"] = [{"source": template}]
    done = play(look, "-e", "docker_daemon_profile=strict", "-vvv")
    assert "docker_harden : Harden | act" in done.stdout
    assert not bait.exists(), done.stdout[-2000:]
    assert "\x1b" not in done.stdout
    assert "lookup(" in done.stdout


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
