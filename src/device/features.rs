//! Which features a device offers, and which of the driver's answers count.

use super::DeviceOptions;
use crate::virtio::spec::{feature, net};

/// Offered whatever the back end is.
///
/// `VIRTIO_F_RING_RESET` is not, though a vring may be stopped and set up anew
/// at any time: QEMU offers it to the guest if we do, and then tells only its
/// own back ends of a reset. The driver would begin anew in a ring in which we
/// go on.
const ALWAYS: u64 = net::F_MAC
    | net::F_STATUS
    | net::F_MRG_RXBUF
    | net::F_CTRL_VQ
    | net::F_CTRL_RX
    | net::F_CTRL_RX_EXTRA
    | net::F_CTRL_VLAN
    | net::F_CTRL_MAC_ADDR
    | net::F_GUEST_ANNOUNCE
    | feature::NOTIFY_ON_EMPTY
    | feature::ANY_LAYOUT
    | feature::INDIRECT_DESC
    | feature::EVENT_IDX
    | feature::VERSION_1
    | feature::RING_PACKED
    | feature::IN_ORDER;

/// Each feature with the ones of which it needs one (5.1.3.1). What the control
/// queue carries is left out: a VMM that keeps the control queue acknowledges
/// multiqueue or announcements without it.
const NEEDS: &[(u64, u64)] = &[
    (net::F_GUEST_TSO4, net::F_GUEST_CSUM),
    (net::F_GUEST_TSO6, net::F_GUEST_CSUM),
    (net::F_GUEST_UFO, net::F_GUEST_CSUM),
    (net::F_GUEST_USO4, net::F_GUEST_CSUM),
    (net::F_GUEST_USO6, net::F_GUEST_CSUM),
    (net::F_GUEST_ECN, net::F_GUEST_TSO4 | net::F_GUEST_TSO6),
    (net::F_HOST_TSO4, net::F_CSUM),
    (net::F_HOST_TSO6, net::F_CSUM),
    (net::F_HOST_UFO, net::F_CSUM),
    (net::F_HOST_USO, net::F_CSUM),
    (net::F_HOST_ECN, net::F_HOST_TSO4 | net::F_HOST_TSO6),
    (net::F_CTRL_RX, net::F_CTRL_VQ),
    (net::F_CTRL_RX_EXTRA, net::F_CTRL_VQ),
    (net::F_CTRL_VLAN, net::F_CTRL_VQ),
    (net::F_CTRL_MAC_ADDR, net::F_CTRL_VQ),
    (net::F_CTRL_GUEST_OFFLOADS, net::F_CTRL_VQ),
    (feature::RING_PACKED, feature::VERSION_1),
    (feature::IN_ORDER, feature::VERSION_1),
];

/// The smallest MTU that `VIRTIO_NET_F_MTU` can say (5.1.4.1).
pub const MIN_MTU: u16 = 68;

/// What a device with these options on a back end with these offloads offers.
pub fn offered(options: &DeviceOptions, backend: u64) -> u64 {
    let mut features = ALWAYS | backend & (net::HOST_OFFLOADS | net::GUEST_OFFLOADS);
    // A front end may say its MTU later, and the features must stay the same.
    // One below 68 cannot be offered (5.1.4.1).
    if options.mtu.is_none_or(|mtu| mtu >= MIN_MTU) {
        features |= net::F_MTU;
    }
    if options.pairs > 1 {
        features |= net::F_MQ;
    }
    if backend & net::GUEST_OFFLOADS != 0 {
        features |= net::F_CTRL_GUEST_OFFLOADS;
    }
    features
}

/// What counts of what the driver has accepted: a feature without what it needs
/// does not.
pub fn effective(acked: u64) -> u64 {
    NEEDS.iter().fold(acked, |features, (feature, needs)| {
        if features & needs == 0 {
            features & !feature
        } else {
            features
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: u16) -> DeviceOptions {
        DeviceOptions {
            name: "test".into(),
            mac: crate::net::ethernet::Mac([2; 6]),
            mtu: None,
            pairs,
            link: true,
        }
    }

    #[test]
    fn whatever_is_offered_can_be_accepted_whole() {
        for pairs in [1, 2] {
            for backend in [0, net::HOST_OFFLOADS | net::GUEST_OFFLOADS] {
                let all = offered(&options(pairs), backend);
                assert_eq!(effective(all), all);
            }
        }
    }

    #[test]
    fn a_feature_without_what_it_needs_does_not_count() {
        assert_eq!(effective(net::F_HOST_TSO4 | net::F_HOST_ECN), 0);
        assert_eq!(effective(net::F_CTRL_RX | net::F_CTRL_VLAN), 0);
        assert_eq!(effective(net::F_HOST_USO | net::GUEST_USO), 0);
        assert_eq!(
            effective(net::F_HOST_USO | net::F_GUEST_CSUM),
            net::F_GUEST_CSUM
        );
        assert_eq!(effective(net::GUEST_USO | net::F_CSUM), net::F_CSUM);
        let kept = net::F_CSUM | net::F_HOST_USO | net::F_GUEST_CSUM | net::F_GUEST_USO6;
        assert_eq!(effective(kept), kept);
        let kept = net::F_MQ | net::F_GUEST_ANNOUNCE;
        assert_eq!(effective(kept), kept);
    }

    #[test]
    fn multiqueue_is_offered_only_with_several_pairs() {
        assert_eq!(offered(&options(1), 0) & net::F_MQ, 0);
        assert_eq!(offered(&options(2), 0) & net::F_MQ, net::F_MQ);
    }
}
