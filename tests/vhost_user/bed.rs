//! A device behind a [`FrontEnd`] in an event loop of its own, and counts of
//! what the process holds.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use vtnetd::backend::{Backend, Sent};
use vtnetd::device::{Device, DeviceOptions};
use vtnetd::event::{Events, Interest, Poller, Waker};
use vtnetd::frontend::vhost_user::{EndpointSpec, FrontEnd};
use vtnetd::net::ethernet::Mac;
use vtnetd::net::frame::Batch;
use vtnetd::virtio::memory::{install_fault_handler, set_fault_notifier};
use vtnetd::worker::{Polling, Workers};

use crate::front::Front;

/// Descriptors and mappings are the process's: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Nothing else of these tests runs while this is held.
pub fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const STOP: u64 = 1000;
const FAULT: u64 = 1001;
const TOKEN_BASE: u64 = 7;

/// Counts what is sent, and notes how many pairs receive.
#[derive(Debug, Default)]
pub struct Recorder {
    pub frames: AtomicU64,
    pub pairs: AtomicU16,
}

impl Backend for Recorder {
    fn features(&self) -> u64 {
        0
    }

    fn set_features(&self, _features: u64, _header_len: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn max_pairs(&self) -> u16 {
        u16::MAX
    }

    fn set_active_pairs(&self, pairs: u16) {
        self.pairs.store(pairs, Ordering::SeqCst);
    }

    fn send(&self, _pair: usize, batch: &Batch<'_>) -> Sent {
        let frames = batch.frames();
        self.frames.fetch_add(frames.len() as u64, Ordering::SeqCst);
        Sent {
            frames: u32::try_from(frames.len()).unwrap(),
            bytes: frames.iter().map(|frame| u64::from(frame.len)).sum(),
            dropped: 0,
        }
    }
}

/// A directory of the test's own.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("vtnetd-vhost-user-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a test wants to be different.
pub struct Plan {
    pub mtu: Option<u16>,
    pub pairs: u16,
    pub polling: Polling,
    pub workers: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            mtu: None,
            pairs: 2,
            polling: Polling::default(),
            workers: 1,
        }
    }
}

/// The back end's side.
pub struct Bed {
    pub device: Arc<Device>,
    pub recorder: Arc<Recorder>,
    pub directory: Directory,
    stop: Arc<Waker>,
    finished: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    pub workers: Workers,
    _alone: MutexGuard<'static, ()>,
}

impl Bed {
    /// Listens; two queue pairs.
    pub fn new() -> Self {
        Self::plan(Plan::default())
    }

    pub fn plan(plan: Plan) -> Self {
        Self::at(plan, |path| {
            EndpointSpec::Fd(UnixListener::bind(path).unwrap().into())
        })
    }

    pub fn at(plan: Plan, endpoint: impl FnOnce(&Path) -> EndpointSpec) -> Self {
        let alone = alone();
        install_fault_handler().unwrap();
        let directory = Directory::new();
        let workers = Workers::start(plan.workers, plan.polling).unwrap();
        let recorder = Arc::new(Recorder::default());
        let device = device(&plan, &recorder, &workers);
        let endpoint = endpoint(&directory.socket());
        let front_end = FrontEnd::new(Arc::clone(&device), endpoint, TOKEN_BASE).unwrap();
        let stop = Arc::new(Waker::new().unwrap());
        let finished = Arc::new(AtomicBool::new(false));
        let (stopped, ended) = (Arc::clone(&stop), Arc::clone(&finished));
        let thread = std::thread::spawn(move || run(front_end, &stopped, &ended));
        Self {
            device,
            recorder,
            directory,
            stop,
            finished,
            thread: Some(thread),
            workers,
            _alone: alone,
        }
    }

    pub fn connect(&self) -> Front {
        Front::new(UnixStream::connect(self.directory.socket()).unwrap())
    }

    /// Stops the event loop; says whether the front end was finished before.
    pub fn stop(&mut self) -> bool {
        self.stop.wake();
        self.thread.take().unwrap().join().unwrap();
        self.finished.load(Ordering::SeqCst)
    }

    /// Waits until no further connection is to be expected.
    pub fn join(&mut self) {
        self.thread.take().unwrap().join().unwrap();
        assert!(self.finished.load(Ordering::SeqCst));
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.stop.wake();
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

pub fn device(plan: &Plan, recorder: &Arc<Recorder>, workers: &Workers) -> Arc<Device> {
    let options = DeviceOptions {
        name: "test".into(),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        mtu: plan.mtu,
        pairs: plan.pairs,
        link: true,
    };
    let backend: Arc<dyn Backend> = recorder.clone();
    Device::new(options, backend, workers).unwrap()
}

fn run(mut front_end: FrontEnd, stop: &Waker, finished: &AtomicBool) {
    let poller = Poller::new().unwrap();
    let fault = Waker::new().unwrap();
    poller.add(stop.as_fd(), STOP, Interest::READ).unwrap();
    poller.add(fault.as_fd(), FAULT, Interest::READ).unwrap();
    set_fault_notifier(fault.notify_fd().as_raw_fd());
    front_end.register(&poller).unwrap();
    let mut events = Events::new();
    let mut running = true;
    while running && !front_end.is_finished() {
        let now = Instant::now();
        let deadline = front_end.deadline();
        let timeout = deadline.map(|at| at.saturating_duration_since(now));
        poller.wait(&mut events, timeout).unwrap();
        for event in events.iter() {
            match event.token {
                STOP => running = false,
                FAULT => {
                    fault.drain();
                    front_end.check_memory(&poller);
                }
                token => front_end.on_event(&poller, token),
            }
        }
        front_end.on_timer(&poller, Instant::now());
    }
    set_fault_notifier(-1);
    finished.store(front_end.is_finished(), Ordering::SeqCst);
}

/// What the process holds of a front end that says nothing: descriptors and
/// mappings. Waits until it is `expected`, for a worker may hold a kick
/// descriptor that was given back until its turn has ended.
pub fn at_rest(bed: &Bed, expected: Option<(usize, usize)>) -> (usize, usize) {
    let mut front = bed.connect();
    for _ in 0..10_000 {
        front.sync();
        let held = (descriptors(), mappings());
        if expected.is_none_or(|expected| held == expected) {
            return held;
        }
    }
    panic!("{:?} held, not {expected:?}", (descriptors(), mappings()));
}

/// Open descriptors of this process.
#[cfg(target_os = "linux")]
pub fn descriptors() -> usize {
    // The directory itself is open while it is read.
    fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

/// Open descriptors of this process.
#[cfg(target_os = "freebsd")]
pub fn descriptors() -> usize {
    let held = bed::Census::of(std::process::id()).unwrap();
    held.descriptors.len()
}

/// Mappings of guest memory in this process.
#[cfg(target_os = "linux")]
pub fn mappings() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let ours = |line: &&str| line.contains(crate::front::MEMORY_NAME);
    maps.lines().filter(ours).count()
}

/// Mappings of guest memory in this process, which maps nothing else that is
/// shared.
#[cfg(target_os = "freebsd")]
pub fn mappings() -> usize {
    let held = bed::Census::of(std::process::id()).unwrap();
    held.mappings.len()
}
