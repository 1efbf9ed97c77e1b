//! The threads that run queue pairs, and the clients of the netmap service.
//!
//! A pair belongs to one worker. While a pair has work it is *hot*: its worker
//! looks at it round after round, each turn with a bounded budget, and no kicks
//! are needed. When it has had nothing to do for a while it rests: kicks are
//! enabled, its queues are looked at once more, and the worker forgets it until
//! an event. A worker with no hot pair sleeps, so an idle device costs nothing.
//! How long "a while" is depends on how often waiting was worth it of late.
//! The same holds for a client and its requests.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::device::QueuePair;
use crate::event::{Alarm, Events, Interest, Poller, Waker};
use crate::netmap::service::Client;

/// How long a hot pair is looked at in vain before it rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polling {
    /// This long, or less where it was not worth it of late. Zero: not at all.
    AtMost(Duration),
    /// It never rests: its worker has a processor for itself.
    Always,
}

impl Default for Polling {
    /// A few times as long as it takes to wake somebody up.
    fn default() -> Self {
        Self::AtMost(Duration::from_micros(50))
    }
}

/// The least that [`Patience`] comes down to: as long as a few looks take.
const LEAST: Duration = Duration::from_micros(4);

/// How long a worker looks in vain now. Where work comes while it looks, it
/// gets more patient, up to the limit; where it has looked in vain, it soon
/// loses patience: at a thousand frames a second it mostly sleeps, under load
/// it never does.
struct Patience {
    limit: Polling,
    now: Duration,
}

impl Patience {
    fn new(limit: Polling) -> Self {
        let now = match limit {
            Polling::AtMost(most) => most,
            Polling::Always => Duration::MAX,
        };
        Self { limit, now }
    }

    /// Work came before it was at an end.
    fn reward(&mut self) {
        if let Polling::AtMost(most) = self.limit {
            self.now = (2 * self.now).min(most);
        }
    }

    /// It has come to its end.
    fn disappoint(&mut self) {
        if let Polling::AtMost(most) = self.limit {
            self.now = (self.now / 4).max(LEAST).min(most);
        }
    }
}

/// A worker with hot pairs looks for events every so many rounds.
const ROUNDS_PER_WAIT: u32 = 64;
/// Token of the waker; the others are seat numbers times [`EVENTS_PER_SEAT`].
const WAKE: u64 = u64::MAX;
const EVENTS_PER_SEAT: u64 = 8;
/// The event that [`Seat::changed`] makes.
const CHANGED: u64 = EVENTS_PER_SEAT - 1;

/// What a worker runs. Only its worker calls these.
pub trait Work: Send + Sync {
    /// Notes an event, by the number that its descriptor is watched under, or 7
    /// when something has changed.
    fn note(&self, event: u64);

    /// Work begins: nobody needs to call while it is looked at.
    fn begin(&self);

    /// One turn with a bounded budget. Returns whether there was anything to do.
    fn turn(&self) -> bool;

    /// Work ends: asks to be called, and looks once more. `true`: there is work
    /// after all.
    fn rest(&self) -> bool;
}

/// Who has a seat. An enum, so that a turn costs no call through a table.
#[derive(Clone)]
pub enum Occupant {
    /// A device's queues.
    Pair(Arc<QueuePair>),
    /// A process that uses a netmap port.
    Client(Arc<Client>),
}

impl Occupant {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pair(one), Self::Pair(other)) => Arc::ptr_eq(one, other),
            (Self::Client(one), Self::Client(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    fn note(&self, event: u64) {
        match self {
            Self::Pair(pair) => Work::note(&**pair, event),
            Self::Client(client) => Work::note(&**client, event),
        }
    }

    fn begin(&self) {
        match self {
            Self::Pair(pair) => Work::begin(&**pair),
            Self::Client(client) => Work::begin(&**client),
        }
    }

    #[inline]
    fn turn(&self) -> bool {
        match self {
            Self::Pair(pair) => Work::turn(&**pair),
            Self::Client(client) => Work::turn(&**client),
        }
    }

    fn rest(&self) -> bool {
        match self {
            Self::Pair(pair) => Work::rest(&**pair),
            Self::Client(client) => Work::rest(&**client),
        }
    }
}

/// What others tell a worker, behind its lock.
#[derive(Default)]
struct Mail {
    /// Who sits where; a seat is used again only by who is added later.
    seats: Vec<Option<Occupant>>,
    /// Seats whose occupant is to be looked at.
    changed: Vec<usize>,
}

struct Worker {
    poller: Poller,
    waker: Waker,
    mail: Mutex<Mail>,
    stop: AtomicBool,
    polling: Polling,
}

/// A place at a worker. Dropping it takes away who has it.
pub struct Seat {
    worker: Arc<Worker>,
    number: usize,
}

/// A fixed pool of workers.
pub struct Workers {
    workers: Vec<Arc<Worker>>,
    threads: Vec<JoinHandle<()>>,
    next: AtomicUsize,
}

impl Workers {
    /// Starts `count` workers, at least one, that look for work as `polling`
    /// says before they sleep, and waits until all of them have
    /// what they need of the system, so that the sandbox can be sealed.
    ///
    /// # Errors
    /// When the system gives no descriptors, threads or timers.
    pub fn start(count: usize, polling: Polling) -> io::Result<Self> {
        let mut pool = Self {
            workers: Vec::new(),
            threads: Vec::new(),
            next: AtomicUsize::new(0),
        };
        let (ready, started) = mpsc::channel();
        for index in 0..count.max(1) {
            let worker = Arc::new(Worker {
                poller: Poller::new()?,
                waker: Waker::new()?,
                mail: Mutex::default(),
                stop: AtomicBool::new(false),
                polling,
            });
            let waker = &worker.waker;
            worker.poller.add(waker.as_fd(), WAKE, Interest::READ)?;
            let run = Arc::clone(&worker);
            let ready = ready.clone();
            pool.workers.push(worker);
            let thread = thread::Builder::new()
                .name(format!("worker{index}"))
                .spawn(move || {
                    let alarm = Alarm::new();
                    let told = alarm.as_ref().map(drop).map_err(io::Error::kind);
                    // Whoever started us waits for it.
                    let _ = ready.send(told);
                    drop(ready);
                    if let Ok(alarm) = alarm {
                        run.run(alarm);
                    }
                })?;
            pool.threads.push(thread);
        }
        drop(ready);
        for started in started {
            started?;
        }
        Ok(pool)
    }

    /// How many workers a process with `pairs` queue pairs should have: one for
    /// each processor that it may use, and not more than there are pairs.
    pub fn default_count(pairs: usize) -> usize {
        thread::available_parallelism()
            .map_or(1, usize::from)
            .min(pairs)
            .max(1)
    }

    /// Gives `occupant` to the next worker in turn.
    pub fn seat(&self, occupant: Occupant) -> Seat {
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.workers.len();
        let worker = Arc::clone(&self.workers[index]);
        let mut mail = worker.mail();
        let free = mail.seats.iter().position(Option::is_none);
        let number = free.unwrap_or_else(|| {
            mail.seats.push(None);
            mail.seats.len() - 1
        });
        mail.seats[number] = Some(occupant);
        drop(mail);
        Seat { worker, number }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in &self.workers {
            worker.stop.store(true, Ordering::Release);
            worker.waker.wake();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker has panicked");
            }
        }
    }
}

impl Seat {
    fn token(&self, event: u64) -> u64 {
        self.number as u64 * EVENTS_PER_SEAT + event % EVENTS_PER_SEAT
    }

    /// Watches `fd`; its events have the number `event`, below 7.
    ///
    /// # Errors
    /// What the poller says, for instance that the descriptor cannot be
    /// watched.
    pub fn watch(&self, fd: BorrowedFd<'_>, event: impl Into<u64>) -> io::Result<()> {
        let poller = &self.worker.poller;
        poller.add(fd, self.token(event.into()), Interest::READ_EDGE)
    }

    /// Watches `fd` no longer.
    pub fn unwatch(&self, fd: BorrowedFd<'_>) {
        if let Err(error) = self.worker.poller.remove(fd) {
            tracing::debug!("descriptor no longer watched: {error}");
        }
    }

    /// Has the worker look now.
    pub fn changed(&self) {
        self.worker.mail().changed.push(self.number);
        self.worker.waker.wake();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(seat) = self.worker.mail().seats.get_mut(self.number) {
            *seat = None;
        }
        // The worker lets go of it, should it be hot.
        self.worker.waker.wake();
    }
}

/// Who has work.
struct Hot {
    seat: usize,
    occupant: Occupant,
    idle_since: Option<Instant>,
}

impl Worker {
    fn mail(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut alarm: Alarm) {
        let mut events = Events::new();
        let mut hot: Vec<Hot> = Vec::new();
        let mut round = 0u32;
        let mut patience = Patience::new(self.polling);
        while !self.stop.load(Ordering::Acquire) {
            if hot.is_empty() || round % ROUNDS_PER_WAIT == 0 {
                let timeout = (!hot.is_empty()).then_some(Duration::ZERO);
                let waited = self.poller.wait(&mut events, timeout);
                // Set while there is work. It goes off once in the first sleep
                // afterwards, which costs less than to set it for each event.
                let alarmed = match (events.is_empty(), hot.is_empty()) {
                    (false, _) => alarm.set(),
                    (true, true) => alarm.clear(),
                    (true, false) => Ok(()),
                };
                if let Err(error) = waited.and(alarmed) {
                    // A poller that fails will not work again: nothing to do
                    // but to say so and leave its devices without service.
                    tracing::error!("worker stops: {error}");
                    return;
                }
                for event in events.iter() {
                    self.note(event.token, &mut hot);
                }
            }
            round = round.wrapping_add(1);
            let mut worked = false;
            hot.retain_mut(|hot| hot.turn(&mut patience, &mut worked));
            // A client runs on the same processors: it cannot ask for anything
            // while nobody lets it.
            if !worked && hot.iter().any(Hot::is_client) {
                thread::yield_now();
            }
        }
    }

    fn note(&self, token: u64, hot: &mut Vec<Hot>) {
        let mut mail = self.mail();
        if token == WAKE {
            self.waker.drain();
            while let Some(seat) = mail.changed.pop() {
                if let Some(Some(occupant)) = mail.seats.get(seat) {
                    heat(hot, seat, occupant, CHANGED);
                }
            }
            // A seat that was given up is not looked at any more.
            hot.retain(|hot| match mail.seats.get(hot.seat) {
                Some(Some(occupant)) => occupant.is(&hot.occupant),
                _ => false,
            });
            return;
        }
        let seat = usize::try_from(token / EVENTS_PER_SEAT).unwrap_or(usize::MAX);
        if let Some(Some(occupant)) = mail.seats.get(seat) {
            heat(hot, seat, occupant, token % EVENTS_PER_SEAT);
        }
    }
}

/// Tells the occupant of an event, and has it looked at from now on.
fn heat(hot: &mut Vec<Hot>, seat: usize, occupant: &Occupant, event: u64) {
    occupant.note(event);
    match hot.iter_mut().find(|hot| hot.seat == seat) {
        Some(hot) => hot.idle_since = None,
        None => {
            occupant.begin();
            hot.push(Hot {
                seat,
                occupant: occupant.clone(),
                idle_since: None,
            });
        }
    }
}

impl Hot {
    fn is_client(&self) -> bool {
        matches!(self.occupant, Occupant::Client(_))
    }

    /// One turn; says in `worked` if there was anything to do. `false`: it
    /// rests.
    fn turn(&mut self, patience: &mut Patience, worked: &mut bool) -> bool {
        if self.occupant.turn() {
            if self.idle_since.take().is_some() {
                patience.reward();
            }
            *worked = true;
            return true;
        }
        let now = Instant::now();
        let since = *self.idle_since.get_or_insert(now);
        if now.duration_since(since) < patience.now {
            return true;
        }
        let more = self.occupant.rest();
        if more {
            self.occupant.begin();
            self.idle_since = None;
        } else {
            patience.disappoint();
        }
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_lasts_under_load_and_is_soon_lost_without() {
        let micros = Duration::from_micros;
        let mut patience = Patience::new(Polling::default());
        assert_eq!(patience.now, micros(50));
        patience.disappoint();
        patience.disappoint();
        assert_eq!(patience.now, LEAST);
        patience.disappoint();
        assert_eq!(patience.now, LEAST);
        // A reward and a disappointment in turn, as with an answer that comes
        // at once and a question that does not.
        for _ in 0..100 {
            patience.reward();
            patience.disappoint();
        }
        assert_eq!(patience.now, LEAST);
        for _ in 0..4 {
            patience.reward();
        }
        assert_eq!(patience.now, micros(50));
        patience.reward();
        assert_eq!(patience.now, micros(50));
    }

    #[test]
    fn limits_of_patience_are_kept() {
        let mut none = Patience::new(Polling::AtMost(Duration::ZERO));
        none.disappoint();
        none.reward();
        assert_eq!(none.now, Duration::ZERO);
        let mut endless = Patience::new(Polling::Always);
        endless.disappoint();
        endless.reward();
        assert_eq!(endless.now, Duration::MAX);
    }
}
