//! Messages in parts, descriptors in any number, peers that vanish.

use std::io::Write;

use nix::sys::stat::fstat;

use super::super::message::{MAX_FDS, Request};
use super::*;

fn pair() -> (Channel, Channel) {
    let (one, other) = UnixStream::pair().unwrap();
    (Channel::new(one), Channel::new(other))
}

fn header(size: u32) -> Header {
    Header::request(Request::SetFeatures, size)
}

/// A pipe whose read end sees the end of file once every copy is closed.
fn pipe() -> (OwnedFd, OwnedFd) {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_CLOEXEC).unwrap()
}

fn all_closed(read_end: &OwnedFd) -> bool {
    nix::unistd::read(read_end, &mut [0]) == Ok(0)
}

#[test]
fn a_message_with_descriptors_goes_through_unchanged() {
    let (mut back, front) = pair();
    assert!(back.try_receive().unwrap().is_none());
    let (read, write) = pipe();
    front
        .send(header(3), b"abc", &[write.as_fd(), read.as_fd()])
        .unwrap();
    front.send(header(0), b"", &[]).unwrap();
    let message = back.try_receive().unwrap().unwrap();
    assert_eq!(message.header, header(3));
    assert_eq!(message.payload, b"abc");
    let inode = |fd: &OwnedFd| fstat(fd).unwrap().st_ino;
    assert_eq!(message.fds.len(), 2);
    assert_eq!(inode(&message.fds[1]), inode(&read));
    for fd in &message.fds {
        let flags = nix::fcntl::fcntl(fd, nix::fcntl::F_GETFD).unwrap();
        assert_eq!(flags, libc::FD_CLOEXEC);
    }
    // The next message has none of them.
    let message = back.receive().unwrap();
    assert!(message.payload.is_empty() && message.fds.is_empty());
    assert!(back.try_receive().unwrap().is_none());
}

#[test]
fn a_message_may_arrive_byte_by_byte() {
    let (mut back, mut front) = pair();
    let raw = [&header(5).to_bytes()[..], b"hello"].concat();
    for _ in 0..2 {
        for (at, byte) in raw.iter().enumerate() {
            front.socket.write_all(&[*byte]).unwrap();
            let message = back.try_receive().unwrap();
            assert_eq!(message.is_some(), at + 1 == raw.len());
        }
    }
}

#[test]
fn descriptors_of_all_parts_belong_to_the_message() {
    let (mut back, front) = pair();
    let raw = header(4).to_bytes();
    let (_read, write) = pipe();
    front
        .write_some(&raw, b"ab", 0, &[write.as_fd()], MsgFlags::empty())
        .unwrap();
    assert!(back.try_receive().unwrap().is_none());
    front
        .write_some(b"cd", b"", 0, &[write.as_fd()], MsgFlags::empty())
        .unwrap();
    let message = back.try_receive().unwrap().unwrap();
    assert_eq!((&message.payload[..], message.fds.len()), (&b"abcd"[..], 2));
}

#[test]
fn surplus_descriptors_are_an_error_and_all_are_closed() {
    for count in [MAX_FDS + 1, 32, 253] {
        let (mut back, front) = pair();
        let (read, write) = pipe();
        let fds: Vec<_> = (0..count).map(|_| write.as_fd()).collect();
        front.send(header(0), b"", &fds).unwrap();
        assert_eq!(back.try_receive().unwrap_err(), ChannelError::TooManyFds);
        drop((back, write));
        assert!(all_closed(&read), "{count} descriptors");
    }
}

/// Linux hands over what fits; FreeBSD then hands over none.
#[cfg(target_os = "linux")]
#[test]
fn descriptors_beside_lost_ones_are_owned() {
    let (back, front) = pair();
    let (read, write) = pipe();
    front.send(header(0), b"", &[write.as_fd(); 5]).unwrap();
    let mut control = nix::cmsg_space!([RawFd; 2]);
    let mut room = [0; 12];
    let received = receive(
        back.socket.as_fd(),
        &mut room,
        &mut control,
        MsgFlags::empty(),
    )
    .unwrap();
    assert_eq!(
        (received.bytes, received.fds.len(), received.lost),
        (12, 2, true)
    );
    drop((received, write));
    assert!(all_closed(&read));
}

#[test]
fn descriptors_of_an_unfinished_message_are_closed_with_the_channel() {
    let (mut back, front) = pair();
    let (read, write) = pipe();
    front.send(header(1), b"", &[write.as_fd()]).unwrap();
    drop(write);
    assert!(back.try_receive().unwrap().is_none());
    assert!(!all_closed(&read));
    drop(back);
    assert!(all_closed(&read));
}

#[test]
fn a_vanished_peer_is_told_apart_by_where_it_vanished() {
    let (mut back, front) = pair();
    front.send(header(0), b"", &[]).unwrap();
    drop(front);
    assert!(back.try_receive().unwrap().is_some());
    assert_eq!(back.try_receive().unwrap_err(), ChannelError::Closed);

    for (size, payload) in [(1, &b""[..]), (9, b"12345678")] {
        let (mut back, front) = pair();
        front.send(header(size), payload, &[]).unwrap();
        drop(front);
        assert_eq!(back.try_receive().unwrap_err(), ChannelError::Cut);
    }
    let (mut back, mut front) = pair();
    front.socket.write_all(&header(0).to_bytes()[..5]).unwrap();
    drop(front);
    assert_eq!(back.try_receive().unwrap_err(), ChannelError::Cut);
}

#[test]
fn headers_that_nobody_means_are_refused_before_their_payload() {
    let (mut back, front) = pair();
    let wrong = Header {
        flags: 2,
        ..header(8)
    };
    front.send(wrong, b"", &[]).unwrap();
    assert_eq!(back.try_receive().unwrap_err(), ChannelError::Version(2));

    for size in [u32::try_from(MAX_PAYLOAD).unwrap() + 1, u32::MAX] {
        let (mut back, front) = pair();
        front.send(header(size), b"", &[]).unwrap();
        assert_eq!(
            back.try_receive().unwrap_err(),
            ChannelError::TooLong(2, size)
        );
    }
}

#[test]
fn sending_to_a_peer_that_does_not_read_fails_and_does_not_block() {
    let (back, front) = pair();
    let error = loop {
        if let Err(error) = back.try_send(header(8), &[0; 8], &[]) {
            break error;
        }
    };
    assert_eq!(error, ChannelError::Full);
    drop(front);
    assert_eq!(
        back.try_send(header(0), b"", &[]),
        Err(ChannelError::Io(Errno::EPIPE))
    );
}

#[test]
fn a_long_message_is_sent_in_parts_by_the_blocking_side() {
    let (mut back, front) = pair();
    nix::sys::socket::setsockopt(&front, nix::sys::socket::sockopt::SndBuf, &1).unwrap();
    let payload = [7; MAX_PAYLOAD];
    let size = u32::try_from(MAX_PAYLOAD).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..50).for_each(|_| front.send(header(size), &payload, &[]).unwrap()));
        for _ in 0..50 {
            assert_eq!(back.receive().unwrap().payload, payload);
        }
    });
}
