//! A service with a control thread and a worker, and programs that use it over
//! real sockets.

use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Instant;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};

use super::program::Program;
use crate::event::{Events, Interest, Poller, Waker};
use crate::netmap::mem::RegionConfig;
use crate::netmap::register::Netmap;
use crate::netmap::service::rules::Rules;
use crate::netmap::service::{Service, Strays};
use crate::netmap::vale::Switches;
use crate::worker::{Polling, Workers};

/// A service that runs.
pub struct Bed {
    pub switches: Arc<Switches>,
    pub path: PathBuf,
    stop: Arc<(AtomicBool, Waker)>,
    turns: Arc<Mutex<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Bed {
    pub fn new() -> Self {
        Self::with(Rules::default())
    }

    pub fn with(rules: Rules) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("vtnetd-service-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        listen(&listener, Backlog::MAXCONN).unwrap();
        let switches = Arc::new(Switches::default());
        let core = Netmap::new(Arc::clone(&switches), RegionConfig::global());
        let core = Arc::new(core);
        let workers = Arc::new(Workers::start(1, Polling::default()).unwrap());
        let stop = Arc::new((AtomicBool::new(false), Waker::new().unwrap()));
        let service =
            Service::new(core, workers, Strays::start().unwrap(), listener, rules).unwrap();
        let run = Arc::clone(&stop);
        let turns = Arc::new(Mutex::new(()));
        let turn = Arc::clone(&turns);
        let thread = std::thread::spawn(move || control(service, &run, &turn));
        Self {
            switches,
            path,
            stop,
            turns,
            thread: Some(thread),
        }
    }

    /// The service does nothing until this is dropped.
    pub fn pause(&self) -> MutexGuard<'_, ()> {
        self.turns.lock().unwrap()
    }

    /// A program that has opened a descriptor.
    pub fn open(&self) -> Program {
        Program::open(&self.path).unwrap()
    }

    /// Waits until `done`, which the service brings about by itself.
    pub fn until(&self, what: &str, done: impl FnMut() -> bool) {
        super::until(what, done);
    }

    /// The ports of a switch.
    pub fn ports(&self, switch: &str) -> Vec<String> {
        let found = self.switches.find(switch);
        let ports = found.map(|(_, switch)| switch.ports());
        ports
            .unwrap_or_default()
            .into_iter()
            .map(|(_, name)| name)
            .collect()
    }
}

fn control(mut service: Service, stop: &(AtomicBool, Waker), turns: &Mutex<()>) {
    let poller = Poller::new().unwrap();
    poller.add(service.as_fd(), 0, Interest::READ).unwrap();
    poller.add(stop.1.as_fd(), 1, Interest::READ).unwrap();
    let mut events = Events::new();
    while !stop.0.load(Ordering::Acquire) {
        let deadline = service.deadline();
        let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        poller.wait(&mut events, timeout).unwrap();
        let _turn = turns.lock().unwrap();
        service.turn().unwrap();
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.stop.0.store(true, Ordering::Release);
        self.stop.1.wake();
        let ended = self.thread.take().unwrap().join();
        let _ = std::fs::remove_file(&self.path);
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}
