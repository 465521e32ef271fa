"""What is recommended for the containers of the used host, which nothing changes."""

from __future__ import annotations

import pathlib
import typing

import yaml

testinfra_hosts = ["ansible://used"]


def test_each_running_container_gets_options_that_it_runs_with(
    host: typing.Any,
    docker: typing.Callable[..., str],
    play: typing.Callable[..., str],
    tmp_path: pathlib.Path,
) -> None:
    before = docker("ps --all --quiet --no-trunc")
    play("recommend", docker_recommend_report_dir=str(tmp_path))
    assert docker("ps --all --quiet --no-trunc") == before
    folder = tmp_path / "used"
    names = {path.name.partition(".")[0] for path in folder.iterdir()}
    assert names == {"web", "limited", "roomy", "unlimited"}
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}

    service = yaml.safe_load((folder / "web.compose.yml").read_text())["services"]["web"]
    assert service["cap_add"] == ["NET_BIND_SERVICE"]
    assert "read_only" not in service
    assert "in /tmp" in (folder / "web.run.txt").read_text()

    lines = (folder / "limited.run.txt").read_text().splitlines()
    options = " ".join(line for line in lines if not line.startswith("#"))
    assert "--read-only" in options
    assert "--pids-limit" not in options
    docker(f"run -d --name advised {options} lab:1")
    try:
        pid = docker("inspect --format '{{.State.Pid}}' advised")
        status = host.check_output(f"cat /proc/{pid}/status")
        assert "CapBnd:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        assert host.run("docker exec advised touch /anywhere").rc != 0
    finally:
        docker("rm -f advised")
