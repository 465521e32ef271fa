"""
title: Root of a container has no capability beyond the default
topic: capabilities
why: Each further capability is a part of the host's root; all of them together are the host.
stopped_by: the default set of capabilities, which is 00000000a80425fb
checks: ["5.4", "5.5", "BH-13"]
unnoticed: It looks at what its own process has, as every program may.
weakened: {privileged: true, userns_mode: host}
"""

from proof import BREACHED, HELD, Try, status

#: What a container gets when nobody asks for more or less (moby oci/caps/defaults.go).
DEFAULT = 0xA80425FB


def beyond(what, mask, allowed):
    """Tell whether a mask holds a capability that it should not."""
    more = bin(mask & ~allowed).count("1")
    return Try(what, BREACHED if more else HELD, "%016x: %d beyond %016x" % (mask, more, allowed))


def attack():
    """Compare what the kernel says of this process with the default.

    Nothing is inheritable, or else files with capabilities give them to any user (CVE-2022-24769).
    """
    masks = {name: int(status()[name], 16) for name in ("CapEff", "CapBnd", "CapInh")}
    return [
        beyond("use more than the default (CapEff)", masks["CapEff"], DEFAULT),
        beyond("ever gain more than the default (CapBnd)", masks["CapBnd"], DEFAULT),
        beyond("inherit capabilities (CapInh)", masks["CapInh"], 0),
    ]
