//! Polling: threads, one for each processor, that look at interfaces on
//! switches round after round, in place of interrupts.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::interrupts::Forward;
use super::source::Line;
use crate::netmap::abi::nmreq::{NETMAP_POLLING_MODE_MULTI_CPU, NETMAP_POLLING_MODE_SINGLE_CPU};

/// What is asked of `VALE_POLLING_ENABLE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollingRequest {
    /// `nr_mode`
    pub mode: u32,
    /// `nr_first_cpu_id`
    pub first: u32,
    /// `nr_num_polling_cpus`
    pub count: u32,
}

/// Why a port is not polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PollingError {
    /// It is no interface of the host.
    #[error("only interfaces of the host can be polled")]
    NoDevice,
    /// It is polled already.
    #[error("the port is polled already; stop that first")]
    Already,
    /// It is not polled.
    #[error("the port is not polled")]
    Not,
    /// No processor, or all of them.
    #[error("{asked} of {all} processors cannot poll; ask for at least one and leave one")]
    Count {
        /// How many were asked for.
        asked: u32,
        /// How many this process may use.
        all: usize,
    },
    /// A number that no processor has, or in `MULTI_CPU` mode no ring.
    #[error("there is no processor or ring {0} to poll with")]
    Number(u32),
    /// More than one processor in `SINGLE_CPU` mode, or no mode.
    #[error("poll in NETMAP_POLLING_MODE_SINGLE_CPU with one processor, or in MULTI_CPU mode")]
    Mode,
}

impl PollingError {
    /// What the kernel says in its place.
    pub fn errno(self) -> Errno {
        match self {
            Self::NoDevice => Errno::EOPNOTSUPP,
            Self::Already | Self::Not => Errno::EFAULT,
            Self::Count { .. } | Self::Number(_) | Self::Mode => Errno::EINVAL,
        }
    }
}

impl PollingRequest {
    /// The processor that is to poll a port with `rings` receive rings, of
    /// `all` (`get_polling_cfg`). A port has one ring, so there is one.
    fn processor(&self, rings: u32, all: usize) -> Result<u32, PollingError> {
        if self.count == 0 || usize::try_from(self.count).is_ok_and(|count| count >= all) {
            return Err(PollingError::Count {
                asked: self.count,
                all,
            });
        }
        match self.mode {
            NETMAP_POLLING_MODE_MULTI_CPU
                if self
                    .first
                    .checked_add(self.count)
                    .is_none_or(|end| end > rings) =>
            {
                Err(PollingError::Number(self.first))
            }
            NETMAP_POLLING_MODE_MULTI_CPU => Ok(self.first),
            NETMAP_POLLING_MODE_SINGLE_CPU if self.count == 1 => Ok(self.first),
            _ => Err(PollingError::Mode),
        }
    }
}

/// A line that is polled.
struct Item {
    line: Arc<dyn Line>,
    forward: Forward,
    /// Held while somebody looks at it.
    busy: Mutex<()>,
    closed: AtomicBool,
}

#[derive(Default)]
struct Work {
    items: Mutex<Vec<Arc<Item>>>,
    /// Counts changes of `items`.
    changes: AtomicU64,
    more: Condvar,
    stop: AtomicBool,
}

/// A thread that stays on one processor.
struct Poller {
    processor: u32,
    work: Arc<Work>,
    thread: Option<JoinHandle<()>>,
}

/// One thread for each processor of this process; asleep without work.
pub(super) struct Pollers(Vec<Poller>);

/// A line is polled until this is dropped; then nobody looks at it.
pub(super) struct Polled {
    work: Arc<Work>,
    item: Arc<Item>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is made whole before the next can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pollers {
    /// Starts them, and waits until each is where it stays: the sandbox lets
    /// nobody move.
    ///
    /// # Errors
    /// The system gives no threads.
    pub(super) fn start() -> io::Result<Self> {
        let (there, arrived) = mpsc::channel::<()>();
        let ours = sched_getaffinity(Pid::from_raw(0))?;
        let mut pollers = Self(Vec::new());
        for processor in (0..CpuSet::count()).filter(|at| ours.is_set(*at) == Ok(true)) {
            let work = Arc::<Work>::default();
            let run = Arc::clone(&work);
            let there = there.clone();
            let thread = thread::Builder::new()
                .name(format!("polling{processor}"))
                .spawn(move || {
                    stay_on(processor);
                    drop(there);
                    run.run();
                })?;
            pollers.0.push(Poller {
                processor: u32::try_from(processor).unwrap_or(u32::MAX),
                work,
                thread: Some(thread),
            });
        }
        drop(there);
        // Nothing is ever sent: this is the last of them to be dropped.
        let _ = arrived.recv();
        Ok(pollers)
    }

    /// Polls `line`, of a port with one receive ring, as is asked for.
    ///
    /// # Errors
    /// Those of the request.
    pub(super) fn add(
        &self,
        request: PollingRequest,
        line: Arc<dyn Line>,
        forward: Forward,
    ) -> Result<Polled, PollingError> {
        let processor = request.processor(1, self.0.len())?;
        let mut pollers = self.0.iter();
        let poller = pollers
            .find(|poller| poller.processor == processor)
            .ok_or(PollingError::Number(processor))?;
        let item = Arc::new(Item {
            line,
            forward,
            busy: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let work = Arc::clone(&poller.work);
        lock(&work.items).push(Arc::clone(&item));
        work.changed();
        Ok(Polled { work, item })
    }
}

/// On a system that does not let it, the thread runs where it is put.
fn stay_on(processor: usize) {
    let mut here = CpuSet::new();
    let stays = here
        .set(processor)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &here));
    if let Err(errno) = stays {
        tracing::debug!("a polling thread is not bound to processor {processor}: {errno}");
    }
}

impl Work {
    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
        self.more.notify_all();
    }

    fn run(&self) {
        loop {
            let mut items = lock(&self.items);
            while items.is_empty() && !self.stop.load(Ordering::Acquire) {
                items = self
                    .more
                    .wait(items)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            let now: Vec<Arc<Item>> = items.clone();
            let known = self.changes.load(Ordering::Acquire);
            drop(items);
            while self.changes.load(Ordering::Acquire) == known {
                let done: usize = now.iter().map(|item| item.turn()).sum();
                if done == 0 {
                    thread::yield_now();
                }
            }
        }
    }
}

impl Item {
    fn turn(&self) -> usize {
        let _busy = lock(&self.busy);
        if self.closed.load(Ordering::Acquire) {
            return 0;
        }
        self.forward.turn(&*self.line)
    }
}

impl Drop for Polled {
    fn drop(&mut self) {
        self.item.closed.store(true, Ordering::Release);
        lock(&self.work.items).retain(|item| !Arc::ptr_eq(item, &self.item));
        self.work.changed();
        // Whoever looks has seen it open.
        drop(lock(&self.item.busy));
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        {
            let _items = lock(&self.work.items);
            self.work.stop.store(true, Ordering::Release);
        }
        self.work.changed();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("a polling thread has panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_checks_in_its_order() {
        let (multi, single) = (
            NETMAP_POLLING_MODE_MULTI_CPU,
            NETMAP_POLLING_MODE_SINGLE_CPU,
        );
        let count = |asked| PollingError::Count { asked, all: 4 };
        for (mode, first, number, want) in [
            (single, 0, 1, Ok(0)),
            (single, 3, 1, Ok(3)),
            (single, 0, 2, Err(PollingError::Mode)),
            (single, 0, 0, Err(count(0))),
            (multi, 0, 4, Err(count(4))),
            (7, 0, 4, Err(count(4))),
            (7, 0, 1, Err(PollingError::Mode)),
            (0, 0, 1, Err(PollingError::Mode)),
            (multi, 0, 1, Ok(0)),
            (multi, 1, 1, Err(PollingError::Number(1))),
            (multi, 0, 2, Err(PollingError::Number(0))),
            (multi, u32::MAX, 1, Err(PollingError::Number(u32::MAX))),
        ] {
            let request = PollingRequest {
                mode,
                first,
                count: number,
            };
            assert_eq!(request.processor(1, 4), want, "{request:?}");
        }
    }
}
