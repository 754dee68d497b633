"""What the time of a sample in the kernel goes to: told by flags of the record and the call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from numatrace.model.access import HOW

if TYPE_CHECKING:
    from collections.abc import Mapping

Array = np.ndarray[Any, Any]

FAULT: Final = 8
RECLAIM: Final = 16
INTERRUPT: Final = 32
"""Bits of a ring record's `access` that the trace does not have."""

CODE: Final = {name: code for code, name in enumerate(HOW)}
"""Place of each way to get an address in HOW."""

_COPY: Final = """read write pread64 pwrite64 readv writev preadv pwritev preadv2 pwritev2 sendfile
    splice tee vmsplice copy_file_range sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg
    process_vm_readv process_vm_writev readahead"""
_WAIT: Final = """futex futex_waitv futex_wake futex_wait futex_requeue poll ppoll select pselect6
    epoll_wait epoll_pwait epoll_pwait2 nanosleep clock_nanosleep sched_yield pause wait4 waitid
    rt_sigtimedwait rt_sigsuspend io_getevents io_pgetevents io_uring_enter semop semtimedop msgrcv
    mq_timedreceive accept accept4"""
_MAP: Final = """mmap munmap mremap mprotect pkey_mprotect brk madvise process_madvise mbind
    set_mempolicy get_mempolicy set_mempolicy_home_node migrate_pages move_pages mlock mlock2
    munlock mlockall munlockall mincore remap_file_pages shmat shmdt"""
CALLS: Final = {
    **dict.fromkeys(_COPY.split(), "kernel copy"),
    **dict.fromkeys(_WAIT.split(), "kernel wait"),
    **dict.fromkeys(_MAP.split(), "kernel map"),
}
"""System calls by what a server's thread spends time on in them."""

_X86_64: Final = """read 0 write 1 poll 7 mmap 9 mprotect 10 munmap 11 brk 12 pread64 17 pwrite64 18
    readv 19 writev 20 select 23 sched_yield 24 mremap 25 mincore 27 madvise 28 shmat 30 pause 34
    nanosleep 35 sendfile 40 accept 43 sendto 44 recvfrom 45 sendmsg 46 recvmsg 47 wait4 61 semop 65
    shmdt 67 msgrcv 70 rt_sigtimedwait 128 rt_sigsuspend 130 mlock 149 munlock 150 mlockall 151
    munlockall 152 readahead 187 futex 202 io_getevents 208 remap_file_pages 216 semtimedop 220
    clock_nanosleep 230 epoll_wait 232 mbind 237 set_mempolicy 238 get_mempolicy 239
    mq_timedreceive 243 waitid 247 migrate_pages 256 pselect6 270 ppoll 271 splice 275 tee 276
    vmsplice 278 move_pages 279 epoll_pwait 281 accept4 288 preadv 295 pwritev 296 recvmmsg 299
    sendmmsg 307 process_vm_readv 310 process_vm_writev 311 mlock2 325 copy_file_range 326
    preadv2 327 pwritev2 328 pkey_mprotect 329 io_pgetevents 333 io_uring_enter 426
    process_madvise 440 epoll_pwait2 441 futex_waitv 449 set_mempolicy_home_node 450
    futex_wake 454 futex_wait 455 futex_requeue 456"""
_GENERIC: Final = """epoll_pwait 22 readv 65 read 63 write 64 writev 66 pread64 67 pwrite64 68
    preadv 69 pwritev 70 sendfile 71 pselect6 72 ppoll 73 vmsplice 75 splice 76 tee 77 waitid 95
    futex 98 nanosleep 101 clock_nanosleep 115 sched_yield 124 rt_sigsuspend 133
    rt_sigtimedwait 137 mq_timedreceive 183 msgrcv 188 semtimedop 192 semop 193 shmat 196 shmdt 197
    accept 202 sendto 206 recvfrom 207 sendmsg 211 recvmsg 212 readahead 213 brk 214 munmap 215
    mremap 216 mmap 222 mprotect 226 mlock 228 munlock 229 mlockall 230 munlockall 231 mincore 232
    madvise 233 remap_file_pages 234 mbind 235 get_mempolicy 236 set_mempolicy 237
    migrate_pages 238 move_pages 239 accept4 242 recvmmsg 243 wait4 260 sendmmsg 269
    process_vm_readv 270 process_vm_writev 271 mlock2 284 copy_file_range 285 preadv2 286
    pwritev2 287 pkey_mprotect 288 io_getevents 4 io_pgetevents 292 io_uring_enter 426
    process_madvise 440 epoll_pwait2 441 futex_waitv 449 set_mempolicy_home_node 450
    futex_wake 454 futex_wait 455 futex_requeue 456"""


def _numbered(table: str) -> dict[str, int]:
    words = table.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


NUMBERS: Final[Mapping[str, Mapping[str, int]]] = {
    "x86_64": _numbered(_X86_64),
    "aarch64": _numbered(_GENERIC),
}
"""System call numbers per machine. Sources: arch/x86/entry/syscalls/syscall_64.tbl and
include/uapi/asm-generic/unistd.h of the kernel."""

_LIMIT: Final = 512


def call_codes(machine: str) -> Array:
    """Place in HOW for each system call number; the last entry is for all other numbers."""
    codes = np.full(_LIMIT + 1, CODE["kernel"], np.uint8)
    for name, number in NUMBERS[machine].items():
        codes[number] = CODE[CALLS[name]]
    return codes


def kernel_codes(access: Array, syscall: Array, calls: Array) -> Array:
    """Place in HOW of records taken in the kernel: what interrupted last comes first."""
    known = (syscall >= 0) & (syscall < _LIMIT)
    codes = calls[np.where(known, syscall, _LIMIT)]
    for bit, name in (
        (FAULT, "kernel fault"),
        (RECLAIM, "kernel reclaim"),
        (INTERRUPT, "kernel interrupt"),
    ):
        codes[(access & bit) != 0] = CODE[name]
    return np.asarray(codes, np.uint8)
