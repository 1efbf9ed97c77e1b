//! Requests that nobody would make: whatever is in them, the answer is an
//! errno, and nothing stays behind.

use proptest::prelude::*;

use super::*;

const NAMES: &[&str] = &[
    "",
    "vale0:a",
    "vale0:b",
    "vale0:a{1",
    "vale0:a}1",
    "vale0:b{1",
    "p{1",
    "per0",
    "vale0:per0",
    "vale1:per0",
    "eth0",
    "vale0",
    "vale0:",
    "{",
    "vale0:a{",
    "vale0:a{1{2",
    "\u{1}",
    "vale0:\u{e9}",
];

#[derive(Clone, Debug)]
enum Step {
    /// A request with a body of any bytes, and options.
    Ask {
        client: usize,
        reqtype: u16,
        name: usize,
        small: Vec<u8>,
        options: Vec<(u32, u64, Vec<u8>)>,
    },
    Sync(usize),
    Poll(usize),
    Reopen(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let option = (
        0..8u32,
        prop_oneof![Just(0), 0..5000u64, any::<u64>()],
        bytes(),
    );
    let ask = (
        0..3usize,
        0..17u16,
        0..NAMES.len(),
        bytes(),
        proptest::collection::vec(option, 0..3),
    );
    let ask = ask.prop_map(|(client, reqtype, name, small, options)| Step::Ask {
        client,
        reqtype,
        name,
        small,
        options,
    });
    let step = prop_oneof![
        8 => ask,
        1 => (0..3usize).prop_map(Step::Sync),
        1 => (0..3usize).prop_map(Step::Poll),
        1 => (0..3usize).prop_map(Step::Reopen),
    ];
    proptest::collection::vec(step, 0..40)
}

/// Mostly zeros and small numbers, as sensible requests have.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![6 => Just(0u8), 3 => 0..8u8, 1 => any::<u8>()];
    proptest::collection::vec(byte, 128)
}

proptest! {
    #[test]
    fn nothing_fails_and_nothing_stays(steps in steps()) {
        let core = core();
        // Everything is held in the global region only by who asks for it.
        let region = core.regions().find(1).unwrap();
        let before = region.free();
        let mut clients: Vec<Client> = (0..3).map(|_| Client::new(&core)).collect();
        for step in steps {
            match step {
                Step::Ask { client, reqtype, name, small, options } => {
                    let Client { control, memory } = &mut clients[client];
                    memory.used = 0;
                    let list = options.into_iter().fold(0, |next, (kind, size, payload)| {
                        let at = memory.option(kind, &(), next);
                        let header = OptionHeader { nro_size: size, ..memory.get(at) };
                        memory.copy_out(at, header.as_bytes()).unwrap();
                        memory.copy_out(at + 24, &payload[..40]).unwrap();
                        memory.used += 64;
                        at
                    });
                    let size = body_size(reqtype);
                    let body = memory.put(&small[..size.min(128)]);
                    let mut request = RequestHeader {
                        nr_options: list,
                        nr_body: if size == 0 { 0 } else { body },
                        ..header(reqtype, NAMES[name])
                    };
                    let _ = control.request(&mut request, memory);
                }
                Step::Sync(client) => {
                    let _ = clients[client].control.sync(Direction::Tx);
                    let _ = clients[client].control.sync(Direction::Rx);
                }
                Step::Poll(client) => {
                    clients[client].control.poll(PollFlags::all(), true);
                }
                Step::Reopen(client) => clients[client] = Client::new(&core),
            }
        }
        drop(clients);
        // Only persistent ports may be left, and they can be deleted.
        let _ = core.detach_interface("vale0:per0");
        let _ = core.detach_interface("vale1:per0");
        for name in NAMES {
            let _ = core.delete_interface(name);
        }
        prop_assert_eq!(core.enumerate(0, 0), None);
        prop_assert_eq!(region.free(), before);
    }

    /// Bytes as a header: none of them is followed anywhere.
    #[test]
    fn any_bytes_as_a_request(bytes in proptest::collection::vec(any::<u8>(), 88), version in 13..17u16) {
        let mut client = Client::new(&core());
        let mut header = RequestHeader::read_from_bytes(&bytes).unwrap();
        header.nr_version = version;
        header.nr_reserved = 0;
        let _ = client.control.request(&mut header, &mut client.memory);
        let at = client.memory.put(bytes.as_slice());
        for command in [NIOCCTRL, NIOCREGIF, NIOCGINFO, NIOCCONFIG] {
            let _ = client.control.ioctl(command, at, &mut client.memory);
        }
    }
}
