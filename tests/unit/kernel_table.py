"""The table of parameters in the README of docker_kernel, made from what the planner knows."""

from __future__ import annotations

import typing

from ansible_collections.bulkhead.hardening.plugins.plugin_utils import kernel_plan

Json = dict[str, typing.Any]


def rows() -> list[str]:
    """Return the lines of the table."""
    head = [
        "| parameter | values | compatible | strict | what breaks |",
        "| --- | --- | --- | --- | --- |",
    ]
    return head + [
        _row(name, spec) for name, spec in sorted(kernel_plan.facts()["sysctls"].items())
    ]


def _row(name: str, spec: Json) -> str:
    one_way = spec.get("one_way", [])
    values = ", ".join(value + "*" * (value in one_way) for value in spec["values"])
    chosen = " | ".join(spec[profile] or "-" for profile in ("compatible", "strict"))
    return f"| `{name}` | {values} | {chosen} | {spec['breaks']} |"
