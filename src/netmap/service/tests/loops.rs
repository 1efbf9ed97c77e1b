//! What goes along with requests: sync loops, and memory of the program's.

use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::fstat;
use nix::unistd::ftruncate;

use zerocopy::{Immutable, IntoBytes};

use super::bed::Bed;
use super::program::Program;
use crate::netmap::abi::nmreq::*;
use crate::netmap::abi::option::*;
use crate::netmap::abi::{NETMAP_API, Ring};
use crate::netmap::kloop::Running;
use crate::netmap::port::Direction;
use crate::netmap::service::wire::page::{Operation, Outcome};
use crate::netmap::sync::Pointers;

/// Binds a port with an option.
fn bind<T: IntoBytes + Immutable>(
    program: &mut Program,
    name: &str,
    body: &RegisterBody,
    (kind, option): (u32, &T),
    object: Option<BorrowedFd<'_>>,
) -> Result<(RegisterBody, u32), Errno> {
    let header = OptionHeader {
        nro_reqtype: kind,
        ..OptionHeader::default()
    };
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(option.as_bytes());
    let options = program.memory.put(bytes.as_slice());
    let body = program.memory.put(body);
    let mut header = request(NETMAP_REQ_REGISTER, body);
    header.nr_name[..name.len()].copy_from_slice(name.as_bytes());
    header.nr_options = options;
    let header = program.memory.put(&header);
    program.ioctl_with(NIOCCTRL, header, object)?;
    let status = program.memory.get::<OptionHeader>(options).nro_status;
    Ok((program.memory.get(body), status))
}

fn request(reqtype: u16, nr_body: u64) -> RequestHeader {
    RequestHeader {
        nr_version: NETMAP_API,
        nr_reqtype: reqtype,
        nr_reserved: 0,
        nr_name: [0; 64],
        nr_options: 0,
        nr_body,
    }
}

fn exclusive() -> RegisterBody {
    RegisterBody {
        nr_mode: NR_REG_ALL_NIC,
        nr_flags: NR_EXCLUSIVE,
        ..RegisterBody::default()
    }
}

/// A program whose ring pointers are in a block of its own.
fn with_block(bed: &Bed, name: &str) -> Program {
    let mut program = bed.open();
    let block = SharedBlock {
        csb_atok: program.memory.put([0u8; 128].as_slice()),
        csb_ktoa: program.memory.put([0u8; 128].as_slice()),
    };
    let option = (NETMAP_REQ_OPT_CSB, &block);
    let (bound, status) = bind(&mut program, name, &exclusive(), option, None).unwrap();
    assert_eq!(status, 0);
    program.map(&bound).unwrap();
    program
}

fn start(program: &mut Program) -> Result<Option<OwnedFd>, Errno> {
    let body = program.memory.put(&LoopBody::default());
    let header = request(NETMAP_REQ_SYNC_KLOOP_START, body);
    let header = program.memory.put(&header);
    program.ioctl_with(NIOCCTRL, header, None)
}

fn stop(program: &mut Program) -> Result<Option<OwnedFd>, Errno> {
    let header = request(NETMAP_REQ_SYNC_KLOOP_STOP, 0);
    let header = program.memory.put(&header);
    program.ioctl_with(NIOCCTRL, header, None)
}

fn is_readable(fd: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO) == Ok(1)
}

/// Syncs a ring as a loop does.
fn sync(program: &mut Program, direction: Direction, head: u32) -> Result<(u32, u32), u32> {
    let Outcome { result, extra } = program.channel.ask(Operation::Ring {
        direction,
        ring: 0,
        pointers: Pointers { head, cur: head },
    });
    let half = |half: u64| u32::try_from(half & 0xffff_ffff).unwrap();
    match result {
        0 => Ok((half(extra >> 32), half(extra))),
        errno => Err(errno),
    }
}

#[test]
fn rings_of_a_loop_are_synced_over_the_page() {
    let bed = Bed::new();
    let (mut a, mut b) = (with_block(&bed, "vale0:a"), bed.open());
    b.bind("vale0:b").unwrap();
    let frame = |first| {
        let mut frame = vec![first; 60];
        frame[..6].fill(0xff);
        frame
    };
    // What is in the ring's header does not count.
    a.ring(Direction::Tx).fill(&[frame(1), frame(2)]);
    assert_eq!(sync(&mut a, Direction::Tx, 1), Ok((1, 0)));
    assert_eq!(b.receive(), [frame(1)]);
    assert_eq!(sync(&mut a, Direction::Tx, 2), Ok((2, 1)));
    assert_eq!(b.receive(), [frame(2)]);
    let wrong = sync(&mut a, Direction::Tx, 4000);
    assert_eq!(wrong, Err(Errno::EINVAL as u32));
    // What comes is told, once it was asked for.
    let ready = a.channel.page.ready();
    let listens = a.channel.ask(Operation::Listen);
    assert_eq!(listens.result, 0);
    assert_eq!(b.send(&[frame(3)]), 1);
    while a.channel.page.ready() == ready {
        a.channel.wait(|page| page.ready() != ready);
    }
    assert_eq!(sync(&mut a, Direction::Rx, 0), Ok((0, 1)));
    assert_eq!(
        a.ring(Direction::Rx).get(offset_of!(Ring, tail)),
        0,
        "it is told elsewhere"
    );
    assert_eq!(sync(&mut a, Direction::Rx, 1), Ok((1, 1)));
    // Other syncs are not for it, nor this one for others.
    let other = a.channel.ask(Operation::Sync(Direction::Tx));
    assert_eq!(other.result, Errno::EBUSY as u32);
    assert_eq!(sync(&mut b, Direction::Tx, 0), Err(Errno::EINVAL as u32));
    let listens = b.channel.ask(Operation::Listen);
    assert_eq!(listens.result, Errno::EINVAL as u32);
}

#[test]
fn a_loop_is_handed_over_and_stopped() {
    let bed = Bed::new();
    let mut program = with_block(&bed, "vale0:a");
    let running = Running::new(start(&mut program).unwrap().unwrap()).unwrap();
    assert_eq!(running.job().plan.tx_rings, 1);
    assert!(!is_readable(&running));
    assert_eq!(start(&mut program).err(), Some(Errno::EBUSY));
    let end = stop(&mut program).unwrap().unwrap();
    assert!(is_readable(&running), "it is to end");
    assert!(!is_readable(&end), "it has not");
    drop(running);
    assert!(is_readable(&end));
    assert!(start(&mut program).unwrap().is_some());
}

#[test]
fn a_region_in_memory_of_the_programs() {
    let bed = Bed::new();
    let flags = MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_CLOEXEC;
    let object = memfd_create(c"program", flags).unwrap();
    ftruncate(&object, 1 << 24).unwrap();
    let option = ExternalMemory {
        nro_usrptr: 0x1000,
        nro_info: PoolsBody {
            nr_memsize: 1 << 24,
            ..PoolsBody::default()
        },
    };
    let option = (NETMAP_REQ_OPT_EXTMEM, &option);
    let body = RegisterBody {
        nr_tx_slots: 64,
        nr_rx_slots: 64,
        ..exclusive()
    };
    let mut a = bed.open();
    let mut ask = |object| bind(&mut a, "vale0:a", &body, option, object);
    assert_eq!(ask(None).err(), Some(Errno::EOPNOTSUPP));
    assert_eq!(ask(Some(object.as_fd())).err(), Some(Errno::EINVAL));
    fcntl(&object, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
    let (bound, status) = ask(Some(object.as_fd())).unwrap();
    assert_eq!((bound.nr_memsize, status), (1 << 24, 0));
    let mapped = a.map(&bound).unwrap();
    let inode = |fd: &OwnedFd| fstat(fd).unwrap().st_ino;
    if cfg!(target_os = "linux") {
        assert_eq!(inode(&mapped), inode(&object));
    }
    let mut b = bed.open();
    b.bind("vale0:b").unwrap();
    let frames = [vec![0xff; 60]];
    assert_eq!(a.send(&frames), 1);
    assert_eq!(b.receive(), frames);
    assert_eq!(b.send(&frames), 1);
    assert_eq!(a.receive(), frames);
}
