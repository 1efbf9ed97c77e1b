//! Names that are free, stale, taken or something else; inherited sockets.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A directory of this test's own.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("vtnetd-endpoint-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn listen(path: PathBuf) -> Result<Listener, EndpointError> {
    match Endpoint::open(EndpointSpec::Listen(path))? {
        (Endpoint::Listening(listener), None) => Ok(listener),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_listener_accepts_and_takes_its_name_along() {
    let directory = Directory::new();
    let listener = listen(directory.socket()).unwrap();
    assert!(listener.accept().unwrap().is_none());
    let _peer = try_connect(&directory.socket()).unwrap();
    assert!(listener.accept().unwrap().is_some());
    assert!(listener.accept().unwrap().is_none());
    drop(listener);
    assert!(!directory.socket().exists());
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let directory = Directory::new();
    drop(UnixListener::bind(directory.socket()).unwrap());
    assert!(directory.socket().exists());
    let live = listen(directory.socket()).unwrap();
    assert!(matches!(
        listen(directory.socket()),
        Err(EndpointError::Taken(_))
    ));
    // The attempt has left the live one as it was.
    while live.accept().unwrap().is_some() {}
    try_connect(&directory.socket()).unwrap();
    assert!(live.accept().unwrap().is_some());
}

#[test]
fn what_is_not_a_socket_is_left_alone() {
    let directory = Directory::new();
    fs::write(directory.socket(), "precious").unwrap();
    assert!(matches!(
        listen(directory.socket()),
        Err(EndpointError::NotSocketFile(_))
    ));
    assert_eq!(fs::read(directory.socket()).unwrap(), b"precious");
    let missing = directory.0.join("no/such/socket");
    let error = listen(missing.clone()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(&missing.display().to_string())
    );
    let long = directory.0.join("x".repeat(200));
    assert!(matches!(listen(long.clone()), Err(EndpointError::Path(..))));
    assert!(matches!(
        Endpoint::open(EndpointSpec::Connect(long)),
        Err(EndpointError::Path(..))
    ));
}

#[test]
fn a_name_that_somebody_else_took_over_is_not_removed() {
    let directory = Directory::new();
    let first = listen(directory.socket()).unwrap();
    fs::rename(directory.socket(), directory.0.join("moved")).unwrap();
    let _second = UnixListener::bind(directory.socket()).unwrap();
    drop(first);
    assert!(directory.socket().exists());
}

#[test]
fn connecting_to_nobody_fails_at_once() {
    let directory = Directory::new();
    assert_eq!(try_connect(&directory.socket()).unwrap_err(), Errno::ENOENT);
    drop(UnixListener::bind(directory.socket()).unwrap());
    assert_eq!(
        try_connect(&directory.socket()).unwrap_err(),
        Errno::ECONNREFUSED
    );
}

#[test]
fn an_inherited_descriptor_is_told_by_what_it_is() {
    let open = |fd: OwnedFd| Endpoint::open(EndpointSpec::Fd(fd));

    let (one, _other) = UnixStream::pair().unwrap();
    assert!(matches!(open(one.into()), Ok((Endpoint::Once, Some(_)))));

    let directory = Directory::new();
    let listener = UnixListener::bind(directory.socket()).unwrap();
    let Ok((Endpoint::Listening(listener), None)) = open(listener.into()) else {
        panic!("a listening socket");
    };
    assert!(listener.accept().unwrap().is_none());
    drop(listener);
    assert!(directory.socket().exists(), "its name is not ours");

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
