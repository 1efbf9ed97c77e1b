//! No back end: the device is there, its link is up, and nothing is connected.
//! What the guest sends is taken and dropped.

use std::io;

use super::{Backend, Sent};
use crate::net::frame::Batch;

/// The back end of a device without one.
#[derive(Clone, Copy, Debug)]
pub struct Unconnected;

impl Backend for Unconnected {
    fn features(&self) -> u64 {
        0
    }

    fn set_features(&self, _features: u64, _header_len: usize) -> io::Result<()> {
        Ok(())
    }

    fn max_pairs(&self) -> u16 {
        u16::MAX
    }

    fn send(&self, _pair: usize, batch: &Batch<'_>) -> Sent {
        Sent {
            dropped: u32::try_from(batch.frames().len()).unwrap_or(u32::MAX),
            ..Sent::default()
        }
    }
}
