# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The execution environment's definition, as far as it can be tried without building an image."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from tests.unit.checkout import ROOT, run


def test_a_context_holds_the_collection_and_what_it_needs(tmp_path: Path) -> None:
    shutil.copy(ROOT / "execution-environment.yml", tmp_path)
    shutil.copytree(ROOT / "meta", tmp_path / "meta")
    (tmp_path / "build").mkdir()
    built = tmp_path / "build/bulkhead-hardening-0.0.0.tar.gz"
    built.touch()
    options = ("--output-filename", "Containerfile", "--context", "context")
    run(tmp_path, ["ansible-builder", "create", *options], {})
    context = tmp_path / "context/_build"
    assert (context / "collections" / built.name).exists()
    needed = (context / "requirements.txt").read_text()
    assert {"jmespath>=1.0", "jsonschema>=4.0", "tzdata"} <= set(needed.splitlines())
    text = (tmp_path / "context/Containerfile").read_text()
    assert "ansible-galaxy collection install --offline" in text


def test_an_environment_of_somebody_elses_finds_what_the_collection_needs(tmp_path: Path) -> None:
    place = tmp_path / "ansible_collections/bulkhead/hardening"
    shutil.copytree(ROOT / "meta", place / "meta")
    shutil.copy(ROOT / "galaxy.yml", place)
    found = run(tmp_path, ["ansible-builder", "introspect", str(tmp_path)], {}).stdout
    packages = yaml.safe_load(found.partition("---")[2])["python"]
    assert any(package.startswith("jmespath>=1.0") for package in packages)
