//! Looks how busy the workers are, and has queue pairs moved where one has no
//! time left and another has.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::device::Device;
use crate::worker::Workers;
use crate::worker::placement::{Load, Placement};

/// How often is looked.
const LOOK: Duration = Duration::from_secs(1);

/// Who sees to it that no worker has too much to do.
pub(super) struct Balance {
    workers: Arc<Workers>,
    placement: Placement,
    /// The frames of every pair when they were looked at last.
    frames: Vec<u64>,
    /// When to look again; `None`: there is nothing to move.
    next: Option<Instant>,
}

impl Balance {
    /// Balances `devices` between `workers`. Where there are no more pairs than
    /// workers, each has one for itself, and nobody needs to look.
    pub(super) fn new(workers: Arc<Workers>, devices: &[Arc<Device>]) -> Self {
        let pairs: usize = devices.iter().map(|device| device.pairs().len()).sum();
        let movable = workers.count() > 1 && pairs > workers.count();
        Self {
            workers,
            placement: Placement::default(),
            frames: vec![0; pairs],
            next: movable.then(|| Instant::now() + LOOK),
        }
    }

    /// When [`turn`](Self::turn) is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Looks, if it is time, and moves a pair if that helps.
    pub(super) fn turn(&mut self, devices: &[Arc<Device>], now: Instant) {
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        self.next = Some(now + LOOK);
        let loads = self.loads(devices);
        let Some(found) = self.placement.look(&loads) else {
            return;
        };
        let mut pairs = devices.iter().flat_map(|device| {
            let indices = 0..device.pairs().len();
            indices.map(move |index| (device, index))
        });
        if let Some((device, index)) = pairs.nth(found.pair) {
            let (name, to) = (device.name(), found.to);
            tracing::info!("{name}: pair {index} is served by worker {to} from now on");
            device.move_pair(index, &self.workers, to);
        }
    }

    /// What each worker did since the last look.
    fn loads(&mut self, devices: &[Arc<Device>]) -> Vec<Load> {
        let busy = self.workers.measure().into_iter();
        let mut loads: Vec<_> = busy
            .map(|busy| Load {
                busy,
                pairs: Vec::new(),
            })
            .collect();
        let pairs = devices.iter().flat_map(|device| {
            let workers = device.workers_of_pairs(&self.workers);
            device.pairs().iter().zip(workers)
        });
        for (number, ((pair, worker), last)) in pairs.zip(&mut self.frames).enumerate() {
            let frames = pair.frames();
            let since = frames.wrapping_sub(std::mem::replace(last, frames));
            if let Some(load) = worker.and_then(|worker| loads.get_mut(worker)) {
                load.pairs.push((number, since));
            }
        }
        loads
    }

    /// A line for each worker: how busy it was since it was looked at last, how
    /// long since it was started, and whom it serves.
    pub(super) fn report(&self, devices: &[Arc<Device>]) -> String {
        let mut text = String::new();
        let loads = self
            .workers
            .measure()
            .into_iter()
            .zip(self.workers.worked());
        for (worker, (busy, worked)) in loads.enumerate() {
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "worker{worker}: busy={}% worked={:.6} pairs=",
                busy / 10,
                worked.as_secs_f64()
            );
            let mut separator = "";
            for device in devices {
                let places = device.workers_of_pairs(&self.workers);
                for (index, _) in places.enumerate().filter(|(_, at)| *at == Some(worker)) {
                    let _ = write!(text, "{separator}{}/{index}", device.name());
                    separator = ",";
                }
            }
            text.push('\n');
        }
        text
    }
}
