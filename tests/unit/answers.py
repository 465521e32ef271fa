# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""A host that gives chosen answers: the modules of both doors replaced by ones that recite them.

Roles, planners and action plugins are the real ones. Whatever machine the tests run on is neither
read nor changed.
"""

from __future__ import annotations

import json
import typing
from pathlib import Path

from tests.unit.checkout import ROOT

DOORS = ("docker_host_info", "docker_host_apply")


def collection(place: Path, look: typing.Any, after: typing.Any = None) -> None:
    """Lay out, or change, a collection of links to this checkout's, apart from the doors' modules.

    :param place: a path for collections; for the rest see :func:`put`.
    """
    ours = place / "ansible_collections/bulkhead/hardening"
    if not ours.exists():
        (ours / "plugins/modules").mkdir(parents=True)
        for name in ("roles", "meta", "galaxy.yml"):
            (ours / name).symlink_to(ROOT / name)
        for path in (ROOT / "plugins").iterdir():
            if path.is_dir() and path.name != "modules":
                (ours / "plugins" / path.name).symlink_to(path)
        for path in (ROOT / "plugins/modules").glob("*.py"):
            if path.stem not in DOORS:
                (ours / "plugins/modules" / path.name).symlink_to(path)
    put(ours / "plugins/modules", look, after)


def put(modules: Path, look: typing.Any, after: typing.Any = None) -> None:
    """Replace the modules of both doors.

    :param modules: the folder of a collection's modules; the answers are kept beside it.
    :param look: the observation to answer with; ``after`` is that of the door to act, when it differs.
    """
    # Not among the modules: Ansible takes a file of any suffix there for one.
    kept = modules.parent / "answers"
    kept.mkdir(exist_ok=True)
    acted = {
        "changed": True,
        "observation": look if after is None else after,
        "transaction": {
            "id": "x", "outcome": "committed", "steps": [], "reason": None,
            "failed_step": None, "daemon_restarts": 1, "daemon_reloads": 0, "daemon_effect": "restart",
            "changes": [], "stays": [], "affected": [],
            "undid": next((one["id"] for one in look.get("bulkhead", {}).get("transactions", [])), None),
        },
        "running_containers": [],
    }  # fmt: skip
    for name, answer in zip(DOORS, ({"changed": False, "observation": look}, acted)):
        data = kept / f"{name}.json"
        data.write_text(json.dumps(answer))
        (modules / f"{name}.py").write_text(
            "#!/usr/bin/python\n# WANT_JSON\nimport sys\n"
            f"sys.stdout.write(open({str(data)!r}).read())\n"
        )
