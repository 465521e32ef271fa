"""The attacks of the collection: what they name is there, and what can run outside a container does."""

from __future__ import annotations

import ast
import importlib
import json
import pathlib
import re
import subprocess
import sys
import types
import typing

import pytest
import yaml

from ansible_collections.bulkhead.hardening.plugins.module_utils.proof_image import MODULES
from ansible_collections.bulkhead.hardening.plugins.plugin_utils import (
    attacks,
    audit_checks,
    capabilities,
    falco_rules,
    seccomp_engines,
    seccomp_profile,
)
from tests.unit.checkout import ROOT

CATALOGUE = attacks.catalogue()

#: Attacks of which nothing depends on the container, and what they may say where the tests run.
ANYWHERE = {
    "capabilities_mask": {"held", "breached"},
    "kernel_host_processes": {"held", "breached"},
    "pids_explicit_limit": {"breached"},
    "seccomp_io_uring": {"held", "breached", "not_applicable"},
    "seccomp_socket_families": {"held", "breached", "not_applicable"},
    "seccomp_sweep": {"held", "breached", "not_applicable"},
    "ulimits_open_files": {"held", "breached"},
    "userns_identity": {"held", "breached"},
}


def tree(name: str) -> ast.Module:
    """Return the syntax of an attack."""
    return ast.parse(CATALOGUE[name].source)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Lay programs and attacks out as in the image."""
    folder = tmp_path_factory.mktemp("image")
    for name, text in attacks.programs(CATALOGUE.values()).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def loaded(place: pathlib.Path) -> dict[str, types.ModuleType]:
    """Import every attack, and ``proof``, as the container does."""
    sys.path[:0] = [str(place), str(place / "attacks")]
    try:
        return {name: importlib.import_module(name) for name in [*CATALOGUE, "proof"]}
    finally:
        del sys.path[:2]


# -- what they name ------------------------------------------------------------------------------
def test_attacks_name_checks_of_the_audit() -> None:
    known = {check.id for check in audit_checks.builtin()}
    named = {(item.id, name) for item in CATALOGUE.values() for name in item.checks}
    assert [pair for pair in sorted(named) if pair[1] not in known] == []


def test_attacks_name_variables_of_roles() -> None:
    known: set[str] = set()
    for path in ROOT.glob("roles/*/defaults/main.yml"):
        known.update(yaml.safe_load(path.read_text()) or {})
    named = {(item.id, name) for item in CATALOGUE.values() for name in item.variables}
    assert [pair for pair in sorted(named) if pair[1] not in known] == []


def test_every_attack_is_told_of_on_a_page_of_mechanisms() -> None:
    pages = "".join(path.read_text() for path in (ROOT / "docs" / "mechanisms").glob("*.md"))
    assert [name for name in CATALOGUE if f"`{name}`" not in pages] == []


def test_attacks_name_a_rule_of_falco_or_say_why_none() -> None:
    rules = falco_rules.names()
    assert {item.falco for item in CATALOGUE.values() if item.falco} - rules == set()
    for item in CATALOGUE.values():
        assert (item.falco is None) == (item.unnoticed is not None or item.is_work), item.id
        assert not (item.is_work and item.unnoticed), item.id


def test_each_rule_of_ours_is_named_by_an_attack() -> None:
    ours = {item["rule"] for item in falco_rules.known()["ours"]}
    assert ours - {item.falco for item in CATALOGUE.values()} == set()


# -- what they need ------------------------------------------------------------------------------
def imports(source: str) -> set[str]:
    """Return the names of all modules that a program imports."""
    nodes = list(ast.walk(ast.parse(source)))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return found | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("name", ["proof", "run"])
def test_the_program_imports_only_what_the_image_has(name: str) -> None:
    source = (ROOT / "roles" / "docker_proof" / "files" / "program" / f"{name}.py").read_text()
    assert imports(source) <= {*MODULES, "proof"}


@pytest.mark.parametrize("name", CATALOGUE)
def test_an_attack_imports_only_what_the_image_has(
    name: str, loaded: dict[str, types.ModuleType]
) -> None:
    assert imports(CATALOGUE[name].source) <= {*MODULES, "proof"}
    assert callable(loaded[name].attack)


def test_system_calls_that_attacks_name_have_numbers(loaded: dict[str, types.ModuleType]) -> None:
    named = {
        found
        for item in CATALOGUE.values()
        for found in re.findall(r'syscall\("(\w+)"', item.source)
    }
    assert "mount" in named
    assert named - set(loaded["proof"].NUMBERS) == set()


@pytest.fixture(scope="module")
def swept(loaded: dict[str, types.ModuleType]) -> list[str]:
    """Return the calls of the sweep."""
    return [name for name, _, _ in loaded["seccomp_sweep"].CALLS]


@pytest.mark.parametrize("series", seccomp_engines.all_series())
def test_the_sweep_makes_calls_that_every_engine_blocks(series: str, swept: list[str]) -> None:
    caps = capabilities.decode(capabilities.DEFAULT)
    found = seccomp_profile.resolve(seccomp_engines.base(series), caps, "x86_64")
    assert [name for name in swept if found.get(name) == "allowed"] == []


def test_the_sweep_makes_each_call_once_and_has_numbers(
    swept: list[str], loaded: dict[str, types.ModuleType]
) -> None:
    assert swept == sorted(set(swept))
    assert set(swept) <= set(loaded["proof"].NUMBERS)
    assert len(swept) > 50


# -- what runs here ------------------------------------------------------------------------------
def answers(place: pathlib.Path, *names: str) -> dict[str, typing.Any]:
    """Run attacks as they run in a container, and return their lines by id."""
    words = [word for name in names for word in (name, str(CATALOGUE[name].seconds))]
    command = [sys.executable, "-I", "-S", "-B", str(place / "run.py"), "attack", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return {line["id"]: line for line in map(json.loads, done.stdout.splitlines())}


def test_attacks_that_need_no_container_leave_no_doubt(place: pathlib.Path) -> None:
    lines = answers(place, *ANYWHERE)
    assert set(lines) == set(ANYWHERE)
    for name, line in lines.items():
        assert "error" not in line, line
        assert line["tries"]
        assert {item["outcome"] for item in line["tries"]} <= ANYWHERE[name], line


def test_the_sweep_tries_every_call(place: pathlib.Path, swept: list[str]) -> None:
    (line,) = answers(place, "seccomp_sweep").values()
    assert [item["what"] for item in line["tries"]] == swept
