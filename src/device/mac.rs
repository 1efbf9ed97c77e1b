//! The address of a device that was given none.

use md5::{Digest, Md5};

use crate::net::ethernet::Mac;

/// The prefix that the FreeBSD Foundation has for bhyve's devices.
const OUI: [u8; 3] = [0x58, 0x9c, 0xfc];

/// The address that bhyve makes: its prefix, and three bytes of an MD5 over
/// slot, function and the machine's name. The same machine has the same
/// address after every start.
pub fn generate(slot: u8, func: u8, name: &str) -> Mac {
    let digest = Md5::digest(format!("{slot}-{func}-{name}"));
    let [a, b, c] = OUI;
    Mac([a, b, c, digest[0], digest[1], digest[2]])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As md5sum says of `2-0-guest` and so on.
    #[test]
    fn addresses_are_those_of_the_reference() {
        for (slot, func, name, mac) in [
            (2, 0, "guest", "58:9c:fc:11:f8:25"),
            (31, 7, "vm", "58:9c:fc:a6:ac:3a"),
            (0, 0, "/run/vm1.sock", "58:9c:fc:c3:99:18"),
        ] {
            assert_eq!(generate(slot, func, name).to_string(), mac);
        }
    }
}
