//! The threads that run queue pairs, and the clients of the netmap service.
//!
//! A pair belongs to one worker. While a pair has work it is *hot*: its worker
//! looks at it round after round, each turn with a bounded budget, and no kicks
//! are needed. When it has had nothing to do for a while it rests: kicks are
//! enabled, its queues are looked at once more, and the worker forgets it until
//! an event. A worker with no hot pair sleeps, so an idle device costs nothing.
//! How long "a while" is depends on how often waiting was worth it of late.
//! The same holds for a client and its requests.
//!
//! A new one goes to the worker with the least to do. Where a worker has no time
//! left and another has, [`placement`] has a pair moved: between two of its
//! turns, when its worker has let go of it.

mod idle;
pub mod patience;
pub mod placement;
mod seat;

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::device::QueuePair;
use crate::event::{Alarm, Events, Interest, Poller, Waker, give_way};
use crate::netmap::service::Client;
use idle::{Idle, Reading};
pub use patience::{Patience, Polling, Vain};
pub use seat::Seat;

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
    /// How many have asked for their occupant back, and how many of them know
    /// that the worker has let go of it.
    asked: u64,
    let_go: u64,
    /// The worker has ended, and has nobody.
    ended: bool,
}

struct Worker {
    poller: Poller,
    waker: Waker,
    mail: Mutex<Mail>,
    /// The worker has let go of whom it was asked for.
    free: Condvar,
    stop: AtomicBool,
    polling: Polling,
    idle: Idle,
    reading: Mutex<Reading>,
}

/// A fixed pool of workers.
pub struct Workers {
    workers: Vec<Arc<Worker>>,
    threads: Vec<JoinHandle<()>>,
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
        };
        let (ready, started) = mpsc::channel();
        for index in 0..count.max(1) {
            let worker = Arc::new(Worker::new(polling)?);
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

    /// How many workers there are.
    pub fn count(&self) -> usize {
        self.workers.len()
    }

    /// Gives `occupant` to the worker that had the least to do at the last
    /// [`measure`](Self::measure), to a quarter; of several to the one with the
    /// fewest seats taken.
    pub fn seat(&self, occupant: Occupant) -> Seat {
        let load = |worker: &&Arc<Worker>| (worker.reading().busy / 250, worker.taken());
        let least = self.workers.iter().min_by_key(load);
        // There is always one.
        let worker = Arc::clone(least.unwrap_or(&self.workers[0]));
        Seat::new(worker, occupant)
    }

    /// How much of its time each worker had something to do since this was
    /// asked last, in thousandths.
    pub fn measure(&self) -> Vec<u16> {
        let now = Instant::now();
        let measure = |worker: &Arc<Worker>| {
            let mut reading = worker.reading();
            *reading = reading.next(&worker.idle, now);
            reading.busy
        };
        self.workers.iter().map(measure).collect()
    }

    /// How long each worker has had something to do since it was started.
    pub fn worked(&self) -> Vec<Duration> {
        let now = Instant::now();
        let workers = self.workers.iter();
        workers.map(|worker| worker.idle.worked(now)).collect()
    }

    /// The number of the worker that `seat` is at.
    pub fn number_of(&self, seat: &Seat) -> Option<usize> {
        let place = seat.place();
        let mut workers = self.workers.iter();
        workers.position(|worker| Arc::ptr_eq(worker, &place.worker))
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

/// Who has work.
struct Hot {
    seat: usize,
    occupant: Occupant,
    vain: Option<Vain>,
}

impl Worker {
    fn new(polling: Polling) -> io::Result<Self> {
        let idle = Idle::new();
        Ok(Self {
            poller: Poller::new()?,
            waker: Waker::new()?,
            mail: Mutex::default(),
            free: Condvar::new(),
            stop: AtomicBool::new(false),
            polling,
            reading: Mutex::new(Reading::first(&idle)),
            idle,
        })
    }

    fn mail(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many seats are taken.
    fn taken(&self) -> usize {
        self.mail().seats.iter().flatten().count()
    }

    /// Gives `occupant` a seat; returns its number.
    fn admit(&self, occupant: Occupant) -> usize {
        let mut mail = self.mail();
        let free = mail.seats.iter().position(Option::is_none);
        let number = free.unwrap_or_else(|| {
            mail.seats.push(None);
            mail.seats.len() - 1
        });
        mail.seats[number] = Some(occupant);
        number
    }

    /// Takes who has seat `number` away, and waits until the worker has let go
    /// of it: not longer than a round.
    fn dismiss(&self, number: usize) -> Option<Occupant> {
        let mut mail = self.mail();
        let occupant = mail.seats.get_mut(number)?.take()?;
        mail.asked += 1;
        let asked = mail.asked;
        self.waker.wake();
        while mail.let_go < asked && !mail.ended {
            let waited = self.free.wait(mail);
            mail = waited.unwrap_or_else(PoisonError::into_inner);
        }
        Some(occupant)
    }

    fn run(&self, alarm: Alarm) {
        self.serve(alarm);
        self.mail().ended = true;
        self.free.notify_all();
    }

    fn serve(&self, mut alarm: Alarm) {
        let mut events = Events::new();
        let mut hot: Vec<Hot> = Vec::new();
        let mut round = 0u32;
        let mut patience = Patience::new(self.polling);
        while !self.stop.load(Ordering::Acquire) {
            if hot.is_empty() || round % ROUNDS_PER_WAIT == 0 {
                let timeout = (!hot.is_empty()).then_some(Duration::ZERO);
                let waited = self.poller.wait(&mut events, timeout);
                if hot.is_empty() {
                    self.idle.note();
                }
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
            if worked {
                self.idle.end();
            } else {
                self.idle.note();
            }
            // A client runs on the same processors: it cannot ask for anything
            // while nobody lets it, nor can those take frames who get them. No
            // guest is to wait for that.
            let gives_way = match worked {
                true => hot.iter().all(Hot::is_client),
                false => hot.iter().any(Hot::is_client),
            };
            if gives_way {
                give_way();
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
            mail.let_go = mail.asked;
            self.free.notify_all();
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
        Some(hot) => hot.vain = None,
        None => {
            occupant.begin();
            hot.push(Hot {
                seat,
                occupant: occupant.clone(),
                vain: None,
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
            if self.vain.take().is_some() {
                patience.reward();
            }
            *worked = true;
            return true;
        }
        let vain = self.vain.get_or_insert_with(Vain::begin);
        if !patience.ends_with(vain) {
            return true;
        }
        let more = self.occupant.rest();
        if more {
            self.occupant.begin();
            self.vain = None;
        } else {
            patience.disappoint();
        }
        more
    }
}
