//! Which frames the guest wants (5.1.6.5.1 to 5.1.6.5.3). Only a device whose
//! control queue we have knows; elsewhere the VMM keeps it and filters itself.

use crate::net::ethernet::Mac;
use crate::virtio::memory::{Readable, gather};
use crate::virtio::spec::net;

/// Most addresses in each of the two tables; a guest that sets more gets every
/// frame of that kind.
pub const TABLE: usize = 64;

/// A filter, as the control queue has set it.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Nothing is filtered: no filtering feature was negotiated.
    pub active: bool,
    /// The guest's own address.
    pub mac: Mac,
    /// Every frame.
    pub promisc: bool,
    /// Every multicast frame.
    pub all_multicast: bool,
    /// Every unicast frame.
    pub all_unicast: bool,
    /// No multicast frame.
    pub no_multicast: bool,
    /// No unicast frame.
    pub no_unicast: bool,
    /// No broadcast frame.
    pub no_broadcast: bool,
    /// Further unicast addresses.
    pub unicast: Vec<Mac>,
    /// Multicast addresses.
    pub multicast: Vec<Mac>,
    /// The guest has set more unicast addresses than we hold.
    pub unicast_overflow: bool,
    /// The guest has set more multicast addresses than we hold.
    pub multicast_overflow: bool,
    /// The VLANs that may pass, a bit each; `None`: all may.
    pub vlans: Option<Box<[u64; 64]>>,
}

impl Filter {
    /// The filter of a device after a reset, with these features negotiated: a
    /// driver that says nothing gets every frame, as with QEMU, but for VLANs.
    pub fn after_reset(mac: Mac, features: u64) -> Self {
        let has = |bit| features & bit != 0;
        let vlans = has(net::F_CTRL_VLAN).then(|| Box::new([0; 64]));
        Self {
            active: has(net::F_CTRL_RX) || vlans.is_some(),
            mac,
            promisc: true,
            vlans,
            ..Self::default()
        }
    }

    /// Whether the guest wants the frame that begins with these parts.
    #[inline]
    pub fn passes<'m>(&self, parts: impl Iterator<Item = Readable<'m>>) -> bool {
        !self.active || self.passes_start(parts)
    }

    fn passes_start<'m>(&self, parts: impl Iterator<Item = Readable<'m>>) -> bool {
        // The addresses, the EtherType and, behind it, a VLAN tag if any.
        let mut start = [0; 16];
        gather(parts, &mut start);
        let [a, b, c, d, e, f, ..] = start;
        let vlan = match start {
            [.., 0x81, 0x00, high, low] => Some(u16::from_be_bytes([high, low]) & 0xfff),
            _ => None,
        };
        self.passes_vlan(vlan) && self.passes_address(Mac([a, b, c, d, e, f]))
    }

    fn passes_address(&self, to: Mac) -> bool {
        if self.promisc {
            true
        } else if to.is_broadcast() {
            !self.no_broadcast
        } else if to.is_multicast() {
            !self.no_multicast
                && (self.all_multicast || self.multicast_overflow || self.multicast.contains(&to))
        } else {
            !self.no_unicast
                && (self.all_unicast
                    || self.unicast_overflow
                    || to == self.mac
                    || self.unicast.contains(&to))
        }
    }

    /// An untagged frame passes; a tagged one if its VLAN does.
    fn passes_vlan(&self, vlan: Option<u16>) -> bool {
        let (Some(vlans), Some(vlan)) = (&self.vlans, vlan) else {
            return true;
        };
        let vlan = usize::from(vlan);
        vlans[vlan / 64] >> (vlan % 64) & 1 == 1
    }

    /// Lets a VLAN through, or no longer.
    pub fn set_vlan(&mut self, vlan: u16, pass: bool) {
        if let Some(vlans) = &mut self.vlans {
            let vlan = usize::from(vlan & 0xfff);
            let bit = 1 << (vlan % 64);
            if pass {
                vlans[vlan / 64] |= bit;
            } else {
                vlans[vlan / 64] &= !bit;
            }
        }
    }
}
