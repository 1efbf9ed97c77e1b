//! Programs that lend their own memory: to a region, and for ring pointers.

use std::io::Result;
use std::mem::offset_of;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::thread;

use vtnetd::netmap::abi::Interface;
use vtnetd::netmap::abi::nmreq::*;
use vtnetd::netmap::abi::option::*;

use crate::port::*;

/// By the name that the test has.
pub const ALL: [(&str, fn()); 3] = [
    ("memory_of_the_programs_becomes_a_region", external),
    ("memory_that_cannot_be_exchanged_is_left_alone", refused),
    ("a_loop_runs_in_the_thread_that_starts_it", looping),
];

/// An option as it lies in memory.
#[repr(C)]
struct Opt<T>(OptionHeader, T);

fn opt<T>(kind: u32, value: T) -> Opt<T> {
    let header = OptionHeader {
        nro_reqtype: kind,
        ..OptionHeader::default()
    };
    Opt(header, value)
}

fn register_with<T>(
    name: &str,
    flags: u64,
    option: &mut Opt<T>,
) -> Result<(libc::c_int, RegisterBody)> {
    let fd = open()?;
    let mut body = RegisterBody {
        nr_mode: NR_REG_ALL_NIC,
        nr_flags: flags,
        ..RegisterBody::default()
    };
    let mut request = header(NETMAP_REQ_REGISTER, name, &mut body);
    request.nr_options = ptr::from_mut(option) as u64;
    ioctl(fd, NIOCCTRL, ptr::from_mut(&mut request).cast())?;
    Ok((fd, body))
}

const BYTES: usize = 1 << 24;

fn memory(flags: libc::c_int) -> *mut u8 {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = flags | libc::MAP_ANON;
    // SAFETY: a new mapping at an address of the system's choice.
    let at = unsafe { libc::mmap(ptr::null_mut(), BYTES, protection, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    at.cast()
}

fn lend(at: u64, bytes: usize) -> Opt<ExternalMemory> {
    let nro_info = PoolsBody {
        nr_memsize: bytes as u64,
        ..PoolsBody::default()
    };
    let memory = ExternalMemory {
        nro_usrptr: at,
        nro_info,
    };
    opt(NETMAP_REQ_OPT_EXTMEM, memory)
}

fn external() {
    for flags in [libc::MAP_PRIVATE, libc::MAP_SHARED] {
        let at = memory(flags);
        let last = at.wrapping_add(BYTES - 1);
        // SAFETY: the last byte of it.
        unsafe { last.write_volatile(7) };
        let mut option = lend(at as u64, BYTES);
        let (fd, body) = register_with("vale0:a", 0, &mut option).unwrap();
        let Opt(OptionHeader { nro_status, .. }, told) = &option;
        assert_eq!((*nro_status, told.nro_info.nr_ring_pool_objtotal), (0, 4));
        assert_eq!(body.nr_memsize, BYTES as u64);
        // SAFETY: as above; the name is the interface's first field.
        let (kept, name) = unsafe {
            let name = at.add(usize::try_from(body.nr_offset).unwrap());
            let name = name.add(offset_of!(Interface, ni_name)).cast::<[u8; 7]>();
            (last.read_volatile(), name.read_volatile())
        };
        assert_eq!((kept, &name), (7, b"vale0:a"));
        // A second port in the same memory has its things behind.
        let (second, behind) = register_with("vale0:c", 0, &mut option).unwrap();
        assert_eq!(behind.nr_mem_id, body.nr_mem_id);
        assert!(behind.nr_offset > body.nr_offset);
        let (a, b) = (Port::new(fd, body).unwrap(), Port::open("vale0:b"));
        let c = Port::new(second, behind).unwrap();
        let frame = [0xff; 60];
        a.send(&frame);
        assert_eq!(b.receive(), frame);
        assert_eq!(c.receive(), frame);
        b.send(&frame);
        assert_eq!(a.receive(), frame);
    }
}

fn refused() {
    let at = memory(libc::MAP_PRIVATE) as u64;
    let code = refused as *const () as u64;
    for (at, bytes) in [
        (at + 64, BYTES - 4096),
        (code - code % 65536, BYTES),
        (0, BYTES),
    ] {
        let mut option = lend(at, bytes);
        let refused = register_with("vale0:a", 0, &mut option);
        assert_eq!(errno(refused), libc::EOPNOTSUPP);
        let Opt(OptionHeader { nro_status, .. }, _) = option;
        assert_eq!(i32::try_from(nro_status), Ok(libc::EOPNOTSUPP));
    }
    let mut option = lend(at, 8192);
    let small = register_with("vale0:a", 0, &mut option);
    assert_eq!(errno(small), libc::ENOMEM);
}

#[derive(Default)]
#[repr(C, align(64))]
struct Block {
    atok: [AppToKernel; 2],
    ktoa: [KernelToApp; 2],
}

fn number(at: *const u32) -> &'static AtomicU32 {
    // SAFETY: a number in a block that is never freed.
    unsafe { AtomicU32::from_ptr(at.cast_mut()) }
}

fn looping() {
    let block: &'static Block = Box::leak(Box::default());
    let mut option = opt(
        NETMAP_REQ_OPT_CSB,
        SharedBlock {
            csb_atok: block.atok.as_ptr() as u64,
            csb_ktoa: block.ktoa.as_ptr() as u64,
        },
    );
    let (fd, body) = register_with("vale0:a", NR_EXCLUSIVE, &mut option).unwrap();
    let a = Port::new(fd, body).unwrap();
    let b = Port::open("vale0:b");
    for sent in 1..4 {
        let running = thread::spawn(move || {
            let mut body = LoopBody {
                sleep_us: 100,
                pad1: 0,
            };
            ask(fd, NETMAP_REQ_SYNC_KLOOP_START, "", &mut body)
                .map(drop)
                .map_err(|error| error.raw_os_error())
        });
        let frame = [0xff; 60];
        assert!(a.put(&frame));
        let [tx, _] = &block.atok;
        number(&raw const tx.cur).store(sent, Ordering::Relaxed);
        fence(Ordering::Release);
        number(&raw const tx.head).store(sent, Ordering::Relaxed);
        assert_eq!(b.receive(), frame);
        b.send(&frame);
        let [_, rx] = &block.ktoa;
        while number(&raw const rx.hwtail).load(Ordering::Acquire) != sent {
            thread::yield_now();
        }
        // Its rings are the loop's.
        let other = ioctl(fd, NIOCRXSYNC, ptr::null_mut());
        assert_eq!(errno(other), libc::EBUSY);
        let mut request = header(NETMAP_REQ_SYNC_KLOOP_STOP, "", &mut ());
        request.nr_body = 0;
        let stopped = ioctl(fd, NIOCCTRL, ptr::from_mut(&mut request).cast());
        assert_eq!(stopped.unwrap(), 0);
        assert_eq!(running.join().unwrap(), Ok(()));
    }
}
