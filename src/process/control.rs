//! The control thread: sockets, signals, timers, and memory that vanishes.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::balance::Balance;
use super::{Failure, log};
use crate::device::Device;
use crate::event::{Alarm, Event, Events, Interest, Poller, Signal, Signals, Waker};
use crate::frontend::vhost_user::{EndpointSpec, FrontEnd};
use crate::netmap::service::Service;
use crate::netmap::vale::Switches;
use crate::virtio::memory;
use crate::worker::Workers;

/// Tokens of the event loop; the front ends' follow.
const SIGNALS: u64 = 0;
const FAULTS: u64 = 1;
const SERVICE: u64 = 2;
const OPENER: u64 = 3;
const FRONT_ENDS: u64 = 4;
/// How long an epoch of a switch's address table is; it forgets an address
/// after [`MAX_AGE`](crate::netmap::mac_table::MAX_AGE) of them, which makes
/// the five minutes of IEEE 802.1D.
const EPOCH: Duration = Duration::from_secs(10);
/// How often host sides are looked for that can go away.
const CHECK: Duration = Duration::from_secs(1);

/// What the control thread looks after. The field order is the order in which
/// things end: front ends first, so that sockets are gone before devices are.
pub struct Control {
    service: Option<Service>,
    front_ends: Vec<FrontEnd>,
    devices: Vec<Arc<Device>>,
    poller: Poller,
    signals: Signals,
    /// Woken by the SIGBUS handler.
    faults: Waker,
    alarm: Alarm,
    /// What hangs up when the opener ends; `None` once it has.
    opener: Option<OwnedFd>,
}

impl Control {
    /// Blocks the signals that it receives, and catches SIGBUS. To be called
    /// before any thread is started, for threads inherit what is blocked.
    ///
    /// # Errors
    /// The system has no descriptors or memory left.
    pub fn new() -> Result<Self, Failure> {
        let os = || Failure::os("event loop");
        let signals = Signals::new().map_err(os())?;
        let faults = Waker::new().map_err(os())?;
        let poller = Poller::new().map_err(os())?;
        for (fd, token) in [(signals.as_fd(), SIGNALS), (faults.as_fd(), FAULTS)] {
            poller.add(fd, token, Interest::READ).map_err(os())?;
        }
        memory::set_fault_notifier(faults.notify_fd().as_raw_fd());
        memory::install_fault_handler().map_err(os())?;
        Ok(Self {
            service: None,
            front_ends: Vec::new(),
            devices: Vec::new(),
            poller,
            signals,
            faults,
            alarm: Alarm::new().map_err(Failure::os("alarm"))?,
            opener: None,
        })
    }

    /// Says so once when the opener ends, at which `end` hangs up.
    ///
    /// # Errors
    /// The system has no memory left.
    pub fn watch_opener(&mut self, end: OwnedFd) -> Result<(), Failure> {
        // Its answers make it readable, too, and are for others to read.
        let watched = self.poller.add(end.as_fd(), OPENER, Interest::READ_EDGE);
        watched.map_err(Failure::os("event loop"))?;
        self.opener = Some(end);
        Ok(())
    }

    /// Has `device` driven by whoever comes to `endpoint`: front ends can
    /// connect from now on, and are answered once [`run`](Self::run) runs.
    ///
    /// # Errors
    /// The endpoint cannot be had.
    pub fn add(&mut self, device: Arc<Device>, endpoint: EndpointSpec) -> Result<(), Failure> {
        let token = FRONT_ENDS + self.front_ends.len() as u64 * FrontEnd::TOKENS;
        let mut front_end = FrontEnd::new(Arc::clone(&device), endpoint, token)?;
        let registered = front_end.register(&self.poller);
        registered.map_err(Failure::os("event loop"))?;
        self.front_ends.push(front_end);
        self.devices.push(device);
        Ok(())
    }

    /// Has `service` let other programs in.
    ///
    /// # Errors
    /// The system has no memory left.
    pub fn set_service(&mut self, service: Service) -> Result<(), Failure> {
        let watched = self.poller.add(service.as_fd(), SERVICE, Interest::READ);
        watched.map_err(Failure::os("event loop"))?;
        self.service = Some(service);
        Ok(())
    }

    /// Serves until a signal ends it, or no front end is left nor can come any
    /// more. Lets the addresses on `switches` age meanwhile, and balances the
    /// load of `workers`.
    ///
    /// # Errors
    /// The event loop fails.
    pub fn run(mut self, switches: &Switches, workers: &Arc<Workers>) -> Result<(), Failure> {
        let mut events = Events::new();
        let mut balance = Balance::new(Arc::clone(workers), &self.devices);
        let mut epoch_end = Instant::now() + EPOCH;
        let losable = self.devices.iter().any(|device| device.can_lose_host());
        let mut next_check = losable.then(|| Instant::now() + CHECK);
        while self.service.is_some() || !self.front_ends.iter().all(FrontEnd::is_finished) {
            let deadlines = self.front_ends.iter().filter_map(FrontEnd::deadline);
            let service = self.service.as_ref().and_then(Service::deadline);
            let deadlines = deadlines.chain(next_check).chain(service);
            let deadlines = deadlines.chain(balance.deadline());
            let next = deadlines.fold(epoch_end, Instant::min);
            let timeout = next.saturating_duration_since(Instant::now());
            let waited = self.poller.wait(&mut events, Some(timeout));
            waited.map_err(Failure::os("event loop"))?;
            // Error descriptors are signalled from here.
            let alarmed = if events.is_empty() {
                self.alarm.clear()
            } else {
                self.alarm.set()
            };
            alarmed.map_err(Failure::os("alarm"))?;
            for event in events.iter() {
                if let Some(signal) = self.on_event(event, switches, &balance) {
                    tracing::info!("{signal}: ending");
                    return Ok(());
                }
            }
            let now = Instant::now();
            for front_end in &mut self.front_ends {
                front_end.on_timer(&self.poller, now);
            }
            if let Some(service) = &mut self.service {
                service.turn().map_err(Failure::os("netmap service"))?;
            }
            if next_check.is_some_and(|at| now >= at) {
                self.check_hosts();
                next_check = Some(now + CHECK);
            }
            balance.turn(&self.devices, now);
            if now >= epoch_end {
                switches.age();
                self.devices.iter().for_each(|device| device.age_flows());
                epoch_end = now + EPOCH;
            }
        }
        tracing::info!("every inherited connection has ended: ending");
        Ok(())
    }

    /// Returns a signal that ends the process.
    fn on_event(&mut self, event: Event, switches: &Switches, balance: &Balance) -> Option<Signal> {
        match event.token {
            SIGNALS => {
                while let Some(signal) = self.signals.next() {
                    if signal != Signal::SIGUSR1 {
                        return Some(signal);
                    }
                    self.log_statistics(switches, balance);
                }
            }
            // It has its turn after each wait.
            SERVICE => {}
            FAULTS => {
                self.faults.drain();
                for front_end in &mut self.front_ends {
                    front_end.check_memory(&self.poller);
                }
            }
            OPENER => {
                if event.hangup {
                    self.lose_opener();
                }
            }
            token => {
                let number = usize::try_from((token - FRONT_ENDS) / FrontEnd::TOKENS);
                let front_end = number.ok().and_then(|at| self.front_ends.get_mut(at));
                if let Some(front_end) = front_end {
                    front_end.on_event(&self.poller, token);
                }
            }
        }
        None
    }

    /// What is open stays open, so guests go on with what they have.
    fn lose_opener(&mut self) {
        let Some(end) = self.opener.take() else {
            return;
        };
        if let Err(error) = self.poller.remove(end.as_fd()) {
            tracing::debug!("event loop: opener: {error}");
        }
        tracing::error!(
            "opener: it has ended: what goes away now stays away, no connection is made to a \
             front end, and sockets and the pid file will be left behind; restart vtnetd"
        );
    }

    fn check_hosts(&self) {
        for device in &self.devices {
            if device.can_lose_host() {
                device.check_host();
            }
        }
    }

    fn log_statistics(&self, switches: &Switches, balance: &Balance) {
        let devices = self.devices.iter().map(|device| device.statistics());
        let switches = switches.all().into_iter().map(|switch| switch.report());
        let workers = std::iter::once(balance.report(&self.devices));
        for text in devices.chain(switches).chain(workers) {
            for line in text.lines() {
                tracing::info!(target: log::ASKED, "{line}");
            }
        }
    }
}
