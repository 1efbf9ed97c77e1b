//! The device's configuration space (section 5.1.4).

use crate::virtio::spec::net;

/// Fields of the configuration space; those that no feature makes valid are
/// absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetConfig {
    /// `F_MAC`: the device's address.
    pub mac: Option<[u8; 6]>,
    /// `F_STATUS`: bits of `virtio::spec::net_status`.
    pub status: Option<u16>,
    /// `F_MQ`: most queue pairs.
    pub max_pairs: Option<u16>,
    /// `F_MTU`: largest MTU in bytes.
    pub mtu: Option<u16>,
}

impl NetConfig {
    /// Bytes of the configuration space that are read.
    pub const LEN: usize = 12;

    /// Reads the fields that `features` make valid; absent where `raw` ends.
    pub fn from_bytes(raw: &[u8], features: u64) -> Self {
        let le16 = |at: usize, bit: u64| {
            let bytes = raw.get(at..at + 2)?.try_into().ok()?;
            (features & bit != 0).then(|| u16::from_le_bytes(bytes))
        };
        let mac = raw.get(..6).and_then(|mac| mac.try_into().ok());
        Self {
            mac: mac.filter(|_| features & net::F_MAC != 0),
            status: le16(6, net::F_STATUS),
            max_pairs: le16(8, net::F_MQ),
            mtu: le16(10, net::F_MTU),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_fields_are_read() {
        let raw = [1, 2, 3, 4, 5, 6, 1, 0, 8, 0, 0x28, 0x23];
        let all = net::F_MAC | net::F_STATUS | net::F_MQ | net::F_MTU;
        let config = NetConfig::from_bytes(&raw, all);
        assert_eq!(
            config,
            NetConfig {
                mac: Some([1, 2, 3, 4, 5, 6]),
                status: Some(1),
                max_pairs: Some(8),
                mtu: Some(9000),
            }
        );
        assert_eq!(NetConfig::from_bytes(&raw, 0), NetConfig::default());
        assert_eq!(NetConfig::from_bytes(&raw[..11], all).mtu, None);
    }
}
