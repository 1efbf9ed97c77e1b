//! Connections that fail, and inherited sockets.

use bed::Scratch;

use super::*;

#[test]
fn connecting_to_nobody_fails_at_once() {
    let directory = Scratch::new().unwrap();
    assert_eq!(
        try_connect(&directory.path("socket")).unwrap_err(),
        Errno::ENOENT
    );
    drop(UnixListener::bind(directory.path("socket")).unwrap());
    assert_eq!(
        try_connect(&directory.path("socket")).unwrap_err(),
        Errno::ECONNREFUSED
    );
}

#[test]
fn an_inherited_descriptor_is_told_by_what_it_is() {
    let open = |fd: OwnedFd| Endpoint::open(EndpointSpec::Fd(fd));

    let (one, _other) = UnixStream::pair().unwrap();
    assert!(matches!(open(one.into()), Ok((Endpoint::Once, Some(_)))));

    let directory = Scratch::new().unwrap();
    let listener = UnixListener::bind(directory.path("socket")).unwrap();
    let Ok((Endpoint::Listening(listener), None)) = open(listener.into()) else {
        panic!("a listening socket");
    };
    assert!(listener.accept().unwrap().is_none());
    drop(listener);
    assert!(directory.path("socket").exists(), "its name is not ours");

    let (pipe, _) = nix::unistd::pipe().unwrap();
    assert!(matches!(open(pipe), Err(EndpointError::NotSocket(_))));
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(matches!(open(tcp.into()), Err(EndpointError::NotSocket(_))));
    let datagram = std::os::unix::net::UnixDatagram::unbound().unwrap();
    assert!(matches!(
        open(datagram.into()),
        Err(EndpointError::NotSocket(_))
    ));
    let flags = SockFlag::SOCK_CLOEXEC;
    let idle = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
    assert!(matches!(open(idle), Err(EndpointError::Idle(_))));
}

#[test]
fn an_inherited_descriptor_is_not_inherited_further() {
    let (one, _other) = UnixStream::pair().unwrap();
    let fd = OwnedFd::from(one);
    fcntl(&fd, F_SETFD(FdFlag::empty())).unwrap();
    let (_, stream) = Endpoint::open(EndpointSpec::Fd(fd)).unwrap();
    let stream = stream.unwrap();
    let flags = fcntl(&stream, nix::fcntl::F_GETFD).unwrap();
    assert_eq!(flags, FdFlag::FD_CLOEXEC.bits());
}
