"""Which system calls code in the jail may make: what Python programs need, by list; the rest does not exist.

An allow list, as Docker's default profile and systemd's @system-service are: what the kernel learns tomorrow is closed
today. What is not listed answers ENOSYS, upon which libraries fall back to older calls.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from functools import cache

from zenray.batch.sandbox.model import SandboxUnavailable

_ALLOWED = """
read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 close close_range lseek sendfile splice tee
copy_file_range fsync fdatasync sync_file_range fadvise64 readahead fallocate ftruncate truncate dup dup2 dup3 fcntl
flock pipe pipe2 ioctl open openat openat2 creat access faccessat faccessat2 stat fstat lstat newfstatat statx
statfs fstatfs getcwd chdir fchdir mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink
symlinkat readlink readlinkat chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat umask utime utimes utimensat
futimesat getdents getdents64 getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr setxattr lsetxattr fsetxattr
removexattr lremovexattr fremovexattr inotify_init inotify_init1 inotify_add_watch inotify_rm_watch

brk mmap munmap mremap mprotect madvise msync mincore mlock munlock mlock2 memfd_create membarrier rseq
pkey_alloc pkey_free pkey_mprotect

fork vfork execve exit exit_group wait4 waitid getpid getppid gettid getpgid getpgrp setpgid getsid setsid
getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid setregid setresuid setresgid
setgroups capget arch_prctl prctl set_tid_address set_robust_list get_robust_list futex futex_waitv getrlimit setrlimit
prlimit64 getrusage getpriority setpriority sysinfo uname getcpu sched_yield sched_getaffinity sched_setaffinity
sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min getrandom restart_syscall

rt_sigaction rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigpending rt_sigtimedwait rt_sigqueueinfo sigaltstack
kill tkill tgkill pause alarm getitimer setitimer pidfd_open pidfd_send_signal signalfd signalfd4
timer_create timer_settime timer_gettime timer_getoverrun timer_delete timerfd_create timerfd_settime timerfd_gettime
nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times

select pselect6 poll ppoll epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2
bind listen accept accept4 connect getsockname getpeername getsockopt setsockopt sendto recvfrom sendmsg recvmsg
sendmmsg recvmmsg shutdown
"""

_REFUSED = """
ptrace process_vm_readv process_vm_writev mount umount2 pivot_root chroot unshare setns bpf perf_event_open
add_key request_key keyctl userfaultfd init_module finit_module delete_module kexec_load kexec_file_load reboot swapon
swapoff quotactl acct settimeofday clock_settime adjtimex sethostname setdomainname iopl ioperm open_by_handle_at
io_uring_setup io_uring_enter io_uring_register
"""
"""Answer EPERM, the honest answer: these exist, and not for you. The rest is as if the kernel were too old for it."""

_NEW_NAMESPACES = 0x7E020080
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET and NEWTIME. `clone3`, whose flags a filter cannot
read, is not allowed: the C library falls back to `clone`."""

_FILE_TYPE = 0o170000


@cache
def seccomp_program() -> bytes:
    """The filter as BPF. Raises SandboxUnavailable without libseccomp."""
    try:
        import pyseccomp as seccomp
    except (ImportError, OSError, RuntimeError) as error:
        raise SandboxUnavailable(f"libseccomp is missing ({error}): apt-get install libseccomp2") from error

    rules = seccomp.SyscallFilter(seccomp.ERRNO(errno.ENOSYS))
    allow, refuse = seccomp.ALLOW, seccomp.ERRNO(errno.EPERM)

    def add(action: int, name: str, *conditions: object) -> None:
        number = seccomp.resolve_syscall(seccomp.system_arch(), name)
        if number >= 0:  # Not every architecture and not every libseccomp has every call.
            rules.add_rule(action, number, *conditions)

    def argument(position: int, comparison: int, *values: int) -> object:
        return seccomp.Arg(position, comparison, *values)

    for name in _ALLOWED.split():
        add(allow, name)
    for name in _REFUSED.split():
        add(refuse, name)
    add(allow, "clone", argument(0, seccomp.MASKED_EQ, _NEW_NAMESPACES, 0))
    for name in ("socket", "socketpair"):
        add(allow, name, argument(0, seccomp.EQ, socket.AF_UNIX))
        add(refuse, name, argument(0, seccomp.NE, socket.AF_UNIX))
    for position, name in ((1, "mknod"), (2, "mknodat")):  # Named pipes, no devices.
        add(allow, name, argument(position, seccomp.MASKED_EQ, _FILE_TYPE, stat.S_IFIFO))
    with os.fdopen(os.memfd_create("seccomp"), "w+b") as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()
