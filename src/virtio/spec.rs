//! Constants of the virtio specification, version 1.3.
//!
//! Names follow the specification (and Linux's `virtio_net.h`), feature bits
//! as masks.

/// Section 5.1.3: feature bits of a network device.
pub mod net {
    /// The device accepts frames whose checksum is still to be filled in.
    pub const F_CSUM: u64 = 1 << 0;
    /// The driver accepts such frames.
    pub const F_GUEST_CSUM: u64 = 1 << 1;
    /// The driver can change its offloads while running.
    pub const F_CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
    /// The device says its maximum MTU.
    pub const F_MTU: u64 = 1 << 3;
    /// The device has a MAC address.
    pub const F_MAC: u64 = 1 << 5;
    /// The driver accepts TCP segments over IPv4 that are longer than the MTU.
    pub const F_GUEST_TSO4: u64 = 1 << 7;
    /// The driver accepts TCP segments over IPv6 that are longer than the MTU.
    pub const F_GUEST_TSO6: u64 = 1 << 8;
    /// The driver accepts TCP segments with ECN that are longer than the MTU.
    pub const F_GUEST_ECN: u64 = 1 << 9;
    /// The driver accepts UDP datagrams to be fragmented.
    pub const F_GUEST_UFO: u64 = 1 << 10;
    /// The device accepts TCP segments over IPv4 that are longer than the MTU.
    pub const F_HOST_TSO4: u64 = 1 << 11;
    /// The device accepts TCP segments over IPv6 that are longer than the MTU.
    pub const F_HOST_TSO6: u64 = 1 << 12;
    /// The device accepts TCP segments with ECN that are longer than the MTU.
    pub const F_HOST_ECN: u64 = 1 << 13;
    /// The device accepts UDP datagrams to be fragmented.
    pub const F_HOST_UFO: u64 = 1 << 14;
    /// A frame may be spread over several receive chains.
    pub const F_MRG_RXBUF: u64 = 1 << 15;
    /// The configuration's status field is valid.
    pub const F_STATUS: u64 = 1 << 16;
    /// There is a control queue.
    pub const F_CTRL_VQ: u64 = 1 << 17;
    /// The control queue takes the receive-mode class.
    pub const F_CTRL_RX: u64 = 1 << 18;
    /// The control queue takes VLAN filters.
    pub const F_CTRL_VLAN: u64 = 1 << 19;
    /// The control queue takes the extra receive modes.
    pub const F_CTRL_RX_EXTRA: u64 = 1 << 20;
    /// The driver announces itself when asked.
    pub const F_GUEST_ANNOUNCE: u64 = 1 << 21;
    /// Several queue pairs.
    pub const F_MQ: u64 = 1 << 22;
    /// The control queue sets the MAC address.
    pub const F_CTRL_MAC_ADDR: u64 = 1 << 23;
    /// The driver accepts several UDP datagrams over IPv4 in one frame.
    pub const F_GUEST_USO4: u64 = 1 << 54;
    /// The driver accepts several UDP datagrams over IPv6 in one frame.
    pub const F_GUEST_USO6: u64 = 1 << 55;
    /// The device accepts several UDP datagrams in one frame.
    pub const F_HOST_USO: u64 = 1 << 56;

    /// What lets a driver receive [`F_HOST_USO`]'s frames of either IP version.
    pub const GUEST_USO: u64 = F_GUEST_USO4 | F_GUEST_USO6;
    /// Offloads that the driver may send to us.
    pub const HOST_OFFLOADS: u64 =
        F_CSUM | F_HOST_TSO4 | F_HOST_TSO6 | F_HOST_ECN | F_HOST_UFO | F_HOST_USO;
    /// What makes the driver receive frames that are longer than the MTU.
    pub const GUEST_SEGMENTED: u64 = F_GUEST_TSO4 | F_GUEST_TSO6 | F_GUEST_UFO | GUEST_USO;
    /// Offloads that we may send to the driver.
    pub const GUEST_OFFLOADS: u64 = F_GUEST_CSUM | F_GUEST_ECN | GUEST_SEGMENTED;
}

/// Section 6: feature bits that belong to no device type.
pub mod feature {
    /// Legacy: interrupt when the ring runs empty even when suppressed.
    pub const NOTIFY_ON_EMPTY: u64 = 1 << 24;
    /// Legacy: any split of header and data over descriptors.
    pub const ANY_LAYOUT: u64 = 1 << 27;
    /// Descriptors may point to tables of descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Notifications are asked for by index.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// vhost-user's own bit, not virtio's: protocol features can be negotiated.
    pub const VHOST_USER_PROTOCOL_FEATURES: u64 = 1 << 30;
    /// The driver speaks virtio 1.0 or later, not legacy.
    pub const VERSION_1: u64 = 1 << 32;
    /// Queues are packed.
    pub const RING_PACKED: u64 = 1 << 34;
    /// Chains are used in the order in which they were made available.
    pub const IN_ORDER: u64 = 1 << 35;
    /// A queue can be reset while the others run.
    pub const RING_RESET: u64 = 1 << 40;
}

/// Section 5.1.4: the configuration's status field.
pub mod net_status {
    /// The link is up.
    pub const LINK_UP: u16 = 1;
    /// The driver is asked to announce itself.
    pub const ANNOUNCE: u16 = 2;
}

/// Section 2.1: the device status field.
pub mod status {
    /// The driver is ready to drive the device.
    pub const DRIVER_OK: u8 = 4;
    /// The driver accepted the features.
    pub const FEATURES_OK: u8 = 8;
    /// The device met an error it cannot recover from without a reset.
    pub const NEEDS_RESET: u8 = 64;
    /// The driver has given up.
    pub const FAILED: u8 = 128;
}

/// Section 5.1.6.5: classes, commands and answers of the control queue.
pub mod ctrl {
    /// Answer: done.
    pub const OK: u8 = 0;
    /// Answer: refused.
    pub const ERR: u8 = 1;

    /// Class: receive modes.
    pub const RX: u8 = 0;
    /// Class: MAC addresses.
    pub const MAC: u8 = 1;
    /// Class: VLAN filter.
    pub const VLAN: u8 = 2;
    /// Class: announcement.
    pub const ANNOUNCE: u8 = 3;
    /// Class: number of queue pairs.
    pub const MQ: u8 = 4;
    /// Class: offloads towards the guest.
    pub const GUEST_OFFLOADS: u8 = 5;

    /// RX: every frame.
    pub const RX_PROMISC: u8 = 0;
    /// RX: every multicast frame.
    pub const RX_ALLMULTI: u8 = 1;
    /// RX: every unicast frame.
    pub const RX_ALLUNI: u8 = 2;
    /// RX: no multicast frame.
    pub const RX_NOMULTI: u8 = 3;
    /// RX: no unicast frame.
    pub const RX_NOUNI: u8 = 4;
    /// RX: no broadcast frame.
    pub const RX_NOBCAST: u8 = 5;
    /// MAC: two tables, unicast then multicast.
    pub const MAC_TABLE_SET: u8 = 0;
    /// MAC: the device's own address.
    pub const MAC_ADDR_SET: u8 = 1;
    /// VLAN: let one through.
    pub const VLAN_ADD: u8 = 0;
    /// VLAN: no longer let one through.
    pub const VLAN_DEL: u8 = 1;
    /// ANNOUNCE: the driver has announced itself.
    pub const ANNOUNCE_ACK: u8 = 0;
    /// MQ: how many pairs to use.
    pub const MQ_VQ_PAIRS_SET: u8 = 0;
    /// GUEST_OFFLOADS: the new set.
    pub const GUEST_OFFLOADS_SET: u8 = 0;
}

/// Sections 2.7.5 and 2.8.13: descriptor flags.
pub mod desc {
    /// The chain goes on in `next`.
    pub const F_NEXT: u16 = 1;
    /// The device writes this buffer.
    pub const F_WRITE: u16 = 2;
    /// The buffer is a table of descriptors.
    pub const F_INDIRECT: u16 = 4;
    /// Packed: the driver's wrap counter when it made this available.
    pub const F_AVAIL: u16 = 1 << 7;
    /// Packed: the device's wrap counter when it used this.
    pub const F_USED: u16 = 1 << 15;
}

/// Section 2.8.10: what an event suppression structure of a packed ring asks for.
pub mod event {
    /// To be told of every change.
    pub const ENABLE: u16 = 0;
    /// To be told of none.
    pub const DISABLE: u16 = 1;
    /// To be told when a descriptor is passed (`EVENT_IDX`).
    pub const DESC: u16 = 2;
    /// The bits that say so; the others are reserved.
    pub const MASK: u16 = 3;
}

/// Section 2.7.6: the driver asks for no interrupt.
pub const AVAIL_F_NO_INTERRUPT: u16 = 1;
/// Section 2.7.8: the device asks for no kick.
pub const USED_F_NO_NOTIFY: u16 = 1;
/// Section 2.7: the largest queue.
pub const MAX_QUEUE_SIZE: u16 = 32768;
/// Section 5.1.6.5.5: most pairs that a driver can ask for.
pub const MAX_QUEUE_PAIRS: u16 = 0x8000;
