# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Switches and whole numbers as users give them: ``-e NAME=VALUE`` gives texts, an INI file also 0 and 1.

A role's argument spec takes them for what they mean, and leaves them as they are.
"""

from __future__ import annotations

from ansible.module_utils.parsing import convert_bool

from ansible_collections.bulkhead.hardening.plugins.plugin_utils.plan import PolicyError


def as_boolean(value: object) -> bool | None:
    """Return what a switch or one of Ansible's words and numbers for it says; None for anything else."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, (str, int)):
        return None
    word = str(value).strip().lower()
    if word in convert_bool.BOOLEANS_TRUE:
        return True
    return False if word in convert_bool.BOOLEANS_FALSE else None


def as_integer(value: object) -> int | None:
    """Return a whole number, also from its decimal digits; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def boolean(name: str, value: object, fix: str = "give true or false") -> bool:
    """Return a switch.

    :param name: of the variable.
    :raises PolicyError: it is none.
    """
    found = as_boolean(value)
    if found is None:
        raise PolicyError(name, value, fix)
    return found


def integer(name: str, value: object, low: int, high: int) -> int:
    """Return a whole number of a range, both ends included.

    :param name: of the variable.
    :raises PolicyError: it is none.
    """
    number = as_integer(value)
    if number is None or not low <= number <= high:
        raise PolicyError(name, value, f"give a whole number from {low} to {high}")
    return number
