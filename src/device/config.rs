//! The device's configuration space (5.1.4).
//!
//! ```text
//!  0     6        8                      10   12
//!  | mac | status | max_virtqueue_pairs | mtu |
//! ```

use crate::net::ethernet::Mac;
use crate::virtio::spec::net_status;

/// Bytes of the configuration space.
pub const LEN: usize = 12;
/// Bytes of it that may be written, by a legacy driver or after a migration: the
/// MAC address.
pub const MAC_LEN: usize = 6;

/// The MTU of a device that was given none, as in the reference.
const DEFAULT_MTU: u16 = 1500;

/// What the configuration space says.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The guest's address.
    pub mac: Mac,
    /// The link is up.
    pub link: bool,
    /// The driver is asked to announce itself.
    pub announce: bool,
    /// Queue pairs.
    pub pairs: u16,
    /// The largest MTU, in bytes.
    pub mtu: Option<u16>,
}

impl Config {
    /// The MTU that the configuration space says.
    pub fn mtu(&self) -> u16 {
        self.mtu.unwrap_or(DEFAULT_MTU)
    }

    /// The wire form.
    pub fn to_bytes(self) -> [u8; LEN] {
        let mut status = 0;
        if self.link {
            status |= net_status::LINK_UP;
        }
        if self.announce {
            status |= net_status::ANNOUNCE;
        }
        let mut raw = [0; LEN];
        raw[..MAC_LEN].copy_from_slice(&self.mac.0);
        raw[6..8].copy_from_slice(&status.to_le_bytes());
        raw[8..10].copy_from_slice(&self.pairs.to_le_bytes());
        raw[10..12].copy_from_slice(&self.mtu().to_le_bytes());
        raw
    }
}
