# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Names of variables that are nearly a role's: Ansible itself takes any name, and says nothing."""

from __future__ import annotations

import difflib
import typing

#: How alike two names are to be one misspelt: that of a word with one letter of five wrong. Others may be
#: somebody's own, since roles of other authors begin their variables with the same words.
_ALIKE = 0.8


def misspelt(
    names: typing.Iterable[str], known: typing.Iterable[str], roles: typing.Iterable[str]
) -> dict[str, str]:
    """Return which names are nearly one of a role's, and which one that is.

    :param names: of all variables that there are for a host.
    :param known: of the variables of all these roles.
    :param roles: with whose names their variables begin.
    """
    known = frozenset(known)
    found = {}
    for role in roles:
        prefix = f"{role}_"
        rests = [name[len(prefix) :] for name in known if name.startswith(prefix)]
        for name in names:
            if not name.startswith(prefix) or name in known:
                continue
            # What all of them begin with would make any two alike.
            near = difflib.get_close_matches(name[len(prefix) :], sorted(rests), 1, _ALIKE)
            if near:
                found[name] = prefix + near[0]
    return found
