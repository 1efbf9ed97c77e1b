//! Who drives the device.

pub mod vhost_user;
