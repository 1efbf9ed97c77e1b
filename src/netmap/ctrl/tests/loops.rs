//! Sync loops: what is checked before one starts, and how it ends.

use super::options::{block, exclusive};
use super::*;
use crate::netmap::abi::option::*;
use crate::netmap::kloop::{Plan, Running};
use crate::netmap::sync::Pointers;

const EINVAL: u32 = Errno::EINVAL as u32;

fn start(client: &mut Client, sleep_us: u32, options: u64) -> Result<(), Errno> {
    let body = LoopBody { sleep_us, pad1: 0 };
    let asked = client.ask_with(NETMAP_REQ_SYNC_KLOOP_START, "", &body, options);
    asked.map(|_| ())
}

fn stop(client: &mut Client) -> Result<(), Errno> {
    let asked = client.ask(NETMAP_REQ_SYNC_KLOOP_STOP, "", &[0u8; 0]);
    asked.map(|_| ())
}

/// A client with both rings of `vale0:a` and a block, which takes descriptors.
fn client(core: &Arc<Netmap>) -> (Client, SharedBlock) {
    let mut client = Client::new(core);
    let (option, block) = block(&mut client, 2);
    let bound = client.ask_with(NETMAP_REQ_REGISTER, "vale0:a", &exclusive(), option);
    bound.unwrap();
    client.memory.handed = Some(Vec::new());
    (client, block)
}

/// What came along with the last answer, if anything did.
fn handed(client: &mut Client) -> Option<OwnedFd> {
    client.memory.handed.as_mut().unwrap().pop()
}

fn mode(client: &mut Client, mode: u32, next: u64) -> u64 {
    let mode = LoopMode { mode, pad: 0 };
    let memory = &mut client.memory;
    memory.option(NETMAP_REQ_OPT_SYNC_KLOOP_MODE, &mode, next)
}

fn events(client: &mut Client, ioeventfds: &[i32]) -> u64 {
    let header = OptionHeader {
        nro_reqtype: NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS,
        nro_status: 777,
        nro_size: 24 + ioeventfds.len() as u64 * 8,
        ..OptionHeader::default()
    };
    let mut bytes = header.as_bytes().to_vec();
    for ioeventfd in ioeventfds.iter().copied() {
        let entry = EventDescriptors {
            ioeventfd,
            irqfd: -1,
        };
        bytes.extend(entry.as_bytes());
    }
    client.memory.put(bytes.as_slice())
}

#[test]
fn loops_are_checked() {
    let core = core();
    let mut client = Client::new(&core);
    assert_eq!(start(&mut client, 1_000_001, 0), Err(Errno::EINVAL));
    assert_eq!(start(&mut client, 0, 0), Err(Errno::ENXIO));
    assert_eq!(stop(&mut client), Err(Errno::ENXIO));
    let bound = client.ask(NETMAP_REQ_REGISTER, "vale0:a", &exclusive());
    bound.unwrap();
    assert_eq!(start(&mut client, 0, 0), Err(Errno::EINVAL), "no block");
    let at = Pointers::default();
    let sync = |client: &Client, ring| client.control.sync_ring(Direction::Tx, ring, at);
    assert_eq!(sync(&client, 0), Err(Errno::EINVAL));
    assert_eq!(client.control.listen(), Err(Errno::EINVAL));
    let (option, _) = block(&mut client, 2);
    let nothing = [0u8; 0];
    let enabled = client.ask_with(NETMAP_REQ_CSB_ENABLE, "", &nothing, option);
    enabled.unwrap();
    assert!(sync(&client, 0).is_ok());
    assert_eq!(sync(&client, 1), Err(Errno::EINVAL), "no such ring");
    assert_eq!(client.control.listen(), Ok(()));
    let wrong = mode(&mut client, 4, 0);
    assert_eq!(start(&mut client, 0, wrong), Err(Errno::EINVAL));
    assert_eq!(client.memory.status(wrong), EINVAL);
    for count in [1, 3] {
        let events = events(&mut client, &vec![-1; count]);
        assert_eq!(start(&mut client, 0, events), Err(Errno::EINVAL));
        assert_eq!(client.memory.status(events), EINVAL, "{count}");
    }
    // All is in order, and nobody here to run it.
    assert_eq!(start(&mut client, 0, 0), Err(Errno::EOPNOTSUPP));
    assert_eq!(start(&mut client, 0, 0), Err(Errno::EOPNOTSUPP));
}

#[test]
fn who_starts_gets_what_the_loop_needs() {
    let core = core();
    let (mut client, block) = client(&core);
    assert_eq!(start(&mut client, 500, 0), Ok(()));
    let running = Running::new(handed(&mut client).unwrap()).unwrap();
    let plan = Plan {
        atok: block.csb_atok,
        ktoa: block.csb_ktoa,
        tx_rings: 1,
        rx_rings: 1,
        tx_slots: 1024,
        rx_slots: 1024,
        sleep_us: 500,
        mode: 0,
    };
    assert_eq!(running.job().plan, plan);
    assert!(running.job().events.is_empty());
}

#[cfg(target_os = "linux")]
#[test]
fn descriptors_and_mode_go_along() {
    let core = core();
    let (mut client, _) = client(&core);
    for wrong in [1, 2, 3] {
        // A ring that is synced when its client says so alone must be told of.
        let missing = events(&mut client, &[7, -1]);
        let mode = mode(&mut client, wrong, missing);
        assert_eq!(start(&mut client, 0, mode), Err(Errno::EINVAL));
        assert_eq!(client.memory.status(missing), EINVAL);
        assert_eq!(client.memory.status(mode), 0);
    }
    let both = events(&mut client, &[7, 8]);
    let mode = mode(&mut client, 3, both);
    assert_eq!(start(&mut client, 0, mode), Ok(()));
    for option in [both, mode] {
        assert_eq!(client.memory.status(option), 0);
    }
    let running = Running::new(handed(&mut client).unwrap()).unwrap();
    assert_eq!(running.job().plan.mode, 3);
    let ioeventfds: Vec<_> = running.job().events.iter().map(|e| e.ioeventfd).collect();
    assert_eq!(ioeventfds, [7, 8]);
}

/// FreeBSD's kernel has no events for its loop: the status says so, and there
/// is none, and no error.
#[cfg(not(target_os = "linux"))]
#[test]
fn descriptors_are_not_supported() {
    let core = core();
    let (mut client, _) = client(&core);
    let both = events(&mut client, &[-1, -1]);
    assert_eq!(start(&mut client, 0, both), Ok(()));
    assert_eq!(client.memory.status(both), Errno::EOPNOTSUPP as u32);
    assert!(handed(&mut client).is_none());
}

#[test]
fn one_loop_at_a_time_until_it_has_ended() {
    let core = core();
    let (mut client, _) = client(&core);
    assert_eq!(start(&mut client, 0, 0), Ok(()));
    let first = handed(&mut client).unwrap();
    assert_eq!(start(&mut client, 0, 0), Err(Errno::EBUSY));
    let (option, _) = block(&mut client, 2);
    let nothing = [0u8; 0];
    let enabled = client.ask_with(NETMAP_REQ_CSB_ENABLE, "", &nothing, option);
    assert_eq!(enabled.err(), Some(Errno::EBUSY));
    assert_eq!(client.memory.status(option), Errno::EBUSY as u32);
    // It was stopped, and has not ended yet.
    assert_eq!(stop(&mut client), Ok(()));
    assert!(handed(&mut client).is_some(), "to wait for");
    assert_eq!(start(&mut client, 0, 0), Err(Errno::EBUSY));
    // Who runs it died.
    drop(first);
    assert_eq!(start(&mut client, 0, 0), Ok(()));
    let second = handed(&mut client).unwrap();
    let child = second.try_clone().unwrap();
    drop(Running::new(second).unwrap());
    assert_eq!(start(&mut client, 0, 0), Ok(()), "though a child has it");
    drop(child);
}

#[test]
fn a_loop_that_was_stopped_before_it_began() {
    let core = core();
    let (mut client, _) = client(&core);
    assert_eq!(stop(&mut client), Ok(()));
    assert!(handed(&mut client).is_none(), "nothing to wait for");
    assert_eq!(start(&mut client, 0, 0), Ok(()));
    assert!(handed(&mut client).is_none(), "nothing to run");
    assert_eq!(start(&mut client, 0, 0), Ok(()));
    assert!(handed(&mut client).is_some());
}

#[test]
fn pointers_that_are_wrong_begin_the_ring_anew() {
    let core = core();
    let (client, _) = client(&core);
    let sync = |head, cur| {
        let at = Pointers { head, cur };
        let synced = client.control.sync_ring(Direction::Tx, 0, at);
        synced.map(|hardware| (hardware.hwcur, hardware.hwtail))
    };
    assert_eq!(sync(5, 6), Ok((5, 4)));
    for (head, cur) in [(6, 5), (1024, 1024), (u32::MAX, 0), (5, 1023 + 5)] {
        assert_eq!(sync(head, cur), Err(Errno::EINVAL), "{head} {cur}");
    }
    assert_eq!(sync(9, 9), Ok((9, 8)));
    let registration = client.control.registration().unwrap();
    let kring = registration.kring(Direction::Tx, 0).unwrap();
    let view = kring.view();
    assert_eq!(view.tail(), 4, "what the ring was left with, not a sync's");
}
