use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::*;

const TOKEN: u64 = u64::MAX - 7;
const NOW: Option<Duration> = Some(Duration::ZERO);

/// Waits, and says what came, without looking at the order.
fn wait(poller: &Poller, timeout: Option<Duration>) -> Vec<Event> {
    let mut events = Events::new();
    poller.wait(&mut events, timeout).unwrap();
    assert_eq!(events.is_empty(), events.iter().count() == 0);
    events.iter().collect()
}

fn readable(poller: &Poller, timeout: Option<Duration>) -> Vec<u64> {
    let events = wait(poller, timeout);
    events
        .iter()
        .filter(|event| event.readable)
        .map(|event| event.token)
        .collect()
}

fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (ours, theirs)
}

#[test]
fn level_is_told_as_long_as_it_lasts() {
    let poller = Poller::new().unwrap();
    let (mut ours, mut theirs) = pair();
    poller.add(ours.as_fd(), TOKEN, Interest::READ).unwrap();
    assert!(wait(&poller, NOW).is_empty());

    theirs.write_all(b"ab").unwrap();
    let event = Event {
        token: TOKEN,
        readable: true,
        writable: false,
        hangup: false,
    };
    assert_eq!(wait(&poller, None), [event]);
    assert_eq!(wait(&poller, None), [event]);

    ours.read_exact(&mut [0; 2]).unwrap();
    assert!(wait(&poller, NOW).is_empty());
}

#[test]
fn edge_is_told_once_for_each_arrival() {
    let poller = Poller::new().unwrap();
    let (ours, mut theirs) = pair();
    poller
        .add(ours.as_fd(), TOKEN, Interest::READ_EDGE)
        .unwrap();
    for _ in 0..3 {
        theirs.write_all(b"a").unwrap();
        assert_eq!(readable(&poller, None), [TOKEN]);
        assert!(wait(&poller, NOW).is_empty());
    }
}

#[test]
fn what_is_ready_when_added_or_modified_is_told() {
    for interest in [Interest::READ, Interest::READ_EDGE] {
        let poller = Poller::new().unwrap();
        let (ours, mut theirs) = pair();
        theirs.write_all(b"a").unwrap();
        poller.add(ours.as_fd(), 1, interest).unwrap();
        assert_eq!(readable(&poller, None), [1]);
        poller.modify(ours.as_fd(), 2, interest).unwrap();
        assert_eq!(readable(&poller, None), [2]);
    }
}

#[test]
fn modify_changes_the_trigger_and_the_direction() {
    let poller = Poller::new().unwrap();
    let (ours, mut theirs) = pair();
    theirs.write_all(b"a").unwrap();
    poller.add(ours.as_fd(), 1, Interest::READ_EDGE).unwrap();
    assert_eq!(readable(&poller, None), [1]);
    assert!(wait(&poller, NOW).is_empty());

    poller.modify(ours.as_fd(), 1, Interest::READ).unwrap();
    assert_eq!(readable(&poller, None), [1]);
    assert_eq!(readable(&poller, None), [1]);

    poller.modify(ours.as_fd(), 1, Interest::WRITE).unwrap();
    let events = wait(&poller, None);
    assert!(events.iter().all(|event| event.writable && !event.readable));

    poller
        .modify(ours.as_fd(), 1, Interest::READ_WRITE)
        .unwrap();
    let events = wait(&poller, None);
    assert!(events.iter().any(|event| event.writable));
    assert!(events.iter().any(|event| event.readable));

    poller.modify(ours.as_fd(), 1, Interest::default()).unwrap();
    assert!(wait(&poller, NOW).is_empty());
}

#[test]
fn removed_is_not_told_of() {
    let poller = Poller::new().unwrap();
    let (ours, mut theirs) = pair();
    poller.add(ours.as_fd(), 1, Interest::READ).unwrap();
    poller.remove(ours.as_fd()).unwrap();
    theirs.write_all(b"a").unwrap();
    assert!(wait(&poller, NOW).is_empty());

    let again = poller.remove(ours.as_fd()).unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::NotFound);
    poller.add(ours.as_fd(), 2, Interest::READ).unwrap();
    assert_eq!(readable(&poller, None), [2]);
}

#[test]
fn hangup_is_told_and_what_was_sent_before_can_be_read() {
    for interest in [Interest::READ, Interest::READ_EDGE] {
        let poller = Poller::new().unwrap();
        let (mut ours, mut theirs) = pair();
        poller.add(ours.as_fd(), TOKEN, interest).unwrap();
        theirs.write_all(b"last").unwrap();
        drop(theirs);
        let events = wait(&poller, None);
        assert!(events.iter().any(|event| event.hangup && event.readable));
        let mut said = Vec::new();
        ours.read_to_end(&mut said).unwrap();
        assert_eq!(said, b"last");
    }
}

#[test]
fn half_a_hangup_is_one() {
    let poller = Poller::new().unwrap();
    let (ours, theirs) = pair();
    poller.add(ours.as_fd(), TOKEN, Interest::READ).unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    assert!(wait(&poller, None).iter().any(|event| event.hangup));
}

#[test]
#[cfg(target_os = "linux")]
fn what_cannot_be_watched_is_an_error() {
    let poller = Poller::new().unwrap();
    let (ours, _theirs) = pair();
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    let missing = poller.modify(ours.as_fd(), 1, Interest::READ);
    assert_eq!(kind(missing), io::ErrorKind::NotFound);
    poller.add(ours.as_fd(), 1, Interest::READ).unwrap();
    let twice = poller.add(ours.as_fd(), 1, Interest::READ);
    assert_eq!(kind(twice), io::ErrorKind::AlreadyExists);
    let file = std::fs::File::open("Cargo.toml").unwrap();
    let file = poller.add(file.as_fd(), 2, Interest::READ);
    assert_eq!(kind(file), io::ErrorKind::PermissionDenied);
}

#[test]
fn more_events_than_room_come_with_the_next_wait() {
    let poller = Poller::new().unwrap();
    let wakers: Vec<_> = (0..EVENTS + 3).map(|_| Waker::new().unwrap()).collect();
    for (token, waker) in (0..).zip(&wakers) {
        poller
            .add(waker.as_fd(), token, Interest::READ_EDGE)
            .unwrap();
        waker.wake();
    }
    let mut told = readable(&poller, None);
    assert_eq!(told.len(), EVENTS);
    told.extend(readable(&poller, None));
    told.sort_unstable();
    assert!(told.into_iter().eq(0..wakers.len() as u64));
}

#[test]
fn a_timeout_ends_the_wait_and_not_before() {
    let poller = Poller::new().unwrap();
    let waker = Waker::new().unwrap();
    poller.add(waker.as_fd(), 1, Interest::READ).unwrap();
    let timeout = Duration::from_micros(1500);
    let begun = std::time::Instant::now();
    assert!(wait(&poller, Some(timeout)).is_empty());
    assert!(begun.elapsed() >= timeout);

    waker.wake();
    assert_eq!(readable(&poller, Some(Duration::MAX)), [1]);
}

#[test]
fn wake_ups_add_up_and_are_drained_together() {
    let poller = Poller::new().unwrap();
    let waker = Waker::new().unwrap();
    poller.add(waker.as_fd(), 1, Interest::READ).unwrap();
    // More than a pipe holds: waking never blocks.
    for _ in 0..100_000 {
        waker.wake();
    }
    assert_eq!(readable(&poller, None), [1]);
    waker.drain();
    assert!(wait(&poller, NOW).is_empty());
    waker.drain();

    nix::unistd::write(waker.notify_fd(), &1u64.to_ne_bytes()).unwrap();
    assert_eq!(readable(&poller, None), [1]);
}

/// Each number is published and then woken for; the other side drains and then
/// looks. Would one wake-up be lost, both would wait for ever.
#[test]
fn no_wake_up_is_lost() {
    const ROUNDS: u64 = 20_000;
    for interest in [Interest::READ, Interest::READ_EDGE] {
        let there = Arc::new((Waker::new().unwrap(), AtomicU64::new(0)));
        let back = Arc::new((Waker::new().unwrap(), AtomicU64::new(0)));
        let echo = {
            let (there, back) = (Arc::clone(&there), Arc::clone(&back));
            thread::spawn(move || {
                let poller = Poller::new().unwrap();
                poller.add(there.0.as_fd(), 1, interest).unwrap();
                let mut seen = 0;
                while seen < ROUNDS {
                    assert_eq!(readable(&poller, None), [1]);
                    there.0.drain();
                    seen = there.1.load(Ordering::Acquire);
                    back.1.store(seen, Ordering::Release);
                    back.0.wake();
                }
            })
        };
        let poller = Poller::new().unwrap();
        poller.add(back.0.as_fd(), 1, interest).unwrap();
        for round in 1..=ROUNDS {
            there.1.store(round, Ordering::Release);
            there.0.wake();
            while back.1.load(Ordering::Acquire) < round {
                assert_eq!(readable(&poller, None), [1]);
                back.0.drain();
            }
        }
        echo.join().unwrap();
    }
}

#[test]
fn descriptors_come_and_go_while_another_thread_waits() {
    let poller = Arc::new(Poller::new().unwrap());
    let waiter = {
        let poller = Arc::clone(&poller);
        thread::spawn(move || readable(&poller, None))
    };
    let waker = Waker::new().unwrap();
    waker.wake();
    poller.add(waker.as_fd(), 9, Interest::READ).unwrap();
    assert_eq!(waiter.join().unwrap(), [9]);
}

/// In a thread of its own, which alone has the signals blocked and to which
/// alone they are sent, so that the other tests are left in peace.
#[test]
fn signals_arrive_in_the_loop() {
    use nix::sys::signal::{SigHandler, signal};

    // Whoever runs the tests may have it ignored.
    // SAFETY: no function of ours is called by the signal.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigDfl).unwrap() };
    let receiver = thread::spawn(|| {
        let signals = Signals::new().unwrap();
        let poller = Poller::new().unwrap();
        poller.add(signals.as_fd(), 5, Interest::READ).unwrap();
        assert!(wait(&poller, NOW).is_empty());
        assert_eq!(signals.next(), None);
        for signal in SIGNALS {
            nix::sys::signal::raise(signal).unwrap();
            assert_eq!(readable(&poller, None), [5]);
            assert_eq!(signals.next(), Some(signal));
            assert_eq!(signals.next(), None);
            assert!(wait(&poller, NOW).is_empty());
        }
    });
    receiver.join().unwrap();
}

extern "C" fn nothing(_: libc::c_int) {}

#[test]
fn a_handled_signal_ends_the_wait_without_an_error() {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, sigaction};
    use std::os::unix::thread::JoinHandleExt;

    let action = SigAction::new(
        SigHandler::Handler(nothing),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing at all.
    unsafe { sigaction(Signal::SIGUSR2, &action).unwrap() };
    let waiter = thread::spawn(|| {
        // Events that a wait before has left there.
        let (poller, waker) = (Poller::new().unwrap(), Waker::new().unwrap());
        poller.add(waker.as_fd(), 1, Interest::READ_EDGE).unwrap();
        waker.wake();
        let mut events = Events::new();
        while events.is_empty() {
            poller.wait(&mut events, None).unwrap();
        }
        poller.wait(&mut events, None).unwrap();
        events.is_empty()
    });
    // Again and again, as the first may come before the wait.
    while !waiter.is_finished() {
        // SAFETY: the thread has not been joined, so its handle is valid.
        let status = unsafe { libc::pthread_kill(waiter.as_pthread_t(), libc::SIGUSR2) };
        assert_eq!(status, 0);
        thread::yield_now();
    }
    assert!(waiter.join().unwrap());
}
