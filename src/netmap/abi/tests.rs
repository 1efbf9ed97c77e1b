//! The layout, against numbers taken from a C compiler's `offsetof` and
//! `sizeof` over `<net/netmap.h>` of API 14 on amd64.

use std::mem::{align_of, offset_of, size_of};

use super::*;

#[test]
fn slot() {
    assert_eq!(size_of::<Slot>(), 16);
    assert_eq!(offset_of!(Slot, buf_idx), 0);
    assert_eq!(offset_of!(Slot, len), 4);
    assert_eq!(offset_of!(Slot, flags), 6);
    assert_eq!(offset_of!(Slot, ptr), 8);
}

#[test]
fn ring() {
    assert_eq!(size_of::<Ring>(), 256);
    assert_eq!(align_of::<Ring>(), 128);
    assert_eq!(offset_of!(Ring, buf_ofs), 0);
    assert_eq!(offset_of!(Ring, num_slots), 8);
    assert_eq!(offset_of!(Ring, nr_buf_size), 12);
    assert_eq!(offset_of!(Ring, ringid), 16);
    assert_eq!(offset_of!(Ring, dir), 18);
    assert_eq!(offset_of!(Ring, head), 20);
    assert_eq!(offset_of!(Ring, cur), 24);
    assert_eq!(offset_of!(Ring, tail), 28);
    assert_eq!(offset_of!(Ring, flags), 32);
    assert_eq!(offset_of!(Ring, ts), 40);
    assert_eq!(offset_of!(Ring, offset_mask), 56);
    assert_eq!(offset_of!(Ring, buf_align), 64);
    assert_eq!(offset_of!(Ring, sem), 128);
}

#[test]
fn interface() {
    assert_eq!(size_of::<Interface>(), 56);
    assert_eq!(offset_of!(Interface, ni_name), 0);
    assert_eq!(offset_of!(Interface, ni_version), 16);
    assert_eq!(offset_of!(Interface, ni_flags), 20);
    assert_eq!(offset_of!(Interface, ni_tx_rings), 24);
    assert_eq!(offset_of!(Interface, ni_rx_rings), 28);
    assert_eq!(offset_of!(Interface, ni_bufs_head), 32);
    assert_eq!(offset_of!(Interface, ni_host_tx_rings), 36);
    assert_eq!(offset_of!(Interface, ni_host_rx_rings), 40);
    assert_eq!(offset_of!(Interface, ni_spare1), 44);
}

#[test]
fn request_header() {
    assert_eq!(size_of::<RequestHeader>(), 88);
    assert_eq!(offset_of!(RequestHeader, nr_version), 0);
    assert_eq!(offset_of!(RequestHeader, nr_reqtype), 2);
    assert_eq!(offset_of!(RequestHeader, nr_reserved), 4);
    assert_eq!(offset_of!(RequestHeader, nr_name), 8);
    assert_eq!(offset_of!(RequestHeader, nr_options), 72);
    assert_eq!(offset_of!(RequestHeader, nr_body), 80);
}

#[test]
fn register_body() {
    assert_eq!(size_of::<RegisterBody>(), 56);
    assert_eq!(offset_of!(RegisterBody, nr_offset), 0);
    assert_eq!(offset_of!(RegisterBody, nr_memsize), 8);
    assert_eq!(offset_of!(RegisterBody, nr_tx_slots), 16);
    assert_eq!(offset_of!(RegisterBody, nr_rx_slots), 20);
    assert_eq!(offset_of!(RegisterBody, nr_tx_rings), 24);
    assert_eq!(offset_of!(RegisterBody, nr_rx_rings), 26);
    assert_eq!(offset_of!(RegisterBody, nr_host_tx_rings), 28);
    assert_eq!(offset_of!(RegisterBody, nr_host_rx_rings), 30);
    assert_eq!(offset_of!(RegisterBody, nr_mem_id), 32);
    assert_eq!(offset_of!(RegisterBody, nr_ringid), 34);
    assert_eq!(offset_of!(RegisterBody, nr_mode), 36);
    assert_eq!(offset_of!(RegisterBody, nr_extra_bufs), 40);
    assert_eq!(offset_of!(RegisterBody, nr_flags), 48);
}
