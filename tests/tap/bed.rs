//! A device on a tap behind a vhost-user socket, and a guest that drives it.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use vtnetd::backend::{self, Spec};
use vtnetd::device::stats::{RxStats, TxStats};
use vtnetd::device::{Device, DeviceOptions};
use vtnetd::driver::front_end;
use vtnetd::driver::net::{FEATURES, NetDriver, NetOptions};
use vtnetd::event::{Events, Interest, Poller, Waker};
use vtnetd::frontend::vhost_user::{EndpointSpec, FrontEnd};
use vtnetd::net::ethernet::Mac;
use vtnetd::netmap::vale::Switches;
use vtnetd::virtio::spec::net;
use vtnetd::worker::{Polling, Workers};

use crate::frames::GUEST;

const STOP: u64 = 1000;
/// Where the status is in the configuration space, whose bit 0 is the link.
const STATUS: u32 = 6;

/// What the driver usually negotiates; but the MTU is to be the interface's.
pub const USUAL: u64 = FEATURES & !net::F_MTU;

/// The back end's side.
pub struct Bed {
    device: Arc<Device>,
    directory: PathBuf,
    stop: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
    _workers: Workers,
}

impl Bed {
    /// A device with `pairs` queue pairs on the tap `name`.
    pub fn new(name: &str, pairs: u16) -> Self {
        let backend = backend::open(&Spec::new(name, pairs), &Switches::default()).unwrap();
        let workers = Workers::start(usize::from(pairs), Polling::default()).unwrap();
        let options = DeviceOptions {
            name: name.into(),
            mac: Mac(GUEST),
            mtu: None,
            pairs,
            link: true,
        };
        let device = Device::new(options, backend, &workers).unwrap();
        let directory = directory();
        let endpoint =
            EndpointSpec::Fd(UnixListener::bind(directory.join("socket")).unwrap().into());
        let front_end = FrontEnd::new(Arc::clone(&device), endpoint, 0).unwrap();
        let stop = Arc::new(Waker::new().unwrap());
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || serve(front_end, &stopped));
        Self {
            device,
            directory,
            stop,
            thread: Some(thread),
            _workers: workers,
        }
    }

    /// A guest that negotiates the driver's usual features and `more`.
    pub fn guest(&self, more: u64, options: NetOptions) -> NetDriver {
        self.guest_with(USUAL | more, options)
    }

    /// A guest that negotiates these features and no others.
    pub fn guest_with(&self, features: u64, mut options: NetOptions) -> NetDriver {
        let socket = self.directory.join("socket");
        let front_end = front_end::FrontEnd::connect(&socket).unwrap();
        options.negotiation.features = features;
        // Offered only with several pairs.
        options.negotiation.required = features & !net::F_MQ;
        NetDriver::start(front_end, &options).unwrap()
    }

    /// Has the device look for its interface, as the control thread does.
    /// Returns whether the link is up.
    pub fn check_host(&self) -> bool {
        self.device.check_host();
        let mut status = [0; 2];
        self.device.read_config(STATUS, &mut status).unwrap();
        status[0] & 1 != 0
    }

    pub fn rx(&self, pair: usize) -> &RxStats {
        &self.device.pairs()[pair].rx_stats
    }

    pub fn tx(&self, pair: usize) -> &TxStats {
        &self.device.pairs()[pair].tx_stats
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.stop.wake();
        let ended = self.thread.take().map(JoinHandle::join);
        let _ = fs::remove_dir_all(&self.directory);
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

fn directory() -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("vtnetd-tap-{}-{number}", std::process::id());
    let path = std::env::temp_dir().join(name);
    fs::create_dir(&path).unwrap();
    path
}

fn serve(mut front_end: FrontEnd, stop: &Waker) {
    let poller = Poller::new().unwrap();
    poller.add(stop.as_fd(), STOP, Interest::READ).unwrap();
    front_end.register(&poller).unwrap();
    let mut events = Events::new();
    loop {
        let now = Instant::now();
        let deadline = front_end.deadline();
        let timeout = deadline.map(|at| at.saturating_duration_since(now));
        poller.wait(&mut events, timeout).unwrap();
        for event in events.iter() {
            if event.token == STOP {
                return;
            }
            front_end.on_event(&poller, event.token);
        }
        front_end.on_timer(&poller, Instant::now());
    }
}
