# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""The witness's image: one static program, assembled here, in a tar archive.

Nothing is pulled and nothing is compiled on the host. The program has no libc and no options. It
blocks SIGTERM, waits up to 60 s for one, and exits 0 when it came and 1 otherwise. Blocking
matters: the kernel drops a signal for PID 1 of a namespace that is neither handled nor blocked, and
never one that is blocked (kernel/signal.c, sig_ignored). The wait is its only sleep: who sees it
sleeping knows that it is ready. (SigBlk does not tell: rt_sigtimedwait unblocks what it awaits.)
"""

from __future__ import annotations

import io
import struct
import tarfile

#: Name of the program in the image.
PROGRAM = "health"

_LOAD_ADDRESS = 0x400000

# A set of signals (bit 14 stands for signal 15, SIGTERM), then struct timespec {60, 0}.
_DATA = struct.pack("<Qqq", 1 << 14, 60, 0)

# Numbers from arch/x86/entry/syscalls/syscall_64.tbl.
_X86_64 = bytes.fromhex(
    "b80e000000"  # mov    eax, 14               rt_sigprocmask(
    "31ff"  # xor    edi, edi                       SIG_BLOCK,
    "488d353a000000"  # lea    rsi, [rip+0x3a]      &set,
    "31d2"  # xor    edx, edx                       NULL,
    "41ba08000000"  # mov    r10d, 8                8)
    "0f05"  # syscall
    "b880000000"  # mov    eax, 128              rt_sigtimedwait(
    "488d3d24000000"  # lea    rdi, [rip+0x24]      &set,
    "31f6"  # xor    esi, esi                       NULL,
    "488d1523000000"  # lea    rdx, [rip+0x23]      &timeout,
    "41ba08000000"  # mov    r10d, 8                8)
    "0f05"  # syscall
    "31ff"  # xor    edi, edi
    "83f80f"  # cmp    eax, 15                   SIGTERM?
    "400f95c7"  # setne  dil
    "b83c000000"  # mov    eax, 60               exit(0 or 1)
    "0f05"  # syscall
    "f46690"  # hlt, padding to eight bytes
)

# Numbers from include/uapi/asm-generic/unistd.h; each word is little endian.
_AARCH64 = bytes.fromhex(
    "e81080d2"  # mov    x8, #135                rt_sigprocmask(
    "000080d2"  # mov    x0, #0                     SIG_BLOCK,
    "c1010010"  # adr    x1, set                    &set,
    "020080d2"  # mov    x2, #0                     NULL,
    "030180d2"  # mov    x3, #8                     8)
    "010000d4"  # svc    #0
    "281180d2"  # mov    x8, #137                rt_sigtimedwait(
    "20010010"  # adr    x0, set                    &set,
    "010080d2"  # mov    x1, #0                     NULL,
    "22010010"  # adr    x2, timeout                &timeout,
    "030180d2"  # mov    x3, #8                     8)
    "010000d4"  # svc    #0
    "1f3c00f1"  # cmp    x0, #15                 SIGTERM?
    "e0079f9a"  # cset   x0, ne
    "a80b80d2"  # mov    x8, #93                 exit(0 or 1)
    "010000d4"  # svc    #0
)

# By uname -m: ELF machine number (elf(5)), code, page size that the segment is aligned to.
_MACHINES = {
    "x86_64": (62, _X86_64, 0x1000),
    "aarch64": (183, _AARCH64, 0x10000),
}


def supports(architecture: str) -> bool:
    """Tell whether there is a program for a machine as ``uname -m`` names it."""
    return architecture in _MACHINES


def program(architecture: str) -> bytes:
    """Return the executable for a machine, as ELF.

    :raises KeyError: there is none for that machine.
    """
    machine, code, alignment = _MACHINES[architecture]
    header_size, segment_size = 64, 56
    offset = header_size + segment_size
    body = code + _DATA
    size = offset + len(body)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",  # 64-bit, little endian, version 1, System V
        2,  # ET_EXEC
        machine,
        1,
        _LOAD_ADDRESS + offset,  # entry
        header_size,  # program headers follow at once
        0,  # no section headers
        0,
        header_size,
        segment_size,
        1,
        0,
        0,
        0,
    )
    segment = struct.pack(
        "<IIQQQQQQ", 1, 5, 0, _LOAD_ADDRESS, _LOAD_ADDRESS, size, size, alignment
    )  # PT_LOAD, readable and executable
    return header + segment + body


def archive(architecture: str) -> bytes:
    """Return a tar archive of a root directory that holds the program and nothing else."""
    content = program(architecture)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        entry = tarfile.TarInfo(PROGRAM)
        entry.mode = 0o755
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()
