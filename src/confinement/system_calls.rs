//! seccomp(2): the calls that the kernel answers.
//!
//! What is not listed fails with `EPERM` rather than being fatal: a call that a C library makes in a corner
//! nobody has seen must not end a node's DNS.

use libc::c_long;
use rustix::process::getpid;
use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

use super::Extent;

/// Allowed with any arguments, by what they are for. glibc and musl differ in which of several they use.
#[rustfmt::skip]
const ALLOWED: &[c_long] = &[
    // Datagrams, connections, waiting for either. No `bind`, no `listen`: sockets come from the guardian.
    libc::SYS_recvmmsg, libc::SYS_sendmmsg, libc::SYS_recvmsg, libc::SYS_sendmsg, libc::SYS_recvfrom,
    libc::SYS_sendto, libc::SYS_accept4, libc::SYS_connect, libc::SYS_shutdown, libc::SYS_getsockname,
    libc::SYS_getpeername, libc::SYS_getsockopt, libc::SYS_setsockopt, libc::SYS_read, libc::SYS_write,
    libc::SYS_readv, libc::SYS_writev, libc::SYS_close, libc::SYS_ppoll, libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_eventfd2,
    // Threads, and what they wait with.
    libc::SYS_futex, libc::SYS_set_robust_list, libc::SYS_rseq, libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity, libc::SYS_membarrier, libc::SYS_gettid, libc::SYS_getpid, libc::SYS_exit,
    libc::SYS_exit_group,
    // Memory, the cache's among it.
    libc::SYS_brk, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_madvise, libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    // Signals, for waking a thread and for reporting an overrun stack.
    libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // Time and chance.
    libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_clock_nanosleep, libc::SYS_nanosleep,
    libc::SYS_gettimeofday, libc::SYS_getrandom,
    // The configuration is read again and again; the expanded one is written.
    libc::SYS_openat, libc::SYS_statx, libc::SYS_newfstatat, libc::SYS_fstat, libc::SYS_readlinkat,
    libc::SYS_faccessat, libc::SYS_getdents64, libc::SYS_getcwd, libc::SYS_lseek, libc::SYS_pread64,
    libc::SYS_renameat, libc::SYS_renameat2, libc::SYS_unlinkat,
    // `clone3` is here for the other filter to answer.
    libc::SYS_clone3,
];

/// Those that newer architectures do not have.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OLDER: &[c_long] = &[
    libc::SYS_poll, libc::SYS_epoll_wait, libc::SYS_open, libc::SYS_stat, libc::SYS_lstat,
    libc::SYS_readlink, libc::SYS_access, libc::SYS_rename, libc::SYS_unlink, libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// The type of a socket without its flags (`SOCK_TYPE_MASK`).
const TYPE: u64 = 0xf;

/// Allows no other call to the calling thread and to those it starts.
pub fn restrict() -> Result<Extent, Error> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = |rules, otherwise, then| -> Result<BpfProgram, Error> {
        Ok(SeccompFilter::new(rules, otherwise, then, architecture)?.try_into()?)
    };
    // The flags of `clone3` are in memory, where no filter can look. A C library that does not find it
    // takes `clone`.
    let missing = filter(
        [(libc::SYS_clone3, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno(libc::ENOSYS)),
    )?;
    let allowed = ALLOWED.iter().chain(OLDER).map(|call| (*call, Vec::new()));
    let rules = allowed.chain(with_arguments()?).collect();
    let allowed = filter(rules, SeccompAction::Errno(errno(libc::EPERM)), SeccompAction::Allow)?;
    apply_filter(&missing)?;
    apply_filter(&allowed)?;
    Ok(Extent::Whole)
}

/// Allowed with these arguments only; one of a call's rules is enough.
fn with_arguments() -> Result<Vec<(c_long, Vec<SeccompRule>)>, BackendError> {
    let exactly = |index, values: &[libc::c_int]| -> Result<Vec<SeccompRule>, BackendError> {
        values.iter().map(|value| SeccompRule::new(vec![equal(index, *value as u64)?])).collect()
    };
    let not_executable = || Ok(vec![SeccompRule::new(vec![masked(2, libc::PROT_EXEC as u64, 0)?])?]);
    let thread = libc::CLONE_THREAD as u64;
    let nowhere = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?;
    Ok(vec![
        (libc::SYS_socket, sockets()?),
        (libc::SYS_socketpair, vec![socket(libc::AF_UNIX, libc::SOCK_STREAM)?]),
        (libc::SYS_clone, vec![SeccompRule::new(vec![masked(0, thread, thread)?])?]),
        (libc::SYS_mmap, not_executable()?),
        (libc::SYS_mprotect, not_executable()?),
        (libc::SYS_tgkill, exactly(0, &[getpid().as_raw_nonzero().get()])?),
        // All that musl has. What it can reach is a matter of Landlock and of the pod's own process numbers.
        (libc::SYS_tkill, Vec::new()),
        (libc::SYS_prctl, exactly(0, &[libc::PR_SET_NAME])?),
        // A thread's own slice of a CPU.
        (libc::SYS_sched_getattr, exactly(0, &[0])?),
        (libc::SYS_sched_setattr, exactly(0, &[0])?),
        // Reading a limit, not setting one.
        (libc::SYS_prlimit64, vec![SeccompRule::new(vec![equal(0, 0)?, nowhere])?]),
        (libc::SYS_ioctl, exactly(1, &[libc::FIONBIO as libc::c_int, libc::FIOCLEX as libc::c_int])?),
        (
            libc::SYS_fcntl,
            exactly(
                1,
                &[
                    libc::F_GETFD,
                    libc::F_SETFD,
                    libc::F_GETFL,
                    libc::F_SETFL,
                    libc::F_DUPFD_CLOEXEC,
                    libc::F_ADD_SEALS,
                    libc::F_GET_SEALS,
                ],
            )?,
        ),
    ])
}

/// To upstreams; and to the kernel for the addresses of an interface, which `bind` may name.
fn sockets() -> Result<Vec<SeccompRule>, BackendError> {
    let route =
        SeccompRule::new(vec![equal(0, libc::AF_NETLINK as u64)?, equal(2, libc::NETLINK_ROUTE as u64)?])?;
    Ok(vec![
        socket(libc::AF_INET, libc::SOCK_DGRAM)?,
        socket(libc::AF_INET, libc::SOCK_STREAM)?,
        socket(libc::AF_INET6, libc::SOCK_DGRAM)?,
        socket(libc::AF_INET6, libc::SOCK_STREAM)?,
        route,
    ])
}

fn socket(family: libc::c_int, kind: libc::c_int) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![equal(0, family as u64)?, masked(1, TYPE, kind as u64)?])
}

fn equal(index: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

fn masked(index: u8, mask: u64, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)
}

fn errno(number: libc::c_int) -> u32 {
    number.unsigned_abs()
}
