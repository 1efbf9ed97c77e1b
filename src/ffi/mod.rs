//! FreeBSD's own structures, numbers and functions, as `build.rs` finds them
//! in the headers that `wrapper.h` lists, and the inline functions of
//! `<net/netmap_user.h>` through `shim.c`. Raw: the back ends and the sandbox
//! wrap what they take from here.
//!
//! Ports are registered with `NIOCCTRL`, not with `nm_open`: that takes names
//! of up to 15 bytes only (`nmreq`), maps the memory in the process that opens,
//! and cannot say that it takes virtio-net headers (`NR_ACCEPT_VNET_HDR`).
//! `nm_open` is what the tests compare with.

#[allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    dead_code,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    clippy::missing_safety_doc,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    rustdoc::all
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/freebsd.rs"));
}

pub use bindings::*;
