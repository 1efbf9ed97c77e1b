//! Feature bits by name, for people.

use super::spec::{feature, net};

/// Every feature that can be named on the command line.
const NAMES: [(&str, u64); 34] = [
    ("csum", net::F_CSUM),
    ("guest-csum", net::F_GUEST_CSUM),
    ("ctrl-guest-offloads", net::F_CTRL_GUEST_OFFLOADS),
    ("mtu", net::F_MTU),
    ("mac", net::F_MAC),
    ("guest-tso4", net::F_GUEST_TSO4),
    ("guest-tso6", net::F_GUEST_TSO6),
    ("guest-ecn", net::F_GUEST_ECN),
    ("guest-ufo", net::F_GUEST_UFO),
    ("guest-uso4", net::F_GUEST_USO4),
    ("guest-uso6", net::F_GUEST_USO6),
    ("host-tso4", net::F_HOST_TSO4),
    ("host-tso6", net::F_HOST_TSO6),
    ("host-ecn", net::F_HOST_ECN),
    ("host-ufo", net::F_HOST_UFO),
    ("host-uso", net::F_HOST_USO),
    ("mergeable", net::F_MRG_RXBUF),
    ("status", net::F_STATUS),
    ("ctrl-vq", net::F_CTRL_VQ),
    ("ctrl-rx", net::F_CTRL_RX),
    ("ctrl-vlan", net::F_CTRL_VLAN),
    ("ctrl-rx-extra", net::F_CTRL_RX_EXTRA),
    ("ctrl-mac-addr", net::F_CTRL_MAC_ADDR),
    ("guest-announce", net::F_GUEST_ANNOUNCE),
    ("mq", net::F_MQ),
    ("notify-on-empty", feature::NOTIFY_ON_EMPTY),
    ("any-layout", feature::ANY_LAYOUT),
    ("indirect", feature::INDIRECT_DESC),
    ("event-idx", feature::EVENT_IDX),
    ("protocol-features", feature::VHOST_USER_PROTOCOL_FEATURES),
    ("version-1", feature::VERSION_1),
    ("ring-packed", feature::RING_PACKED),
    ("in-order", feature::IN_ORDER),
    ("ring-reset", feature::RING_RESET),
];

/// The bit of a name.
pub fn bit(name: &str) -> Option<u64> {
    let found = NAMES.iter().find(|(known, _)| *known == name);
    found.map(|(_, bit)| *bit)
}

/// All names, to be listed.
pub fn names() -> String {
    NAMES.map(|(name, _)| name).join(", ")
}

/// The names of bits, with commas between; those without one as a number.
pub fn describe(features: u64) -> String {
    let mut rest = features;
    let mut said = Vec::new();
    for (name, bit) in NAMES {
        if features & bit != 0 {
            said.push(name.to_owned());
            rest &= !bit;
        }
    }
    if rest != 0 {
        said.push(format!("{rest:#x}"));
    }
    said.join(",")
}
