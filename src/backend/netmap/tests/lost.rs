//! A port that goes away and comes back.

use std::sync::atomic::AtomicUsize;

use super::bed::{Client, Faulty, Ports, Sink, core, frame, send};
use super::*;
use crate::virtio::net_header::NetHeader;

#[test]
fn a_port_that_is_gone_is_noticed_and_had_again() {
    let core = core();
    let first = Faulty::new(&core, "vale0:a");
    let second = Faulty::new(&core, "vale0:b");
    let tries = Arc::new(AtomicUsize::new(0));
    let source = {
        let (first, second, tries) = (first.clone(), second.clone(), tries.clone());
        Ports(Box::new(move || {
            let port = match tries.fetch_add(1, Ordering::Relaxed) {
                0 => first.clone(),
                1 => return Err(OpenError::Absent("not there".to_owned())),
                _ => second.clone(),
            };
            Ok(Opening {
                ports: vec![port],
                fragments: Fragments::Several,
            })
        }))
    };
    let netmap = Netmap::open("netmap:em0", Box::new(source), 2).unwrap();
    netmap.set_features(FEATURES, 12).unwrap();
    netmap.set_active_pairs(2);
    let client = Client::new(&core, "vale0:c");
    assert!(netmap.can_be_lost());
    assert!(!netmap.is_lost());

    // Idle: nothing but the question shows it.
    first.destroy();
    assert!(netmap.is_lost());
    let plain = [(NetHeader::default(), frame(60))];
    assert_eq!(send(&netmap, 0, &plain).dropped, 1);
    assert_eq!(
        netmap.receive(0, &mut Sink::new(&[2048])),
        Received::Drained
    );
    assert!(matches!(netmap.recover(), Err(OpenError::Absent(_))));
    assert!(netmap.is_lost());

    client.send(&frame(61));
    netmap.recover().unwrap();
    assert!(!netmap.is_lost());
    // What the guest negotiated is in force again.
    assert_eq!(second.header_len().unwrap(), HeaderLen::Full);
    assert_eq!(send(&netmap, 1, &plain).frames, 1);
    assert_eq!(client.receive().last(), Some(&frame(60)));
    client.send(&frame(62));
    let mut sink = Sink::new(&[2048]);
    netmap.receive(0, &mut sink);
    assert_eq!(sink.plain(), [frame(62)]);
}

#[test]
fn a_batch_that_meets_it_is_dropped_and_counted() {
    let core = core();
    let port = Faulty::new(&core, "vale0:a");
    let netmap = port.open(1);
    port.destroy();
    let plain = [
        (NetHeader::default(), frame(60)),
        (NetHeader::default(), frame(61)),
    ];
    let sent = send(&netmap, 0, &plain);
    assert_eq!((sent.frames, sent.bytes, sent.dropped), (0, 0, 2));
    assert!(netmap.is_lost());
}
