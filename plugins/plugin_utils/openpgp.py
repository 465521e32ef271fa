# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The fingerprints of public keys in an armored file, to compare with a pinned one.

Neither controllers nor hosts need GnuPG for it. Source: RFC 9580, 4.2 (packets), 5.5.4 (fingerprints) and
6.2 (armor).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

_ARMOR = re.compile(
    r"-----BEGIN PGP PUBLIC KEY BLOCK-----\s*?\n(?:[^\n]*:[^\n]*\n)*\s*?\n(.*?)\n(?:=[^\n]*\n)?"
    r"-----END PGP PUBLIC KEY BLOCK-----",
    re.DOTALL,
)
_PUBLIC_KEY = 6


def fingerprints(text: str) -> list[str]:
    """Return the fingerprints of the primary keys of an armored text, in upper-case hexadecimal.

    :raises ValueError: it is no such text, or a key of a version that is not known.
    """
    blocks = _ARMOR.findall(text.replace("\r\n", "\n"))
    if not blocks:
        raise ValueError("it is no armored public key")
    found = []
    for block in blocks:
        try:
            data = base64.b64decode("".join(block.split()), validate=True)
        except binascii.Error as exc:
            raise ValueError(f"its armor is damaged: {exc}") from exc
        found += [_fingerprint(body) for tag, body in _packets(data) if tag == _PUBLIC_KEY]
    return found


def _fingerprint(body: bytes) -> str:
    if body[:1] == b"\x04":
        whole = b"\x99" + len(body).to_bytes(2, "big") + body
        # The format's own digest, not a choice.
        return hashlib.sha1(whole, usedforsecurity=False).hexdigest().upper()
    if body[:1] == b"\x06":
        return hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    raise ValueError("it holds a key of a version that is not known")


def _packets(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at < len(data):
        tag, length, at = _header(data, at)
        if at + length > len(data):
            raise ValueError("it ends too early")
        found.append((tag, data[at : at + length]))
        at += length
    return found


def _header(data: bytes, at: int) -> tuple[int, int, int]:
    """Return tag and length of a packet, and where its body begins."""
    first = data[at]
    if not first & 0x80:
        raise ValueError("it holds no packets")
    if not first & 0x40:  # the old format: two bits say how long the length is
        width = 1 << (first & 3)
        if width == 8:
            raise ValueError("a packet without a length is none of a key")
        return (
            first >> 2 & 0xF,
            int.from_bytes(data[at + 1 : at + 1 + width], "big"),
            at + 1 + width,
        )
    head = data[at + 1 : at + 2] or b"\xff"
    if head[0] < 192:
        return first & 0x3F, head[0], at + 2
    if head[0] < 224:
        second = int.from_bytes(data[at + 2 : at + 3], "big")
        return first & 0x3F, (head[0] - 192 << 8) + second + 192, at + 3
    if head[0] == 255:
        return first & 0x3F, int.from_bytes(data[at + 2 : at + 6], "big"), at + 6
    raise ValueError("a packet in parts is none of a key")
