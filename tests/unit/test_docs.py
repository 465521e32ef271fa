# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""What the documentation names exists: targets, playbooks, files and what links lead to."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.unit.checkout import ROOT, names, project_files

PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in project_files()
    if path.suffix == ".md" and "fixtures" not in path.parts
)

TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

#: A target after `make`, in a line of a console or in backquotes.
_MAKE = re.compile(r"(?:^\$ |`)(?:[A-Z_]+=\S+ )*make ([a-z-]+)", re.MULTILINE)
_PLAYBOOK = re.compile(r"\bplaybooks/((?:tasks/)?\w+)\.yml")
_BY_NAME = re.compile(r"ansible-playbook bulkhead\.hardening\.(\w+)")
_TEST = re.compile(r"`(tests/[\w/]+\.py)`")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def text_of(page: str) -> str:
    """Return the text of a page."""
    return (ROOT / page).read_text("utf-8")


def test_there_are_pages_that_name_each_kind_of_thing() -> None:
    everything = "".join(text_of(page) for page in PAGES)
    for pattern in (_MAKE, _PLAYBOOK, _BY_NAME, _TEST, _LINK):
        assert pattern.search(everything), pattern.pattern


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_exists(page: str) -> None:
    text = text_of(page)
    assert set(_MAKE.findall(text)) - TARGETS == set()
    played = set(_PLAYBOOK.findall(text)) | set(_BY_NAME.findall(text))
    known = {
        *names("playbooks/*.yml"),
        *(f"tasks/{name}" for name in names("playbooks/tasks/*.yml")),
    }
    assert played - known == set()
    assert [name for name in _TEST.findall(text) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_link_of_a_page_leads_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    links = [link for link in _LINK.findall(text_of(page)) if "://" not in link]
    assert [link for link in links if not (folder / Path(link)).exists()] == []


def test_every_target_is_listed() -> None:
    """What `make help` lists is what the Makefile has; nothing is run."""
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    shown = set(re.findall(r"^  ([a-z-]+) ", listed, re.MULTILINE))
    assert shown == TARGETS
