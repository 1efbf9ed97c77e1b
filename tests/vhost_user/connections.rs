//! How connections begin and end, and that nothing is left of them.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use vtnetd::frontend::vhost_user::EndpointSpec;
use vtnetd::frontend::vhost_user::message::{Header, Request};
use vtnetd::virtio::spec::feature;

use crate::bed::{Bed, Plan, at_rest, mappings};
use crate::front::{Front, Memory};

/// Everything that a front end gives: memory, rings, a channel.
fn give_everything(front: &mut Front) -> UnixStream {
    front.hello();
    front.accept(feature::VERSION_1);
    let memory = Memory::new();
    front.share(&memory);
    for ring in 0..4 {
        let notifiers = front.start(ring, &memory);
        front.signal(Request::SetVringErr, ring, Some(notifiers.kick.as_fd()));
        front.enable(ring, true);
    }
    let (ours, theirs) = UnixStream::pair().unwrap();
    front.done(Request::SetBackendReqFd, &[], &[theirs.as_fd()]);
    ours
}

#[test]
fn a_front_end_that_goes_leaves_nothing_behind() {
    let bed = Bed::new();
    let before = at_rest(&bed, None);
    assert_eq!(before.1, 0);
    for _ in 0..50 {
        let mut front = bed.connect();
        let channel = give_everything(&mut front);
        assert_eq!(mappings(), 1);
        drop(front);
        // Closed by the back end, after it has forgotten all else.
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut &channel, &mut rest).unwrap();
    }
    at_rest(&bed, Some(before));
}

#[test]
fn one_front_end_at_a_time() {
    let bed = Bed::new();
    let mut first = bed.connect();
    give_everything(&mut first);
    for _ in 0..20 {
        bed.connect().expect_close();
    }
    assert!(first.is_alive());
    drop(first);
    // The next is welcome at once, however soon it comes.
    for _ in 0..200 {
        let mut next = bed.connect();
        assert!(next.is_alive());
    }
}

/// The bytes of a conversation, and where its messages end.
fn conversation(memory: &Memory) -> Vec<(Vec<u8>, bool)> {
    let message = |request, payload: &[u8], fd| {
        let header = Front::header(request, payload).to_bytes();
        ([&header[..], payload].concat(), fd)
    };
    let all = vtnetd::frontend::vhost_user::PROTOCOL_FEATURES.to_ne_bytes();
    let features = feature::VERSION_1 | feature::VHOST_USER_PROTOCOL_FEATURES;
    let addresses = memory.addresses(1).to_bytes();
    vec![
        message(Request::SetOwner, &[], false),
        message(Request::SetProtocolFeatures, &all, false),
        message(Request::SetFeatures, &features.to_ne_bytes(), false),
        message(Request::SetMemTable, &memory.table(), true),
        message(Request::SetVringNum, &Front::state(1, 64), false),
        message(Request::SetVringBase, &Front::state(1, 0), false),
        message(Request::SetVringAddr, &addresses, false),
        message(Request::SetVringCall, &1u64.to_ne_bytes(), true),
        message(Request::SetVringKick, &1u64.to_ne_bytes(), true),
        message(Request::SetVringEnable, &Front::state(1, 1), false),
        message(Request::GetVringBase, &Front::state(1, 0), false),
    ]
}

#[test]
fn a_connection_may_end_at_any_byte() {
    let bed = Bed::new();
    let memory = Memory::new();
    let event = crate::front::eventfd();
    let before = at_rest(&bed, None);
    let messages = conversation(&memory);
    for last in 0..messages.len() {
        for cut in 0..messages[last].0.len() {
            let mut front = bed.connect();
            for (at, (raw, with_fd)) in messages[..=last].iter().enumerate() {
                let raw = if at == last { &raw[..cut] } else { &raw[..] };
                let is_memory = raw.first() == Some(&(Request::SetMemTable as u8));
                let fd = if is_memory {
                    memory.file.as_fd()
                } else {
                    event.as_fd()
                };
                send_raw(&front, raw, with_fd.then_some(fd));
            }
            if last % 3 == 0 {
                // Some are cut after all was handled, some while it is.
                let _ = front.channel.try_receive();
            }
        }
    }
    at_rest(&bed, Some(before));
}

/// Sends bytes, the first of them with a descriptor.
fn send_raw(front: &Front, raw: &[u8], fd: Option<std::os::fd::BorrowedFd<'_>>) {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use std::os::fd::AsRawFd;
    if raw.is_empty() {
        return;
    }
    let fds: Vec<_> = fd.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let rights = if fds.is_empty() { &[][..] } else { &rights };
    let socket = front.channel.as_fd().as_raw_fd();
    let iov = [std::io::IoSlice::new(raw)];
    let sent = sendmsg::<()>(socket, &iov, rights, MsgFlags::MSG_NOSIGNAL, None).unwrap();
    assert_eq!(sent, raw.len());
}

#[test]
fn a_message_in_parts_keeps_nobody_waiting() {
    let bed = Bed::new();
    let memory = Memory::new();
    let mut front = bed.connect();
    front.hello();
    let header = Front::header(Request::SetVringNum, &Front::state(0, 64)).to_bytes();
    send_raw(&front, &header[..7], None);
    // The loop turns on meanwhile: it turns others away.
    bed.connect().expect_close();
    send_raw(&front, &header[7..], None);
    bed.connect().expect_close();
    send_raw(&front, &Front::state(0, 64), None);
    assert!(front.is_alive());
    front.share(&memory);
    assert_eq!(mappings(), 1);
}

#[test]
fn many_messages_at_once_are_all_handled() {
    let bed = Bed::new();
    let mut front = bed.connect();
    let one = Front::header(Request::GetQueueNum, &[]).to_bytes();
    let many = one.repeat(100);
    send_raw(&front, &many, None);
    for _ in 0..100 {
        let message = front.channel.receive().unwrap();
        assert_eq!(message.header.request, Request::GetQueueNum as u32);
    }
    assert!(front.is_alive());
}

#[test]
fn garbage_ends_the_connection() {
    let bed = Bed::new();
    let before = at_rest(&bed, None);
    for byte in [0, 0xff, 0x55] {
        let front = bed.connect();
        send_raw(&front, &[byte; 5000], None);
        front.expect_close();
    }
    at_rest(&bed, Some(before));
}

#[test]
fn memory_that_is_truncated_ends_the_connection_and_the_next_works() {
    let bed = Bed::new();
    let before = at_rest(&bed, None);
    for _ in 0..3 {
        let mut front = bed.connect();
        front.hello();
        front.accept(feature::VERSION_1);
        let memory = Memory::new();
        front.share(&memory);
        let ring = front.start(1, &memory);
        front.enable(1, true);
        memory.file.set_len(0).unwrap();
        ring.kick.write(1).unwrap();
        front.expect_close();
        drop((memory, ring));
        at_rest(&bed, Some(before));
    }
}

#[test]
fn an_inherited_connection_is_the_only_one() {
    let mut ours = None;
    let mut bed = Bed::at(Plan::default(), |_| {
        let (one, theirs) = UnixStream::pair().unwrap();
        ours = Some(one);
        EndpointSpec::Fd(theirs.into())
    });
    let mut front = Front::new(ours.unwrap());
    give_everything(&mut front);
    drop(front);
    bed.join();
    assert_eq!(mappings(), 0);
}

#[test]
fn an_inherited_listener_serves_one_after_the_other() {
    let mut bed = Bed::at(Plan::default(), |path| {
        EndpointSpec::Fd(OwnedFd::from(UnixListener::bind(path).unwrap()))
    });
    for _ in 0..3 {
        give_everything(&mut bed.connect());
    }
    assert!(!bed.stop());
    assert!(bed.directory.socket().exists(), "its name is not ours");
}

#[test]
fn a_client_connects_again_and_again() {
    // First there is nobody, then a front end that comes and goes.
    let bed = Bed::at(Plan::default(), |path| {
        EndpointSpec::Connect(Box::new(path.to_owned()))
    });
    let listener = UnixListener::bind(bed.directory.socket()).unwrap();
    let mut features = Vec::new();
    for _ in 0..4 {
        let (stream, _) = listener.accept().unwrap();
        let mut front = Front::new(stream);
        give_everything(&mut front);
        features.push(front.sync());
        assert_eq!(mappings(), 1);
    }
    assert!(features.iter().all(|seen| *seen == features[0]));
    // A front end that closes every connection at once does no harm.
    for _ in 0..3 {
        drop(listener.accept().unwrap());
    }
    let (stream, _) = listener.accept().unwrap();
    assert!(Front::new(stream).is_alive());
    assert_eq!(mappings(), 0);
}

#[test]
fn a_client_goes_on_when_the_name_is_gone_for_a_while() {
    let bed = Bed::at(Plan::default(), |path| {
        EndpointSpec::Connect(Box::new(path.to_owned()))
    });
    let path = bed.directory.socket();
    for _ in 0..2 {
        let listener = UnixListener::bind(&path).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let mut front = Front::new(stream);
        assert!(front.is_alive());
        // Gone, name and all; then stale; then back.
        drop(listener);
        std::fs::remove_file(&path).unwrap();
        drop(front);
        drop(UnixListener::bind(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_slow_writer_is_heard_out() {
    let bed = Bed::new();
    let header = Header::request(Request::GetFeatures, 0).to_bytes();
    let mut stream = UnixStream::connect(bed.directory.socket()).unwrap();
    for byte in header {
        stream.write_all(&[byte]).unwrap();
        std::thread::yield_now();
    }
    let mut front = Front::new(stream);
    let message = front.channel.receive().unwrap();
    assert_eq!(message.payload.len(), 8);
}
