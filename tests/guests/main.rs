//! Linux's own driver: guests under qemu, on vtnetd's devices.
//!
//! Each test has a vtnetd of its own, which is the same process from the
//! test's beginning to its end, whatever happens to the guests.

mod bench;
mod frames;
#[cfg(target_os = "linux")]
mod host;
mod idle;
mod judge;
mod lifecycle;
mod mtu;
#[cfg(target_os = "linux")]
mod tap;

use std::process::ExitCode;

use bed::{Test, equipment, run_tests};

fn main() -> ExitCode {
    let equipment = equipment::guests()
        .map_err(|missing| missing.while_doing("guests"))
        .map(|_| ());
    let tests = vec![
        Test::new("link_is_up_and_offloads_are_offered", lifecycle::offered),
        Test::new("driver_is_loaded_again", lifecycle::driver_loaded_again),
        Test::new("guest_boots_again", lifecycle::booted_again),
        Test::new("rings_are_packed", lifecycle::packed),
        Test::new(
            "rings_keep_their_length",
            lifecycle::rings_keep_their_length,
        ),
        Test::new("guest_is_killed", lifecycle::killed),
        Test::new("front_end_mtu_works_end_to_end", mtu::of_the_front_end),
        Test::new("mtu_that_disagrees_is_refused", mtu::refused),
        Test::new("segmentation_beside_none", frames::segmentation_beside_none),
        Test::new("third_that_negotiated_nothing", frames::third_without),
        Test::new("two_pairs_of_queues", frames::two_pairs),
        Test::new("idle_guests_cost_nothing", idle::two_guests),
    ];
    #[cfg(target_os = "linux")]
    let tests = tests.into_iter().chain(tap::tests()).collect();
    run_tests(equipment, tests)
}
