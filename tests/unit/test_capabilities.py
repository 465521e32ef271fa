"""Masks of capabilities and their names."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given, strategies as st

from ansible_collections.bulkhead.hardening.plugins.filter.capabilities import capabilities
from ansible_collections.bulkhead.hardening.plugins.filter.capabilities_compare import (
    capabilities_compare,
)
from ansible_collections.bulkhead.hardening.plugins.filter.capabilities_options import (
    capabilities_options,
)
from ansible_collections.bulkhead.hardening.plugins.plugin_utils.capabilities import DEFAULT, NAMES


def test_what_a_container_gets_by_default() -> None:
    assert capabilities("00000000a80425fb") == [
        "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
        "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD",
        "CAP_AUDIT_WRITE", "CAP_SETFCAP",
    ]  # fmt: skip
    assert capabilities(capabilities(DEFAULT)) == DEFAULT


def test_a_privileged_container_of_an_older_kernel() -> None:
    found = capabilities("0000001fffffffff")
    assert len(found) == 37
    assert found[-1] == "CAP_BLOCK_SUSPEND"


@pytest.mark.parametrize(("bit", "name"), list(enumerate(NAMES)))
def test_each_capability(bit: int, name: str) -> None:
    assert capabilities(f"{1 << bit:016x}") == [f"CAP_{name}"]
    assert capabilities([name.lower()]) == f"{1 << bit:016x}"


def test_there_are_41() -> None:
    assert len(NAMES) == len(set(NAMES)) == 41
    assert capabilities(["ALL"]) == "000001ffffffffff"


@given(st.integers(0, 2**64 - 1))
def test_back_and_forth(bits: int) -> None:
    """Also bits that have no name yet."""
    assert capabilities(capabilities(f"{bits:x}")) == f"{bits:016x}"


@pytest.mark.parametrize("value", ["", "xyz", "0" * 17, ["NO_SUCH"], 7, None])
def test_what_is_neither_is_refused(value: object) -> None:
    with pytest.raises(AnsibleFilterError, match="capabilit"):
        capabilities(value)  # type: ignore[arg-type]


def test_what_a_mask_has_beyond_another() -> None:
    found = capabilities_compare("00000000a8242401")
    assert found["beyond"] == ["CAP_SYS_ADMIN"]
    assert found["common"][0] == "CAP_CHOWN"
    assert "CAP_KILL" in found["missing"]
    same = capabilities_compare(DEFAULT, DEFAULT)
    assert (same["beyond"], same["missing"], len(same["common"])) == ([], [], 14)


def test_the_missions_clock_needs_one_capability() -> None:
    assert capabilities_options(["CAP_SYS_TIME"]) == {"cap_drop": ["ALL"], "cap_add": ["SYS_TIME"]}
    assert capabilities_options("0000000000000000") == {"cap_drop": ["ALL"], "cap_add": []}


@given(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)))
def test_a_comparison_loses_nothing(mine: set[str], theirs: set[str]) -> None:
    found = capabilities_compare(capabilities(sorted(mine)), capabilities(sorted(theirs)))
    plain = {part: {name[4:] for name in names} for part, names in found.items()}
    assert plain == {"beyond": mine - theirs, "missing": theirs - mine, "common": mine & theirs}
    added = capabilities_options(sorted(mine))["cap_add"]
    assert set(added) == mine


@pytest.mark.parametrize("value", [None, 5, "xyz", ["CAP_ROOT"]])
def test_options_of_what_is_none_are_refused(value: object) -> None:
    with pytest.raises(AnsibleFilterError, match="capabilities_options"):
        capabilities_options(value)


def test_a_comparison_with_what_is_no_mask_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="capabilities_compare"):
        capabilities_compare("xyz")
