//! Memory that vanishes: a front end may truncate what it shared, and the next
//! access raises SIGBUS, which must stop that device and no other.
//!
//! The handler finds the mapping by the fault's address, maps zero pages over
//! it and marks it broken. The copy that was under way then ends, and whoever
//! holds the mapping sees [`Guard::is_broken`] and stops that device alone.
//!
//! Everything the handler touches is atomic and never freed: guards are nodes
//! of a list that only grows, and a node is used again once it is free.

use std::io;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize, Ordering};

/// One watched address range.
#[derive(Debug)]
struct Node {
    base: AtomicUsize,
    /// 0: the node is free.
    len: AtomicUsize,
    claimed: AtomicBool,
    broken: AtomicBool,
    next: AtomicPtr<Node>,
}

static HEAD: AtomicPtr<Node> = AtomicPtr::new(ptr::null_mut());
static NOTIFY: AtomicI32 = AtomicI32::new(-1);

fn nodes() -> impl Iterator<Item = &'static Node> {
    let mut at = HEAD.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: nodes are leaked boxes, never freed.
        let node = unsafe { at.as_ref() }?;
        at = node.next.load(Ordering::Acquire);
        Some(node)
    })
}

/// Watches one mapping from `new` to `disarm`.
#[derive(Debug)]
pub(super) struct Guard(&'static Node);

impl Guard {
    pub(super) fn new(base: NonNull<u8>, len: usize) -> Self {
        let free = nodes().find(|node| {
            node.claimed
                .compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        });
        let node = free.unwrap_or_else(|| {
            let node: &'static Node = Box::leak(Box::new(Node {
                base: AtomicUsize::new(0),
                len: AtomicUsize::new(0),
                claimed: AtomicBool::new(true),
                broken: AtomicBool::new(false),
                next: AtomicPtr::new(ptr::null_mut()),
            }));
            let mut head = HEAD.load(Ordering::Acquire);
            loop {
                node.next.store(head, Ordering::Relaxed);
                let new = ptr::from_ref(node).cast_mut();
                match HEAD.compare_exchange(head, new, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => break node,
                    Err(now) => head = now,
                }
            }
        });
        node.broken.store(false, Ordering::Relaxed);
        node.base.store(base.addr().get(), Ordering::Relaxed);
        node.len.store(len, Ordering::Release);
        Self(node)
    }

    pub(super) fn is_broken(&self) -> bool {
        self.0.broken.load(Ordering::Relaxed)
    }

    /// Watches no longer; to be called before the range is unmapped.
    pub(super) fn disarm(&self) {
        self.0.len.store(0, Ordering::Release);
        self.0.claimed.store(false, Ordering::Release);
    }
}

/// The descriptor (an eventfd or a pipe) that is written to when a mapping
/// breaks, so that the control thread wakes up and looks.
pub fn set_notifier(fd: std::os::fd::RawFd) {
    NOTIFY.store(fd, Ordering::Release);
}

/// Installs the handler for the whole process.
///
/// # Errors
/// What sigaction(2) says.
pub fn install() -> io::Result<()> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: an all-zero sigaction is valid, and is filled in before use; the
    // handler does only what is allowed in a handler.
    let status = unsafe {
        let action = action.assume_init_mut();
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        libc::sigaction(libc::SIGBUS, action, ptr::null_mut())
    };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(target_os = "linux")]
const ZERO_PAGES: libc::c_int =
    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
#[cfg(not(target_os = "linux"))]
const ZERO_PAGES: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED;

/// Only atomics and plain system calls: this runs inside a signal handler.
extern "C" fn on_fault(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: SA_SIGINFO says that `info` is valid.
    let addr = unsafe { (*info).si_addr() } as usize;
    let hit = nodes().find(|node| {
        let len = node.len.load(Ordering::Acquire);
        addr.wrapping_sub(node.base.load(Ordering::Relaxed)) < len
    });
    if let Some(node) = hit {
        let base = ptr::with_exposed_provenance_mut(node.base.load(Ordering::Relaxed));
        let len = node.len.load(Ordering::Relaxed);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the range is a live mapping of ours that no reference points
        // into; replacing its pages is what the handler is for.
        let mapped = unsafe { libc::mmap(base, len, protection, ZERO_PAGES, -1, 0) };
        if mapped != libc::MAP_FAILED {
            node.broken.store(true, Ordering::Release);
            let one = 1u64.to_ne_bytes();
            // SAFETY: eight bytes to a descriptor; a failure only delays.
            unsafe {
                libc::write(
                    NOTIFY.load(Ordering::Acquire),
                    one.as_ptr().cast(),
                    one.len(),
                );
            }
            return;
        }
    }
    // Not ours: die as if there had been no handler.
    // SAFETY: restoring the default action is allowed in a handler.
    unsafe {
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
    }
}
