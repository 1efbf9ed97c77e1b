//! Names that are free, stale, taken or something else.

use std::sync::Barrier;

use bed::Scratch;

use super::*;

#[test]
fn a_listener_accepts_and_takes_its_name_along() {
    let directory = Scratch::new().unwrap();
    let (listener, file) = listen(&directory.path("socket"), None).unwrap();
    let nobody = listener.accept().unwrap_err();
    assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
    let _peer = try_connect(&directory.path("socket")).unwrap();
    listener.accept().unwrap();
    drop(file);
    assert!(!directory.path("socket").exists());
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let directory = Scratch::new().unwrap();
    drop(UnixListener::bind(directory.path("socket")).unwrap());
    assert!(directory.path("socket").exists());
    let (live, _file) = listen(&directory.path("socket"), None).unwrap();
    assert!(matches!(
        listen(&directory.path("socket"), None),
        Err(SocketError::Taken(_))
    ));
    // The attempt has left the live one as it was.
    while live.accept().is_ok() {}
    try_connect(&directory.path("socket")).unwrap();
    live.accept().unwrap();
}

#[test]
fn what_is_not_a_socket_is_left_alone() {
    let directory = Scratch::new().unwrap();
    fs::write(directory.path("socket"), "precious").unwrap();
    assert!(matches!(
        listen(&directory.path("socket"), None),
        Err(SocketError::NotSocketFile(_))
    ));
    assert_eq!(fs::read(directory.path("socket")).unwrap(), b"precious");
    let missing = directory.path("no/such/socket");
    let error = listen(&missing, None).unwrap_err().to_string();
    assert!(error.starts_with(&missing.display().to_string()), "{error}");
    assert!(error.contains("; make the directory first"), "{error}");
    let long = directory.path(&"x".repeat(200));
    assert!(matches!(listen(&long, None), Err(SocketError::Path(..))));
}

#[test]
fn a_name_that_somebody_else_took_over_is_not_removed() {
    let directory = Scratch::new().unwrap();
    let (_first, file) = listen(&directory.path("socket"), None).unwrap();
    fs::rename(directory.path("socket"), directory.path("moved")).unwrap();
    let _second = UnixListener::bind(directory.path("socket")).unwrap();
    drop(file);
    assert!(directory.path("socket").exists());
}

/// Of many who start at once on a stale socket one has it, and keeps it.
#[test]
fn of_those_that_start_together_one_listens() {
    const STARTERS: usize = 8;
    let directory = Scratch::new().unwrap();
    for _ in 0..50 {
        drop(UnixListener::bind(directory.path("socket")).unwrap());
        let together = Barrier::new(STARTERS);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let start = || {
                together.wait();
                listen(&directory.path("socket"), None)
            };
            let starters: Vec<_> = (0..STARTERS).map(|_| scope.spawn(start)).collect();
            let ended = starters.into_iter().map(|one| one.join().unwrap());
            ended.collect()
        });
        let listening = outcomes.iter().flatten().count();
        assert_eq!(listening, 1, "{outcomes:?}");
        try_connect(&directory.path("socket")).unwrap();
    }
}
