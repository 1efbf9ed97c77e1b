//! Names that are free, stale, taken or something else.

use std::path::PathBuf;
use std::sync::Barrier;
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

#[test]
fn a_listener_accepts_and_takes_its_name_along() {
    let directory = Directory::new();
    let (listener, file) = listen(&directory.socket()).unwrap();
    let nobody = listener.accept().unwrap_err();
    assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
    let _peer = try_connect(&directory.socket()).unwrap();
    listener.accept().unwrap();
    drop(file);
    assert!(!directory.socket().exists());
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let directory = Directory::new();
    drop(UnixListener::bind(directory.socket()).unwrap());
    assert!(directory.socket().exists());
    let (live, _file) = listen(&directory.socket()).unwrap();
    assert!(matches!(
        listen(&directory.socket()),
        Err(SocketError::Taken(_))
    ));
    // The attempt has left the live one as it was.
    while live.accept().is_ok() {}
    try_connect(&directory.socket()).unwrap();
    live.accept().unwrap();
}

#[test]
fn what_is_not_a_socket_is_left_alone() {
    let directory = Directory::new();
    fs::write(directory.socket(), "precious").unwrap();
    assert!(matches!(
        listen(&directory.socket()),
        Err(SocketError::NotSocketFile(_))
    ));
    assert_eq!(fs::read(directory.socket()).unwrap(), b"precious");
    let missing = directory.0.join("no/such/socket");
    let error = listen(&missing).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(&missing.display().to_string())
    );
    let long = directory.0.join("x".repeat(200));
    assert!(matches!(listen(&long), Err(SocketError::Path(..))));
}

#[test]
fn a_name_that_somebody_else_took_over_is_not_removed() {
    let directory = Directory::new();
    let (_first, file) = listen(&directory.socket()).unwrap();
    fs::rename(directory.socket(), directory.0.join("moved")).unwrap();
    let _second = UnixListener::bind(directory.socket()).unwrap();
    drop(file);
    assert!(directory.socket().exists());
}

/// Of many who start at once on a stale socket one has it, and keeps it.
#[test]
fn of_those_that_start_together_one_listens() {
    const STARTERS: usize = 8;
    let directory = Directory::new();
    for _ in 0..50 {
        drop(UnixListener::bind(directory.socket()).unwrap());
        let together = Barrier::new(STARTERS);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let start = || {
                together.wait();
                listen(&directory.socket())
            };
            let starters: Vec<_> = (0..STARTERS).map(|_| scope.spawn(start)).collect();
            let ended = starters.into_iter().map(|one| one.join().unwrap());
            ended.collect()
        });
        let listening = outcomes.iter().flatten().count();
        assert_eq!(listening, 1, "{outcomes:?}");
        try_connect(&directory.socket()).unwrap();
    }
}
