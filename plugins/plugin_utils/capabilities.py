# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Capability masks as /proc/<pid>/status shows them, and the names of capabilities.

Source: include/uapi/linux/capability.h of Linux 6.12; the default set is moby oci/caps/defaults.go,
the same from 19.03 to 29.7.
"""

from __future__ import annotations

import re
import typing

#: Names by bit, without ``CAP_``.
NAMES: typing.Final = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"),
    *("SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW"),
    *("IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT"),
    *("SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD"),
    *("LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG"),
    *("WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"),
)

#: What a container gets that asks for nothing.
DEFAULT: typing.Final = "00000000a80425fb"

_MASK = re.compile(r"(?:0x)?([0-9a-fA-F]{1,16})\Z")


def decode(mask: str) -> list[str]:
    """Return the names in a mask, lowest bit first; a bit without a name is ``CAP_<number>``.

    :param mask: up to 16 hexadecimal digits, with or without ``0x``.
    :raises ValueError: it is no such text.
    """
    match = _MASK.match(mask) if isinstance(mask, str) else None
    if not match:
        raise ValueError(f"{mask!r} is no mask of capabilities such as {DEFAULT}")
    bits = int(match.group(1), 16)
    return [
        "CAP_" + (NAMES[bit] if bit < len(NAMES) else str(bit))
        for bit in range(bits.bit_length())
        if bits >> bit & 1
    ]


def encode(names: typing.Iterable[str]) -> str:
    """Return the mask of some names, 16 hexadecimal digits; ``ALL`` is every named capability.

    :param names: with or without ``CAP_``, in any case; a number stands for its bit.
    :raises ValueError: there is no such capability.
    """
    bits = 0
    for name in names:
        plain = str(name).upper().removeprefix("CAP_")
        if plain == "ALL":
            bits |= (1 << len(NAMES)) - 1
        elif plain in NAMES:
            bits |= 1 << NAMES.index(plain)
        elif plain.isdigit() and int(plain) < 64:
            bits |= 1 << int(plain)
        else:
            raise ValueError(f"there is no capability {name!r}")
    return f"{bits:016x}"


def compare(mask: str, reference: str = DEFAULT) -> dict[str, list[str]]:
    """Return what a mask has beyond another, what it lacks of it, and what both have.

    :raises ValueError: one of them is no mask.
    """
    mine, theirs = decode(mask), decode(reference)
    return {
        "beyond": [name for name in mine if name not in theirs],
        "missing": [name for name in theirs if name not in mine],
        "common": [name for name in mine if name in theirs],
    }


def options(needed: str | typing.Iterable[str]) -> dict[str, list[str]]:
    """Return the least ``cap_drop`` and ``cap_add`` that leave a container what it needs.

    Everything is dropped first: what a later engine gives by default is then not given either.

    :param needed: a mask, or names.
    :raises ValueError: it is no mask, or there is no such capability.
    """
    names = decode(needed if isinstance(needed, str) else encode(needed))
    return {"cap_drop": ["ALL"], "cap_add": [name.removeprefix("CAP_") for name in names]}
