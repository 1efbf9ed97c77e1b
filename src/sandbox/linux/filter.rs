//! The system call filters.
//!
//! There are two, and the kernel does what the stricter says. One has a list of
//! what we call; anything else is answered with `EPERM`, as it would be if a
//! privilege were missing: a C library that tries something new is not to take
//! every guest down. The other has a list of what only somebody calls who has
//! taken the process over, and who is not to have a second try: it kills.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::sandbox::Use;

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// Calls that do with descriptors, memory and time what they please: none of
/// them names anything.
const PLAIN: &[c_long] = &[
    // Descriptors that are there, and those that come by recvmsg(2).
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_lseek,
    libc::SYS_recvmsg,
    libc::SYS_recvfrom,
    libc::SYS_accept4,
    libc::SYS_socketpair,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // The event loop.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_timer_create,
    libc::SYS_timer_settime,
    libc::SYS_timer_delete,
    // Memory without a name.
    libc::SYS_memfd_create,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Threads that are there, time and chance.
    libc::SYS_futex,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_restart_syscall,
    // Signals to ourselves.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Older names of the above.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
];

/// What fcntl(2) is used for.
const FCNTL: &[libc::c_int] = &[
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_ADD_SEALS,
    libc::F_GET_SEALS,
];

/// What ioctl(2) is used for: sockets that do not block, and a tap's offloads,
/// queues and whether it is there still (linux/if_tun.h). `TUNSETIFF`, which
/// names an interface, and everything else is the opener's.
const IOCTL: &[libc::c_ulong] = &[
    libc::FIONBIO as libc::c_ulong,
    libc::TUNGETIFF as libc::c_ulong,
    libc::TUNSETOFFLOAD as libc::c_ulong,
    libc::TUNSETQUEUE as libc::c_ulong,
];

/// To run, watch or become something else, to find more of the kernel than is
/// left, or to do what a filter cannot see.
const HOSTILE: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kcmp,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_capset,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_mknodat,
    libc::SYS_open_by_handle_at,
    libc::SYS_io_uring_setup,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_personality,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Argument `index` of a call, masked, is `value`.
fn argument(index: u8, mask: u64, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(
        index,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::MaskedEq(mask),
        value,
    )
}

/// The low half of an argument: all that the kernel looks at where it wants an
/// int.
const INT: u64 = 0xffff_ffff;

/// An int as the filter sees it: not sign-extended.
fn int(value: libc::c_int) -> u64 {
    u64::from(unsigned(value))
}

fn unsigned(value: libc::c_int) -> u32 {
    u32::from_ne_bytes(value.to_ne_bytes())
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions)
}

/// What we call.
fn allowed(use_of: Use) -> Result<Rules, BackendError> {
    let mut rules: Rules = PLAIN.iter().map(|call| (*call, Vec::new())).collect();
    let fcntl = FCNTL
        .iter()
        .map(|command| rule(vec![argument(1, INT, int(*command))?]));
    rules.insert(libc::SYS_fcntl, fcntl.collect::<Result<_, _>>()?);
    let ioctl = IOCTL
        .iter()
        .map(|request| rule(vec![argument(1, INT, *request)?]));
    rules.insert(libc::SYS_ioctl, ioctl.collect::<Result<_, _>>()?);
    // Never to an address. sendmsg(2) has its address behind a pointer, where a
    // filter cannot look, so only who hands out descriptors has it. It has no
    // socket(2); the sockets that it has are connected, which on those that
    // clients may pass (connection.rs) no address can change.
    if use_of == Use::Service {
        rules.insert(libc::SYS_sendmsg, Vec::new());
    }
    rules.insert(
        libc::SYS_sendto,
        vec![rule(vec![argument(4, u64::MAX, 0)?])?],
    );
    // C libraries have fstat(2) made of this.
    rules.insert(
        libc::SYS_newfstatat,
        vec![rule(vec![argument(
            3,
            int(libc::AT_EMPTY_PATH),
            int(libc::AT_EMPTY_PATH),
        )?])?],
    );
    let never_code = || rule(vec![argument(2, int(libc::PROT_EXEC), 0)?]);
    rules.insert(libc::SYS_mmap, vec![never_code()?]);
    rules.insert(libc::SYS_mprotect, vec![never_code()?]);
    // abort(3).
    rules.insert(
        libc::SYS_tgkill,
        vec![rule(vec![argument(
            0,
            INT,
            u64::from(std::process::id()),
        )?])?],
    );
    Ok(rules)
}

/// What only an intruder calls.
fn hostile() -> Result<Rules, BackendError> {
    let mut rules: Rules = HOSTILE.iter().map(|call| (*call, Vec::new())).collect();
    let code = int(libc::PROT_EXEC);
    for call in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        rules.insert(call, vec![rule(vec![argument(2, code, code)?])?]);
    }
    Ok(rules)
}

/// Puts both on all threads.
pub(super) fn apply(use_of: Use) -> Result<(), seccompiler::Error> {
    let here: TargetArch = std::env::consts::ARCH.try_into()?;
    let refuse = SeccompAction::Errno(unsigned(libc::EPERM));
    let programs = [
        (hostile()?, SeccompAction::Allow, SeccompAction::KillProcess),
        (allowed(use_of)?, refuse, SeccompAction::Allow),
    ];
    // Built before the first is on; seccomp(2) is not among what it allows.
    let programs: Vec<BpfProgram> = programs
        .into_iter()
        .map(|(rules, otherwise, then)| {
            SeccompFilter::new(rules, otherwise, then, here)?.try_into()
        })
        .collect::<Result<_, BackendError>>()?;
    for program in programs {
        seccompiler::apply_filter_all_threads(&program)?;
    }
    Ok(())
}
