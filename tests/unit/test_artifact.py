# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The collection as users get it: built, looked through, installed and used."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

import pytest

from tests.unit.checkout import ROOT, names, project_files, run

#: All that may stand at the artifact's top. The first two are ansible-galaxy's own.
TOP = {
    "FILES.json",
    "MANIFEST.json",
    "CHANGELOG.rst",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "changelogs",
    "docs",
    "filter_plugins",
    "inventories",
    "meta",
    "playbooks",
    "plugins",
    "roles",
}


def ansible(cwd: Path, *command: str) -> str:
    """Run a program of Ansible with ``cwd`` as its only collection path; return its output."""
    (cwd / "ansible.cfg").touch()
    settings = {
        "ANSIBLE_CONFIG": str(cwd / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(cwd),
        "ANSIBLE_HOME": str(cwd / "home"),
    }
    return run(cwd, list(command), settings).stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the collection into a directory of its own and return that."""
    place = tmp_path_factory.mktemp("artifact")
    ansible(place, "ansible-galaxy", "collection", "build", str(ROOT), "--output-path", str(place))
    return place


@pytest.fixture(scope="module")
def artifact(place: Path) -> Path:
    """Return the one file that the build made."""
    (built,) = place.glob("bulkhead-hardening-*.tar.gz")
    return built


@pytest.fixture(scope="module")
def members(artifact: Path) -> dict[str, tarfile.TarInfo]:
    """Return what the artifact holds."""
    with tarfile.open(artifact) as tar:
        return {member.name.rstrip("/"): member for member in tar.getmembers()}


def test_it_holds_what_users_need(members: dict[str, tarfile.TarInfo]) -> None:
    wanted = {"LICENSE", "README.md", "meta/runtime.yml", "changelogs/changelog.yaml"}
    wanted |= {f"plugins/modules/{name}.py" for name in names("plugins/modules/*.py")}
    wanted |= {f"plugins/module_utils/{name}.py" for name in names("plugins/module_utils/*.py")}
    wanted |= {f"playbooks/{name}.yml" for name in names("playbooks/*.yml")}
    wanted |= {f"roles/{name}/meta/argument_specs.yml" for name in names("roles/*/")}
    wanted |= {f"filter_plugins/{name}.py" for name in names("filter_plugins/*.py")}
    wanted |= {f"docs/schemas/{name}.json" for name in names("docs/schemas/*.json")}
    assert wanted - set(members) == set()


def test_it_holds_nothing_of_the_workshop(members: dict[str, tarfile.TarInfo]) -> None:
    assert {name.partition("/")[0] for name in members} <= TOP
    workshop = ("playbooks/collections", "inventories/lab", "changelogs/fragments")
    assert [name for name in members if name.startswith(workshop)] == []


def test_it_holds_no_file_that_is_not_the_projects(members: dict[str, tarfile.TarInfo]) -> None:
    known = {str(path.relative_to(ROOT)) for path in project_files()}
    files = {name for name, member in members.items() if member.isfile()}
    assert files - known == {"FILES.json", "MANIFEST.json"}


def test_its_filters_are_a_link_to_the_files_it_holds(members: dict[str, tarfile.TarInfo]) -> None:
    assert members["plugins/filter"].issym()
    assert members["plugins/filter"].linkname == "../filter_plugins"
    assert [name for name, member in members.items() if member.issym()] == ["plugins/filter"]


def test_what_it_installs_works(place: Path, artifact: Path) -> None:
    ansible(place, "ansible-galaxy", "collection", "install", "--offline", str(artifact))
    assert (place / "ansible_collections" / "bulkhead" / "hardening" / "MANIFEST.json").exists()
    listed = ansible(place, "ansible-doc", "--list", "--type", "filter", "bulkhead.hardening")
    assert sorted(line.split()[0] for line in listed.splitlines()) == [
        f"bulkhead.hardening.{name}" for name in names("filter_plugins/*.py")
    ]
    (place / "hosts").write_text(
        f"localhost ansible_connection=local ansible_python_interpreter={sys.executable}\n"
    )
    playbook = ["ansible-playbook", "-i", "hosts", "--syntax-check", "bulkhead.hardening.harden"]
    assert "hardening/playbooks/harden.yml" in ansible(place, *playbook)
