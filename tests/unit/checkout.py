# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The checkout as the tests about it see it: its files, and Ansible run on it in a subprocess."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COLLECTIONS = ROOT / "playbooks" / "collections"


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


def run(
    cwd: Path, command: list[str], settings: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a program of Ansible with these settings in place of the user's; it must succeed.

    :param settings: environment variables.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    done = subprocess.run(
        command,
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
        env={**own, **settings},
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done
