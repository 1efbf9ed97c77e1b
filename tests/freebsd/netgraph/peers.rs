//! Two vtgens on two devices of one vtnetd, with a node of the kernel between
//! them.

use std::time::Duration;

use bed::Process;

use super::bed::{Middle, count};
use crate::drive::Served;

/// More than a run takes on a machine that is emulated.
const LONG: Duration = Duration::from_secs(90);

/// One number of a summary in JSON: `field` of the object `object`.
fn number(json: &str, object: &str, field: &str) -> u64 {
    let (_, inside) = json.split_once(&format!("\"{object}\": {{")).unwrap();
    let (_, value) = inside.split_once(&format!("\"{field}\": ")).unwrap();
    let end = value.find([',', '}']).unwrap();
    value[..end].parse().unwrap()
}

/// Waits until a vtgen ends by itself, and returns its summary.
fn summary(mut vtgen: Process) -> String {
    let status = vtgen.wait(LONG).unwrap();
    let said = vtgen.output.since(0).concat();
    assert!(
        status.success(),
        "{status}: {said} {:?}",
        vtgen.errors.since(0)
    );
    said
}

/// Frames cross from one to the other: none is lost, none changes, and what
/// vtnetd counts is what they count. What comes before the receiver is ready
/// waits in its socket's buffer, and so does what comes while others have the
/// processor, so the sender is slow.
fn one_way(from: &str, to: &str, args: &[&str], len: u32) {
    let (frames, rate) = match len {
        ..=1514 => (1000, "--rate=1k"),
        _ => (200, "--rate=50"),
    };
    // The longest frames that vtgen has.
    let device = |hook| format!("{},mtu=65521", Middle::device(hook));
    let mut served = Served::start(&[device(from), device(to)]).unwrap();
    let (length, end) = (format!("--length={len}"), format!("--count={frames}"));
    let common = [args, &["--json", length.as_str(), end.as_str()]].concat();
    // A frame that is lost would have it wait for good.
    let rx = [&common[..], &["--duration=60", "rx"]].concat();
    let rx = served.vtgen(1, &rx).unwrap();
    let tx = [&common[..], &[rate, "tx"]].concat();
    let sent = summary(served.vtgen(0, &tx).unwrap());
    let received = summary(rx);
    let bytes = frames * u64::from(len);

    let rx = |field| number(&received, "rx", field);
    assert_eq!(rx("frames"), frames, "{received}");
    assert_eq!(rx("bytes"), bytes, "{received}");
    assert_eq!(rx("probes"), frames, "{received}");
    for none in ["lost", "late", "duplicate", "corrupt", "other"] {
        assert_eq!(rx(none), 0, "{none}: {received}");
    }
    assert_eq!(number(&sent, "tx", "frames"), frames, "{sent}");
    for (hook, queue) in [(from, "tx"), (to, "rx")] {
        let mut counted = |name| count(&mut served, hook, queue, name);
        assert_eq!(counted("frames"), frames, "{hook} {queue}");
        assert_eq!(counted("bytes"), bytes, "{hook} {queue}");
        assert_eq!(counted("dropped"), 0, "{hook} {queue}");
        assert_eq!(counted("too_long"), 0, "{hook} {queue}");
    }
}

fn two_vtgens(kind: &'static str) {
    let _middle = Middle::new(kind);
    one_way("link1", "link2", &[], 60);
    one_way("link2", "link1", &["--udp"], 1514);
    one_way(
        "link1",
        "link2",
        &["--no-mergeable", "--no-event-idx"],
        1514,
    );
    // Several receive buffers for one frame, and several pieces for one chain.
    one_way("link2", "link1", &["--piece=600", "--regions=3"], 9014);
    one_way("link1", "link2", &[], 65535);
    one_way("link2", "link1", &["--no-mergeable"], 65535);
}

pub fn two_vtgens_over_a_bridge() {
    two_vtgens("bridge");
}

pub fn two_vtgens_over_a_hub() {
    two_vtgens("hub");
}
