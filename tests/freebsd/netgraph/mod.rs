//! The netgraph back end on the kernel's netgraph(4): through ng_bridge(4) and
//! ng_hub(4), to other nodes and to the host's own stack.

mod bed;
mod frames;
mod life;
mod peers;

use ::bed::Test;
use ::bed::freebsd::module;

const TESTS: [(&str, fn()); 13] = [
    ("every_size_crosses_a_hub", frames::every_size_crosses_a_hub),
    (
        "every_size_crosses_a_bridge",
        frames::every_size_crosses_a_bridge,
    ),
    (
        "what_is_too_long_is_counted",
        frames::what_is_too_long_is_counted,
    ),
    (
        "a_full_receiver_costs_frames_only",
        frames::a_full_receiver_costs_frames_only,
    ),
    ("the_hosts_stack_answers", frames::the_hosts_stack_answers),
    ("two_vtgens_over_a_bridge", peers::two_vtgens_over_a_bridge),
    ("two_vtgens_over_a_hub", peers::two_vtgens_over_a_hub),
    (
        "a_node_that_is_shut_down_is_found_again",
        life::a_node_that_is_shut_down_is_found_again,
    ),
    ("a_hook_that_is_taken_away", life::a_hook_that_is_taken_away),
    (
        "a_hook_that_nobody_asked_for",
        life::a_hook_that_nobody_asked_for,
    ),
    ("what_cannot_be_had", life::what_cannot_be_had),
    (
        "two_hundred_processes_leave_no_node",
        life::two_hundred_processes_leave_no_node,
    ),
    (
        "many_devices_leave_nothing",
        life::many_devices_leave_nothing,
    ),
];

pub fn tests() -> Vec<Test> {
    let test = |(name, body): (&str, fn())| {
        Test::new(format!("netgraph::{name}"), move || {
            for kind in ["ng_socket", "ng_hub", "ng_bridge", "ng_eiface"] {
                module(kind)?;
            }
            body();
            Ok(())
        })
    };
    TESTS.into_iter().map(test).collect()
}
