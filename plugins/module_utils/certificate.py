# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""X.509 certificates, as far as somebody must know when they end and whom they are for.

The standard library shows that of a certificate alone that it could verify, not of one that it just
holds. Sources: RFC 5280 for the fields, X.690 for their encoding (DER), RFC 7468 for the text around.
"""

from __future__ import annotations

import base64
import calendar
import ipaddress
import re
import time
import typing

_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----([^-]+)-----END CERTIFICATE-----")

#: How many certificates of one text are read; bundles of a public authority have some hundred.
_MAX_CERTIFICATES = 1000
#: How many names of one certificate are kept.
_MAX_NAMES = 100

# Tags of elements.
_SEQUENCE, _OID, _OCTETS, _UTC_TIME, _TIME = 0x30, 0x06, 0x04, 0x17, 0x18
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_DNS_NAME, _IP_ADDRESS = 0x82, 0x87

# Identifiers, without their tag and length.
_ALTERNATIVE_NAMES = bytes.fromhex("551d11")  # 2.5.29.17
_EXTENDED_USAGE = bytes.fromhex("551d25")  # 2.5.29.37
_FOR_ANYTHING = bytes.fromhex("551d2500")
_FOR_SERVERS = bytes.fromhex("2b06010505070301")  # 1.3.6.1.5.5.7.3.1


class Certificate(typing.NamedTuple):
    """What a certificate says; moments are seconds since the epoch.

    ``names``: host names and addresses that it is for. ``serves``: a server may use it.
    """

    not_before: float
    not_after: float
    names: list[str]
    serves: bool


class _Element(typing.NamedTuple):
    tag: int
    content: bytes


def texts(pem: str) -> list[str]:
    """Return the certificates of a text, each with its marks, without what stands around them.

    :raises ValueError: there is none, or more than a thousand.
    """
    found = [match.group(0) for match in _BLOCK.finditer(pem)]
    if not found:
        raise ValueError("no certificate")
    if len(found) > _MAX_CERTIFICATES:
        raise ValueError("more than %d certificates" % _MAX_CERTIFICATES)
    return found


def read(pem: str) -> list[Certificate]:
    """Return the certificates of a text, in their order.

    :raises ValueError: there is none, or one of them cannot be read.
    """
    return [_certificate(text) for text in texts(pem)]


def _certificate(text: str) -> Certificate:
    match = _BLOCK.match(text)
    assert match is not None
    outer = _elements(base64.b64decode(match.group(1)))
    body = _elements(_first(_elements(_first(outer, _SEQUENCE)), _SEQUENCE))
    # [version] serialNumber signature issuer validity subject subjectPublicKeyInfo ... [extensions]
    fields = body[1:] if body[0].tag == _VERSION else body
    if len(fields) < 6 or fields[3].tag != _SEQUENCE:
        raise ValueError("cut off")
    moments = _elements(fields[3].content)
    if len(moments) != 2:
        raise ValueError("no time of validity")
    extensions = _extensions(fields[6:])
    return Certificate(
        _moment(moments[0]),
        _moment(moments[1]),
        _names(extensions.get(_ALTERNATIVE_NAMES)),
        _serves(extensions.get(_EXTENDED_USAGE)),
    )


def _elements(data: bytes) -> list[_Element]:
    """Return the elements that stand one after the other.

    :raises ValueError: one is longer than what is there, or none is there.
    """
    found = []
    position = 0
    while position < len(data):
        header = data[position : position + 2]
        if len(header) < 2:
            raise ValueError("cut off")
        tag, length = header
        position += 2
        if length & 0x80:
            count = length & 0x7F
            # Zero is a length that is told at the end, which DER has not.
            if not 1 <= count <= 4 or position + count > len(data):
                raise ValueError("cut off")
            length = int.from_bytes(data[position : position + count], "big")
            position += count
        if position + length > len(data):
            raise ValueError("cut off")
        found.append(_Element(tag, data[position : position + length]))
        position += length
    if not found:
        raise ValueError("cut off")
    return found


def _first(elements: list[_Element], tag: int) -> bytes:
    if elements[0].tag != tag:
        raise ValueError("no certificate")
    return elements[0].content


def _moment(element: _Element) -> float:
    value = element.content.decode("ascii", "replace")
    if element.tag == _UTC_TIME:  # two digits for the year, those from 50 on are 19xx
        value = ("19" if value[:2] >= "50" else "20") + value
    elif element.tag != _TIME:
        raise ValueError("no time of validity")
    return float(calendar.timegm(time.strptime(value, "%Y%m%d%H%M%SZ")))


def _extensions(fields: list[_Element]) -> dict[bytes, bytes]:
    """Return the contents of a certificate's extensions by their identifiers."""
    found = {}
    for field in fields:
        if field.tag != _EXTENSIONS:
            continue
        for item in _elements(_first(_elements(field.content), _SEQUENCE)):
            # extnID [critical] extnValue
            parts = _elements(item.content)
            if parts[0].tag == _OID and parts[-1].tag == _OCTETS:
                found[parts[0].content] = parts[-1].content
    return found


def _names(extension: bytes | None) -> list[str]:
    if extension is None:
        return []
    found = []
    for item in _elements(_first(_elements(extension), _SEQUENCE))[:_MAX_NAMES]:
        if item.tag == _DNS_NAME:
            found.append(item.content.decode("ascii", "replace")[:255])
        elif item.tag == _IP_ADDRESS and len(item.content) in (4, 16):
            found.append(str(ipaddress.ip_address(item.content)))
    return found


def _serves(extension: bytes | None) -> bool:
    if extension is None:
        return True
    purposes = _elements(_first(_elements(extension), _SEQUENCE))
    return any(item.content in (_FOR_SERVERS, _FOR_ANYTHING) for item in purposes)
