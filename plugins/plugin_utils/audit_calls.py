# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Which system calls the kernel takes for accesses to files, when a rule names permissions.

A watch records a call only if it is one of these, so a rule about others keeps nothing from being recorded.
Source: linux kernel/auditsc.c audit_match_perm; the lists are include/asm-generic/audit_read.h,
audit_write.h, audit_dir_write.h and audit_change_attr.h, here with the newer calls of each kind, and the
numbers those of the architectures' tables of calls.
"""

from __future__ import annotations

import typing

Json = dict[str, typing.Any]

#: Name, kinds of access (of ``rwxa``), and the numbers of x86_64, i386, aarch64 and arm.
_TABLE = """
open              rw     2     5     -     5
openat            rw   257   295    56   322
openat2           rw   437   437   437   437
open_by_handle_at rw   304   342   265   371
creat             w     85     8     -     8
rename            w     82    38     -    38
renameat          w    264   302    38   329
renameat2         w    316   353   276   382
mkdir             w     83    39     -    39
mkdirat           w    258   296    34   323
rmdir             w     84    40     -    40
link              w     86     9     -     9
linkat            w    265   303    37   330
unlink            w     87    10     -    10
unlinkat          w    263   301    35   328
symlink           w     88    83     -    83
symlinkat         w    266   304    36   331
mknod             w    133    14     -    14
mknodat           w    259   297    33   324
acct              w    163    51    89    51
swapon            w    167    87   224    87
truncate          w     76    92    45    92
truncate64        w      -   193     -   193
bind              w     49   361   200   282
socketcall        w      -   102     -     -
quotactl          rw   179   131    60   131
readlink          r     89    85     -    85
readlinkat        r    267   305    78   332
listxattr         r    194   232    11   232
llistxattr        r    195   233    12   233
flistxattr        r    196   234    13   234
listxattrat       r    465   465   465   465
getxattr          r    191   229     8   229
lgetxattr         r    192   230     9   230
fgetxattr         r    193   231    10   231
getxattrat        r    464   464   464   464
chmod             a     90    15     -    15
fchmod            a     91    94    52    94
fchmodat          a    268   306    53   333
fchmodat2         a    452   452   452   452
chown             a     92   182     -   182
fchown            a     93    95    55    95
lchown            a     94    16     -    16
fchownat          a    260   298    54   325
chown32           a      -   212     -   212
fchown32          a      -   207     -   207
lchown32          a      -   198     -   198
setxattr          a    188   226     5   226
lsetxattr         a    189   227     6   227
fsetxattr         a    190   228     7   228
setxattrat        a    463   463   463   463
removexattr       a    197   235    14   235
lremovexattr      a    198   236    15   236
fremovexattr      a    199   237    16   237
removexattrat     a    466   466   466   466
execve            x     59    11   221    11
execveat          x    322   358   281   387
"""

_COLUMNS = ("x86_64", "i386", "aarch64", "arm")
#: Whose numbers each text for an architecture may mean; Linux numbers the calls of both Arm and RISC-V alike.
_MEANT = {
    **{name: (name,) for name in _COLUMNS},
    "riscv64": ("aarch64",),
    "b64": ("x86_64", "aarch64"),
    "b32": ("i386", "arm"),
}


def _read() -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """Return the kinds of access by name, and by architecture and number."""
    names, numbers = {}, {}
    for row in _TABLE.split("\n")[1:-1]:
        name, kinds, *columns = row.split()
        names[name] = kinds
        numbers.update(dict.fromkeys(zip(_COLUMNS, columns), kinds))
    return names, numbers


_NAMES, _NUMBERS = _read()


def accesses(calls: typing.Sequence[str], arch: str) -> set[str]:
    """Return the kinds of access (of ``rwxa``) that some system calls may be.

    :param calls: by name as in a file, by number as in the kernel, or ``all``.
    :param arch: whose numbers they are. Of one that is not known here, each may be anything.
    """
    kinds: set[str] = set()
    for call in calls:
        if call == "all" or (call.isdigit() and arch not in _MEANT):
            return set("rwxa")
        kinds.update(_NAMES.get(call, ""))
        for meant in _MEANT.get(arch, ()):
            kinds.update(_NUMBERS.get((meant, call), ""))
    return kinds
