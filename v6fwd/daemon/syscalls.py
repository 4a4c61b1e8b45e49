"""The system calls that a worker makes, by name, with their numbers on x86-64 and arm64.

Numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux.
arm64 does not have the older calls, for each of which there is a newer one.
"""

from __future__ import annotations

NONE = -1

_BYTES = {
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "recvfrom": (45, 207),
    "recvmsg": (47, 212),
    "recvmmsg": (299, 243),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    "splice": (275, 76),
}
_SOCKETS = {
    "socketpair": (53, 199),
    "connect": (42, 203),
    "accept": (43, 202),
    "accept4": (288, 242),
    "bind": (49, 200),
    "listen": (50, 201),
    "getsockname": (51, 204),
    "getpeername": (52, 205),
    "getsockopt": (55, 209),
    "setsockopt": (54, 208),
    "shutdown": (48, 210),
}
_DESCRIPTORS = {
    "close": (3, 57),
    "close_range": (436, 436),
    "fcntl": (72, 25),
    "dup": (32, 23),
    "dup2": (33, NONE),
    "dup3": (292, 24),
    "pipe": (22, NONE),
    "pipe2": (293, 59),
    "eventfd2": (290, 19),
    "timerfd_create": (283, 85),
    "timerfd_settime": (286, 86),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, NONE),
    "epoll_pwait": (281, 22),
    "epoll_pwait2": (441, 441),
    "poll": (7, NONE),
    "ppoll": (271, 73),
    "select": (23, NONE),
    "pselect6": (270, 72),
}
_MEMORY_AND_THREADS = {
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "mprotect": (10, 226),
    "brk": (12, 214),
    "madvise": (28, 233),
    "membarrier": (324, 283),
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "tgkill": (234, 131),  # abort(3); other processes are out of reach without kill
    "exit": (60, 93),
    "exit_group": (231, 94),
    "restart_syscall": (219, 128),
}
_QUESTIONS = {
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getppid": (110, 173),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getresuid": (118, 148),
    "getresgid": (120, 150),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "time": (201, NONE),
    "getrandom": (318, 278),
    "uname": (63, 160),
    "sysinfo": (99, 179),
    "getrusage": (98, 165),
    "getrlimit": (97, 163),
    "prlimit64": (302, 261),
}
_FILES = {
    "fstat": (5, 80),
    "stat": (4, NONE),
    "lstat": (6, NONE),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "readlink": (89, NONE),
    "readlinkat": (267, 78),
    "access": (21, NONE),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "getdents64": (217, 61),
    "lseek": (8, 62),
    "getcwd": (79, 17),
}
"""/proc/self/fd, resolv.conf, hosts, a module that is imported late: read only, see CHECKED."""

ALLOWED: dict[str, tuple[int, int]] = {
    **_BYTES,
    **_SOCKETS,
    **_DESCRIPTORS,
    **_MEMORY_AND_THREADS,
    **_QUESTIONS,
    **_FILES,
}

CHECKED = {
    "socket": (41, 198),
    "openat": (257, 56),
    "open": (2, NONE),
    "clone": (56, 220),
    "ioctl": (16, 29),
}
"""Allowed for some arguments; see seccomp."""

PRIVILEGED = {
    "setns": (308, 268),
    "pwrite64": (18, 68),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "ftruncate": (77, 46),
    "flock": (73, 32),
    "unlink": (87, NONE),
    "unlinkat": (263, 35),
    "mkdir": (83, NONE),
    "mkdirat": (258, 34),
    "fchmod": (91, 52),
    "fchown": (93, 55),
    "utimensat": (280, 88),
    "fallocate": (285, 47),
    "pidfd_open": (434, 434),
}
"""Needed in addition by helpers: containers' namespaces, leases, the pseudo store."""

BPF = {"bpf": (321, 280)}
"""Loads the filter of sockets that a helper makes ahead."""

RING = {"io_uring_enter": (426, 426)}
"""Where a ring was opened before the filter: it allows the operations alone that are used."""

FATAL = {
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, NONE),
    "vfork": (58, NONE),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "unshare": (272, 97),
    "setuid": (105, 146),
    "setresuid": (117, 147),
    "setreuid": (113, 145),
    "setgid": (106, 144),
    "setresgid": (119, 149),
    "setgroups": (116, 159),
    "keyctl": (250, 219),
    "perf_event_open": (298, 241),
}
"""Nothing of ours or of its libraries makes them: whoever does is an intruder."""

PROBED = {
    "clone3": (435, 435),  # its flags are behind a pointer; glibc goes on with clone
    "io_uring_setup": (425, 425),  # libuv asks for it; it would bypass the filter
    "none": (0xFFFFFFFF, 0xFFFFFFFF),  # a tracer, strace --inject, makes this of a call
}
"""Libraries try these, and go on without them."""
