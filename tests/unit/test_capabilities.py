"""Masks of capabilities and their names."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given, strategies as st

from ansible_collections.bulkhead.hardening.plugins.filter.capabilities import capabilities
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
