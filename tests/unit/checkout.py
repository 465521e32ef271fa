# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The checkout as the tests about it see it: its files, and Ansible run on it in a subprocess."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COLLECTIONS = ROOT / "playbooks" / "collections"
#: Environment variables with which Ansible runs the checkout itself, as its owner configured it.
SETTINGS = {
    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
    "ANSIBLE_NOCOLOR": "1",
}


def names(pattern: str) -> list[str]:
    """Return the names, without suffix, of what matches below the checkout; at least one must."""
    found = sorted(path.stem for path in ROOT.glob(pattern) if path.name != "__init__.py")
    assert found, f"nothing matches {pattern}"
    return found


def project_files() -> list[Path]:
    """Return the files of the checkout that are, or would be, committed; links apart."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def copy_to(place: Path) -> None:
    """Copy the files of the checkout, and the link by which Ansible finds the filters."""
    for path in project_files():
        target = place / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    (place / "plugins/filter").symlink_to("../filter_plugins")


def run(
    cwd: Path, command: list[str], settings: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Do what :func:`attempt` does; the program must succeed."""
    done = attempt(cwd, command, settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def attempt(
    cwd: Path, command: list[str], settings: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a program of Ansible with these settings in place of the user's.

    :param settings: environment variables.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return subprocess.run(
        command,
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
        env={**own, **settings},
        timeout=180,
    )
