//! Rings whose pointers a client exchanges through its own memory
//! (`netmap_csb_validate`): an entry each way for every bound ring, transmit
//! rings first.

use std::mem::size_of;

use nix::errno::Errno;
use zerocopy::IntoBytes;

use super::memory::ClientMemory;
use crate::netmap::abi::nmreq::NR_EXCLUSIVE;
use crate::netmap::abi::option::{AppToKernel, KernelToApp, SharedBlock};
use crate::netmap::port::{Direction, Port};
use crate::netmap::register::Registration;

/// Checks that a client's block can be used, and writes where its rings are.
/// Returns whether there is a ring to use it for.
///
/// # Errors
/// `EINVAL`: the rings are not the client's alone, or the block is not aligned
/// to its entries. `EFAULT`: it is not all there.
pub(super) fn begin(
    registration: &Registration,
    block: &SharedBlock,
    memory: &mut dyn ClientMemory,
) -> Result<bool, Errno> {
    let krings = [Direction::Tx, Direction::Rx].map(|direction| {
        (0..registration.ring_count(direction))
            .filter_map(move |at| registration.kring(direction, at))
    });
    let krings: Vec<_> = krings.into_iter().flatten().collect();
    if krings.is_empty() {
        return Ok(false);
    }
    if registration.flags() & NR_EXCLUSIVE == 0 {
        return Err(Errno::EINVAL);
    }
    let (atok, ktoa) = (
        size_of::<AppToKernel>() as u64,
        size_of::<KernelToApp>() as u64,
    );
    if block.csb_atok % atok != 0 || block.csb_ktoa % ktoa != 0 {
        return Err(Errno::EINVAL);
    }
    // All of it is looked at before any of it is begun.
    for nth in 0..krings.len() as u64 {
        let mut entry = AppToKernel::default();
        memory.copy_in(nth_at(block.csb_atok, nth, atok)?, entry.as_mut_bytes())?;
        let empty = KernelToApp::default();
        memory.copy_out(nth_at(block.csb_ktoa, nth, ktoa)?, empty.as_bytes())?;
    }
    for (nth, kring) in (0..).zip(krings) {
        let (user, hardware) = (kring.user(), kring.hardware());
        let theirs = AppToKernel {
            head: user.rhead,
            cur: user.rcur,
            appl_need_kick: 1,
            sync_flags: 1,
            ..AppToKernel::default()
        };
        let ours = KernelToApp {
            hwcur: hardware.hwcur,
            hwtail: hardware.hwtail,
            kern_need_kick: 1,
            ..KernelToApp::default()
        };
        memory.copy_out(nth_at(block.csb_atok, nth, atok)?, theirs.as_bytes())?;
        memory.copy_out(nth_at(block.csb_ktoa, nth, ktoa)?, ours.as_bytes())?;
    }
    Ok(true)
}

/// Where entry `nth` is.
fn nth_at(base: u64, nth: u64, size: u64) -> Result<u64, Errno> {
    let offset = nth.checked_mul(size);
    let at = offset.and_then(|offset| base.checked_add(offset));
    at.ok_or(Errno::EFAULT)
}
