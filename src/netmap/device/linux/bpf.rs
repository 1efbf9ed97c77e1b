//! bpf(2): the word that the programs read, the programs, and where they are
//! attached. All of it is descriptors: whatever ends a process, with the last
//! of them the interface is what it was.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::programs::Instruction;

const MAP_CREATE: libc::c_long = 0;
const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const MAP_TYPE_ARRAY: u32 = 2;
/// `BPF_F_MMAPABLE`
const MAPPABLE: u32 = 1 << 10;
const PROG_TYPE_SCHED_CLS: u32 = 3;

/// Where a program is attached (`BPF_TCX_INGRESS`, `BPF_TCX_EGRESS`, since
/// Linux 6.6).
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum Way {
    In = 46,
    Out = 47,
}

#[repr(C)]
#[derive(Default)]
struct Map {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Program {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct Link {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    pad: u32,
    expected_revision: u64,
}

/// # Safety
/// `attributes` is what `command` takes, and what it points to is there.
unsafe fn bpf<T>(command: libc::c_long, attributes: &T) -> Result<OwnedFd, Errno> {
    // SAFETY: as the caller says; the structure is read within its size.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    let fd = Errno::result(fd)?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: a descriptor that the call has just made, and nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

/// A word that can be mapped, and read by programs.
pub(super) fn word() -> Result<OwnedFd, Errno> {
    let map = Map {
        map_type: MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        map_flags: MAPPABLE,
    };
    // SAFETY: what a map is made of, which points nowhere.
    unsafe { bpf(MAP_CREATE, &map) }
}

/// Loads a program.
pub(super) fn load(instructions: &[Instruction]) -> Result<OwnedFd, Errno> {
    let program = Program {
        prog_type: PROG_TYPE_SCHED_CLS,
        insn_cnt: u32::try_from(instructions.len()).map_err(|_| Errno::E2BIG)?,
        insns: instructions.as_ptr() as u64,
        license: c"BSD".as_ptr() as u64,
        ..Program::default()
    };
    // SAFETY: the instructions, as many as is said, and the text outlive the
    // call.
    unsafe { bpf(PROG_LOAD, &program) }
}

/// Attaches a program to an interface, as long as what is returned is open.
pub(super) fn attach(program: BorrowedFd<'_>, interface: u32, way: Way) -> Result<OwnedFd, Errno> {
    let link = Link {
        prog_fd: number(program),
        target_ifindex: interface,
        attach_type: way as u32,
        ..Link::default()
    };
    // SAFETY: what a link is made of, which points nowhere.
    unsafe { bpf(LINK_CREATE, &link) }
}
