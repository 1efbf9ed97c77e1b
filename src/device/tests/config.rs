//! The whole device as a front end sees it: features, configuration space,
//! status, reset.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::backend::{AttachError, Unconnected, Vale};
use crate::device::{CONFIG_LEN, Device, DeviceError, DeviceOptions};
use crate::net::ethernet::Mac;
use crate::netmap::vale::Switch;
use crate::virtio::spec::{feature, net, status};
use crate::worker::{Polling, Workers};

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

fn options(mtu: Option<u16>) -> DeviceOptions {
    DeviceOptions {
        name: "test".into(),
        mac: MAC,
        mtu,
        pairs: 2,
        link: true,
    }
}

fn with_device(mtu: Option<u16>, test: impl FnOnce(&Device)) {
    let workers = Workers::start(1, Polling::default()).unwrap();
    let device = Device::new(options(mtu), Arc::new(Unconnected), &workers).unwrap();
    test(&device);
}

fn config(device: &Device) -> [u8; CONFIG_LEN] {
    let mut raw = [0; CONFIG_LEN];
    device.read_config(0, &mut raw).unwrap();
    raw
}

/// 2.4.1: readable before any feature is accepted.
#[test]
fn the_configuration_space_says_what_the_device_is() {
    with_device(Some(9000), |device| {
        let raw = config(device);
        assert_eq!(raw[..6], MAC.0);
        assert_eq!(raw[6..], [1, 0, 2, 0, 0x28, 0x23]);
        let mut part = [0; 2];
        device.read_config(10, &mut part).unwrap();
        assert_eq!(u16::from_le_bytes(part), 9000);
        for (offset, len) in [(11, 2), (12, 1), (0, 13), (u32::MAX, 1)] {
            let mut into = vec![0; len];
            assert!(
                device.read_config(offset, &mut into).is_err(),
                "{offset} {len}"
            );
        }
    });
}

/// The reference's `assert` on a write across the MAC's end is an error here.
#[test]
fn only_the_address_may_be_written_and_not_across_its_end() {
    with_device(None, |device| {
        device.write_config(4, &[8, 9], false).unwrap();
        assert_eq!(config(device)[..6], [2, 0, 0, 0, 8, 9]);
        for (offset, len) in [(5, 2), (6, 1), (0, 7), (u32::MAX, 1)] {
            assert!(device.write_config(offset, &vec![0; len], true).is_err());
        }
        assert_eq!(config(device)[..6], [2, 0, 0, 0, 8, 9]);
        // With the control command for it, and for any modern driver, the field
        // is read-only (5.1.4.2), but to a migration.
        let by_command = net::F_CTRL_VQ | net::F_CTRL_MAC_ADDR;
        for features in [by_command, feature::VERSION_1] {
            device.set_features(features).unwrap();
            assert!(device.write_config(5, &[10], false).is_err());
        }
        assert_eq!(config(device)[..6], [2, 0, 0, 0, 8, 9]);
        device.write_config(5, &[10], true).unwrap();
        assert_eq!(config(device)[..6], [2, 0, 0, 0, 8, 10]);
        device.reset();
        assert_eq!(config(device)[..6], MAC.0);
    });
}

/// 2.2.1 and 6.1.
#[test]
fn features_are_a_fixed_offer_of_which_any_part_may_be_taken() {
    with_device(None, |device| {
        let offer = device.features();
        assert_ne!(offer & feature::VERSION_1, 0);
        device.set_features(offer).unwrap();
        assert_eq!(device.features(), offer);
        device.set_features(0).unwrap();
        let odd = feature::VERSION_1 | 1 << 50;
        assert!(
            matches!(device.set_features(odd), Err(DeviceError::Features(bit)) if bit == 1 << 50)
        );
        device.disconnect();
        assert_eq!(device.features(), offer);
    });
}

#[test]
fn an_mtu_that_disagrees_is_refused_and_one_that_is_news_is_told() {
    with_device(Some(1400), |device| {
        device.set_mtu(1400).unwrap();
        let error = device.set_mtu(9000).unwrap_err();
        assert!(matches!(
            error,
            DeviceError::Mtu {
                wanted: 9000,
                ours: 1400
            }
        ));
    });
    with_device(None, |device| {
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        device.set_config_listener(Some(Box::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        })));
        device.set_mtu(9000).unwrap();
        device.set_mtu(9000).unwrap();
        device.set_link(true);
        assert_eq!(told.load(Ordering::SeqCst), 1);
        device.set_link(false);
        assert_eq!(told.load(Ordering::SeqCst), 2);
        assert_eq!(config(device)[6..], [0, 0, 2, 0, 0x28, 0x23]);
        assert!(matches!(device.set_mtu(67), Err(DeviceError::MtuRange(67))));
        // The next front end has its own.
        device.disconnect();
        assert_eq!(config(device)[10..], 1500_u16.to_le_bytes());
    });
}

/// 5.1.4.1: an offered MTU is at least 68.
#[test]
fn a_small_mtu_is_kept_but_not_offered() {
    for (mtu, offered) in [(46, false), (67, false), (68, true), (65535, true)] {
        with_device(Some(mtu), |device| {
            assert_eq!(device.features() & net::F_MTU != 0, offered, "{mtu}");
            assert_eq!(config(device)[10..], mtu.to_le_bytes());
        });
    }
}

/// 2.1.2 and 2.4.2.
#[test]
fn a_reset_forgets_features_and_status() {
    with_device(None, |device| {
        device.set_features(device.features()).unwrap();
        let ready = status::FEATURES_OK | status::DRIVER_OK;
        device.set_status(ready).unwrap();
        assert_eq!(device.status(), ready);
        device.set_status(0).unwrap();
        assert_eq!((device.status(), device.acked_features()), (0, 0));
        device.set_status(status::DRIVER_OK).unwrap();
        device.set_features(feature::VERSION_1).unwrap();
        assert!(device.set_status(status::DRIVER_OK).is_err());
    });
}

#[test]
fn queues_that_do_not_exist_are_refused() {
    with_device(None, |device| {
        assert_eq!((device.queue_pairs(), device.vrings()), (2, 5));
        for index in [5, 256, usize::MAX] {
            assert!(matches!(
                device.set_vring_size(index, 256),
                Err(DeviceError::NoSuchQueue { queues: 5, .. })
            ));
        }
    });
}

#[test]
fn two_devices_of_one_address_are_refused_on_one_switch_only() {
    let workers = Workers::start(1, Polling::default()).unwrap();
    let switches = ["vale0", "vale1"].map(|name| Arc::new(Switch::new(name)));
    let make = |switch: &Arc<Switch>, port| {
        let backend = Arc::new(Vale::new(Arc::clone(switch), port));
        Device::new(options(None), backend, &workers)
    };
    let first = make(&switches[0], "a").unwrap();
    let second = make(&switches[0], "b").err();
    assert_eq!(
        second,
        Some(AttachError::DuplicateMac(MAC, "vale0:a".into()))
    );
    let other = make(&switches[1], "b").unwrap();
    drop((first, other));
    assert_eq!(switches[0].port_count(), 0, "a device takes its port along");
    make(&switches[0], "b").unwrap();
}
