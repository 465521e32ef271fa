# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What every role, filter and module of the collection must keep to, found by looking for them.

A role or plugin that arrives later is held to the same without a line here.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import yaml

from tests.unit.checkout import COLLECTIONS, ROOT, names, project_files, run

COLLECTION = "bulkhead.hardening"
STUB = COLLECTIONS / "ansible_collections" / "bulkhead" / "hardening"

#: Oldest Python that modules meet on a managed host.
HOST_PYTHON = (3, 9)

Json = dict[str, typing.Any]


ROLES = names("roles/*/")
FILTER_FILES = names("filter_plugins/*.py")
MODULES = names("plugins/modules/*.py")
HOST_CODE = sorted(
    str(path.relative_to(ROOT))
    for folder in ("modules", "module_utils")
    for path in (ROOT / "plugins" / folder).rglob("*.py")
) + ["roles/docker_trust/files/bulkhead_pull.py"]


def load(path: Path) -> typing.Any:
    """Read a YAML file; None when it does not exist."""
    return yaml.safe_load(path.read_text()) if path.exists() else None


# -- roles ---------------------------------------------------------------------------------------
def options_of(role: str) -> Json:
    """Return the options of a role's entry points, which agree where they share one."""
    specs = load(ROOT / "roles" / role / "meta" / "argument_specs.yml")
    assert specs, f"{role} has no meta/argument_specs.yml"
    options: Json = {}
    for name, entry in specs["argument_specs"].items():
        for option, spec in entry.get("options", {}).items():
            default = options.setdefault(option, spec).get("default")
            assert spec.get("default") == default, f"{name}: {option}"
    return options


@pytest.mark.parametrize("role", ROLES)
def test_a_roles_defaults_are_those_of_its_argument_spec(role: str) -> None:
    specified = {
        name: option.get("default")
        for name, option in options_of(role).items()
        if not option.get("required")
    }
    assert (load(ROOT / "roles" / role / "defaults" / "main.yml") or {}) == specified


@pytest.mark.parametrize("role", ROLES)
def test_a_roles_public_variables_begin_with_its_name(role: str) -> None:
    assert [name for name in options_of(role) if not name.startswith(f"{role}_")] == []


@pytest.mark.parametrize("role", ROLES)
def test_a_roles_other_variables_are_private(role: str) -> None:
    own: Json = {}
    for path in (ROOT / "roles" / role / "vars").glob("*.yml"):
        own.update(load(path) or {})
    assert [name for name in own if not name.startswith(f"__{role}_")] == []


@pytest.mark.parametrize("role", ROLES)
def test_a_roles_options_are_explained(role: str) -> None:
    unexplained = [name for name, option in options_of(role).items() if not option["description"]]
    assert unexplained == []


@pytest.mark.parametrize("role", ROLES)
def test_a_roles_readme_names_every_public_variable(role: str) -> None:
    readme = ROOT / "roles" / role / "README.md"
    assert readme.exists(), f"{role} has no README.md"
    text = readme.read_text()
    assert [name for name in options_of(role) if not re.search(rf"\b{name}\b", text)] == []


# -- documentation as Ansible sees it ------------------------------------------------------------
@pytest.fixture(scope="module")
def ansible_doc() -> subprocess.CompletedProcess[str]:
    """Run ansible-doc over the whole collection; it fails when it cannot render something."""
    return run(
        ROOT,
        ["ansible-doc", "--metadata-dump", COLLECTION],
        {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_DEPRECATION_WARNINGS": "false",
        },
    )


@pytest.fixture(scope="module")
def documentation(ansible_doc: subprocess.CompletedProcess[str]) -> Json:
    """Return what ansible-doc knows: kind of plugin, its full name, its documents."""
    known: Json = json.loads(ansible_doc.stdout)["all"]
    return known


def test_ansible_warns_of_nothing_here(ansible_doc: subprocess.CompletedProcess[str]) -> None:
    # ansible-core 2.21 warns of a collection of its own.
    warnings = ansible_doc.stderr.split("[WARNING]: ")
    ours = re.compile(r"ansible_collections/bulkhead/|\bbulkhead\.hardening\b")
    assert [text for text in warnings if ours.search(text)] == []


def test_ansible_finds_every_role(documentation: Json) -> None:
    assert sorted(documentation["role"]) == [f"{COLLECTION}.{name}" for name in ROLES]


def test_ansible_finds_every_module(documentation: Json) -> None:
    assert sorted(documentation["module"]) == [f"{COLLECTION}.{name}" for name in MODULES]


@pytest.mark.parametrize("name", MODULES)
def test_a_module_documents_options_examples_and_answer(documentation: Json, name: str) -> None:
    documents = documentation["module"][f"{COLLECTION}.{name}"]
    assert documents["doc"]["short_description"]
    assert documents["doc"]["attributes"]["check_mode"]["support"] == "full"
    assert f"{COLLECTION}.{name}" in documents["examples"]
    assert documents["return"]


def test_an_action_plugin_has_a_module_that_documents_it() -> None:
    assert set(names("plugins/action/*.py")) <= set(MODULES)


def filters_of(name: str) -> Json:
    """Import a filter file under its collection's name and return what it registers."""
    module = importlib.import_module(f"ansible_collections.{COLLECTION}.plugins.filter.{name}")
    registered: Json = module.FilterModule().filters()
    return registered


def test_ansible_finds_every_filter(documentation: Json) -> None:
    registered = sorted(name for file in FILTER_FILES for name in filters_of(file))
    assert sorted(documentation["filter"]) == [f"{COLLECTION}.{name}" for name in registered]


@pytest.mark.parametrize("file", FILTER_FILES)
def test_a_filter_has_sidecar_documentation(documentation: Json, file: str) -> None:
    for name in filters_of(file):
        assert (ROOT / "filter_plugins" / f"{name}.yml").exists()
        documents = documentation["filter"][f"{COLLECTION}.{name}"]
        assert documents["doc"]["short_description"]
        assert f"{COLLECTION}.{name}" in documents["examples"]
        assert documents["return"]["_value"]


@pytest.mark.parametrize("file", FILTER_FILES)
def test_a_filter_says_in_code_what_it_takes_and_gives(file: str) -> None:
    for name, function in filters_of(file).items():
        assert function.__doc__, name
        assert "return" in function.__annotations__, name


# -- what runs on a managed host -----------------------------------------------------------------
def imported(tree: ast.Module) -> typing.Iterator[str]:
    """Yield the modules that some source imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", HOST_CODE)
def test_host_code_needs_an_old_python_and_its_standard_library_alone(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text(), path, feature_version=HOST_PYTHON)
    own = (
        "ansible.module_utils.",
        f"ansible_collections.{COLLECTION}.plugins.module_utils",
    )
    foreign = [
        name
        for name in imported(tree)
        if name.partition(".")[0] not in sys.stdlib_module_names and not name.startswith(own)
    ]
    assert foreign == []


# -- the checkout --------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["galaxy.yml", "meta", "plugins", "roles"])
def test_a_link_of_the_stub_leads_to_the_checkout(name: str) -> None:
    link = STUB / name
    assert not os.path.isabs(os.readlink(link))
    assert link.resolve() == ROOT / name


def test_the_stub_holds_nothing_else() -> None:
    assert STUB.is_dir()
    assert not STUB.is_symlink()
    assert sorted(os.listdir(STUB)) == ["galaxy.yml", "meta", "plugins", "roles"]


def test_filter_plugins_are_the_collections_filters() -> None:
    assert os.readlink(ROOT / "plugins" / "filter") == "../filter_plugins"


def version(text: str) -> tuple[int, ...]:
    """Make a version comparable."""
    return tuple(int(part) for part in text.split("."))


def test_the_version_is_that_of_the_changelog() -> None:
    """Fragments wait for the version that galaxy.yml names; without any, it is released."""
    ours = version(load(ROOT / "galaxy.yml")["version"])
    released = [version(name) for name in load(ROOT / "changelogs" / "changelog.yaml")["releases"]]
    if any((ROOT / "changelogs" / "fragments").glob("*.y*ml")):
        assert ours > max(released, default=(0,))
    else:
        assert ours == max(released)


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    places = [re.escape(f"{ROOT}/"), r"/home/(?!ann/)[a-z]\w*/", r"/Users/\w+/", r"/\.pyenv/"]
    pattern = re.compile("|".join(places))
    named = {
        str(path.relative_to(ROOT)): match.group()
        for path in project_files()
        if path != Path(__file__).resolve()
        and (match := pattern.search(path.read_text(errors="replace")))
    }
    assert named == {}
