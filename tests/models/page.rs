//! The sync page of a channel: the service and one of its clients, each of
//! which sleeps when the other has nothing for it. The loops are those of the
//! service's worker and of the preload object.

use std::sync::Arc;

use vtnetd::netmap::port::Direction;
use vtnetd::netmap::service::wire::page::{Client, Operation, Outcome, Service};
use vtnetd::netmap::sync::Pointers;
use vtnetd::word::model::{Bell, explore, spawn};

/// Changes of threads that could have gone on, in one run of a model.
const CHANGES: usize = 3;

/// Request `number`: one that comes in more than one word.
pub fn operation(number: u32) -> Operation {
    Operation::Ring {
        direction: Direction::Tx,
        ring: 0,
        pointers: Pointers {
            head: number,
            cur: number,
        },
    }
}

fn outcome(number: u32) -> Outcome {
    Outcome {
        result: number,
        extra: u64::from(number) << 32,
    }
}

/// Waits for an answer, as the preload object does when it has looked long
/// enough.
pub fn wait(client: &Client, bell: &Bell) -> Outcome {
    loop {
        client.sleep();
        if let Some(outcome) = client.answer() {
            client.wake();
            return outcome;
        }
        bell.wait();
        client.wake();
    }
}

#[test]
fn requests_and_answers() {
    let (service, _fd) = Service::new().unwrap();
    let service = Arc::new(service);
    let model = move || {
        let mut client = service.share();
        service.set_awake(true);
        let (to_service, to_client) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
        let (page, own, theirs) = (
            Arc::clone(&service),
            Arc::clone(&to_service),
            Arc::clone(&to_client),
        );
        let worker = spawn(move || {
            let mut last = 0;
            loop {
                while let Some((number, asked)) = page.request(last) {
                    assert_eq!((number, asked), (last + 1, Some(operation(number))));
                    last = number;
                    if page.answer(number, outcome(number)) {
                        theirs.ring();
                    }
                }
                if last == 2 {
                    break;
                }
                page.set_awake(false);
                if page.request(last).is_none() {
                    own.wait();
                }
                page.set_awake(true);
            }
        });
        for number in 1..=2 {
            if client.ask(operation(number)) {
                to_service.ring();
            }
            assert_eq!(wait(&client, &to_client), outcome(number));
        }
        worker.join().unwrap();
    };
    explore(CHANGES, &[Arc::new(model)]);
}

/// What a client waits for comes twice.
#[test]
fn readiness() {
    let (service, _fd) = Service::new().unwrap();
    let service = Arc::new(service);
    let model = move || {
        let client = service.share();
        let bell = Arc::new(Bell::default());
        let (page, theirs) = (Arc::clone(&service), Arc::clone(&bell));
        let worker = spawn(move || {
            for _ in 0..2 {
                if page.ready() {
                    theirs.ring();
                }
            }
        });
        let mut seen = client.ready();
        while seen != 2 {
            client.sleep();
            if client.ready() == seen {
                bell.wait();
            }
            client.wake();
            seen = client.ready();
        }
        worker.join().unwrap();
    };
    explore(CHANGES, &[Arc::new(model)]);
}
