//! Shared memory as loom sees it.
//!
//! A model says which words threads share ([`share`]); each becomes one of
//! loom's atomics, found by its address. A *word* is what is read and written
//! at once: it hides no order between its own bytes, so words are as narrow as
//! the code's narrowest access to them. An access across several words is as
//! many accesses, and one to a part of a word leaves the rest as it was, which
//! is right as long as one side at a time writes the word.
//!
//! What loom does not try: a load that sees a store which its own thread's later
//! stores have led to.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::panic::Location;
use std::sync::atomic::Ordering;
use std::sync::{self, Arc};

/// One word.
struct Word {
    at: usize,
    width: usize,
    value: loom::sync::atomic::AtomicU64,
    /// What was stored last, whoever sees it.
    latest: sync::atomic::AtomicU64,
}

loom::lazy_static! {
    static ref WORDS: sync::Mutex<BTreeMap<usize, Arc<Word>>> = sync::Mutex::default();
    static ref BELLS: sync::Mutex<BTreeMap<i32, Arc<Bell>>> = sync::Mutex::default();
}

/// The words that a model's threads share: `len` bytes at `at`, each word
/// `width` of them, and 0. To be called before there are threads.
pub fn share(at: *const u8, len: usize, width: usize) {
    let mut words = WORDS.lock().expect("no model panics in here");
    for at in (at.addr()..at.addr() + len).step_by(width) {
        let word = Word {
            at,
            width,
            value: loom::sync::atomic::AtomicU64::new(0),
            latest: sync::atomic::AtomicU64::new(0),
        };
        words.insert(at, Arc::new(word));
    }
}

impl Word {
    /// The word that the byte at `at` is in. No lock is held when this returns,
    /// as loom changes threads within an access.
    fn find(at: usize) -> Arc<Self> {
        let words = WORDS.lock().expect("no model panics in here");
        let (_, word) = words.range(..=at).next_back().expect("a shared word");
        assert!(at < word.at + word.width, "{at:#x} is not shared");
        Arc::clone(word)
    }

    /// How far a part at `at` is to be shifted, and its bits.
    fn part(&self, at: usize, width: usize) -> (usize, u64) {
        (8 * (at - self.at), u64::MAX >> (64 - 8 * width))
    }
}

fn read(at: usize, width: usize, order: Ordering) -> u64 {
    let word = Word::find(at);
    let here = width.min(word.at + word.width - at);
    let (shift, bits) = word.part(at, here);
    let value = word.value.load(order) >> shift & bits;
    if here == width {
        return value;
    }
    value | read(at + here, width - here, order) << (8 * here)
}

fn write(at: usize, width: usize, value: u64, order: Ordering) {
    let word = Word::find(at);
    let here = width.min(word.at + word.width - at);
    let (shift, bits) = word.part(at, here);
    let rest = word.latest.load(Ordering::Relaxed) & !(bits << shift);
    let all = rest | (value & bits) << shift;
    word.value.store(all, order);
    word.latest.store(all, Ordering::Relaxed);
    if here < width {
        write(at + here, width - here, value >> (8 * here), order);
    }
}

/// As one that reads, changes and writes a whole word.
fn change(at: usize, change: impl FnOnce(&loom::sync::atomic::AtomicU64) -> (u64, u64)) -> u64 {
    let word = Word::find(at);
    let (old, new) = change(&word.value);
    word.latest.store(new, Ordering::Relaxed);
    old
}

/// What is loaded and stored without an order.
pub trait Shared: Copy {
    /// Reads it from `at`.
    fn read(at: usize) -> Self;
    /// Writes it to `at`.
    fn write(self, at: usize);
}

/// Reads words, in no order with others.
///
/// # Safety
/// None is needed: what is not shared is refused.
pub unsafe fn load<T: Shared>(at: *const T) -> T {
    T::read(at.addr())
}

/// Writes words, in no order with others.
///
/// # Safety
/// None is needed: what is not shared is refused.
pub unsafe fn store<T: Shared>(at: *mut T, value: T) {
    value.write(at.addr());
}

impl<T: Shared> Shared for [T; 2] {
    fn read(at: usize) -> Self {
        [T::read(at), T::read(at + size_of::<T>())]
    }

    fn write(self, at: usize) {
        let [first, second] = self;
        first.write(at);
        second.write(at + size_of::<T>());
    }
}

/// A number, and what stands for its atomic.
macro_rules! shared {
    ($atomic:ident, $number:ident) => {
        /// Stands for the one of `std`: all that counts is where it is.
        #[repr(transparent)]
        #[derive(Debug)]
        pub struct $atomic(UnsafeCell<$number>);

        // SAFETY: nobody looks inside.
        unsafe impl Sync for $atomic {}

        #[allow(clippy::cast_possible_truncation, reason = "as wide as it was written")]
        impl $atomic {
            /// The one that is there.
            ///
            /// # Safety
            /// As for the one of `std`.
            pub unsafe fn from_ptr<'a>(at: *mut $number) -> &'a Self {
                // SAFETY: by contract.
                unsafe { &*at.cast() }
            }

            fn at(&self) -> usize {
                self.0.get().addr()
            }

            /// As `std`'s.
            pub fn load(&self, order: Ordering) -> $number {
                read(self.at(), size_of::<$number>(), order) as $number
            }

            /// As `std`'s.
            pub fn store(&self, value: $number, order: Ordering) {
                write(self.at(), size_of::<$number>(), value.into(), order);
            }

            /// As `std`'s.
            pub fn swap(&self, value: $number, order: Ordering) -> $number {
                let value = value.into();
                change(self.at(), |word| (word.swap(value, order), value)) as $number
            }

            /// As `std`'s.
            ///
            /// # Errors
            /// What is there is another number: that.
            pub fn compare_exchange(
                &self,
                current: $number,
                new: $number,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$number, $number> {
                let (current, new) = (current.into(), new.into());
                let exchange = |word: &loom::sync::atomic::AtomicU64| match word
                    .compare_exchange(current, new, success, failure)
                {
                    Ok(old) => (old, new),
                    Err(other) => (other, other),
                };
                let found: u64 = change(self.at(), exchange);
                let number = found as $number;
                if found == current {
                    Ok(number)
                } else {
                    Err(number)
                }
            }

            /// As `std`'s.
            pub fn fetch_add(&self, value: $number, order: Ordering) -> $number {
                let value: u64 = value.into();
                let add = |word: &loom::sync::atomic::AtomicU64| {
                    let old = word.fetch_add(value, order);
                    (old, old.wrapping_add(value))
                };
                change(self.at(), add) as $number
            }
        }

        impl Shared for $number {
            #[allow(clippy::cast_possible_truncation, reason = "as wide as it was written")]
            fn read(at: usize) -> Self {
                read(at, size_of::<Self>(), Ordering::Relaxed) as Self
            }

            fn write(self, at: usize) {
                write(at, size_of::<Self>(), self.into(), Ordering::Relaxed);
            }
        }
    };
}

shared!(AtomicU16, u16);
shared!(AtomicU32, u32);
shared!(AtomicU64, u64);

/// An eventfd: what a side sleeps on. A model in which nobody rings for a side
/// that sleeps ends with loom's report of a deadlock.
#[derive(Default)]
pub struct Bell {
    rung: loom::sync::Mutex<bool>,
    heard: loom::sync::Condvar,
}

impl Bell {
    fn lock(&self) -> loom::sync::MutexGuard<'_, bool> {
        self.rung.lock().expect("no model panics in here")
    }

    /// Rings.
    pub fn ring(&self) {
        *self.lock() = true;
        self.heard.notify_one();
    }

    /// Whether somebody has rung since the last time.
    pub fn take(&self) -> bool {
        std::mem::take(&mut *self.lock())
    }

    /// Sleeps until somebody rings, or has rung since the last time.
    pub fn wait(&self) {
        let mut rung = self.lock();
        while !*rung {
            rung = self.heard.wait(rung).expect("no model panics in here");
        }
        *rung = false;
    }
}

/// The bell that ends a loop.
pub const END: i32 = i32::MAX;

/// The bell that stands for a descriptor, by its number. To be called once
/// before there are threads.
pub fn bell(number: i32) -> Arc<Bell> {
    let mut bells = BELLS.lock().expect("no model panics in here");
    Arc::clone(bells.entry(number).or_default())
}

/// Rings at the other end of a pair of sockets.
pub fn ring(socket: BorrowedFd<'_>) {
    bell(socket.as_raw_fd()).ring();
}

/// Reads what the other end has rung, whose bell has the complement of the
/// number. No descriptors come along.
pub fn quiet_from_anyone(socket: BorrowedFd<'_>) -> Vec<OwnedFd> {
    bell(!socket.as_raw_fd()).take();
    Vec::new()
}

/// Where a fence is.
type Place = &'static Location<'static>;

thread_local! {
    // All threads of a model are this one.
    /// The model has threads.
    static STARTED: Cell<bool> = const { Cell::new(false) };
    /// The sequentially consistent fences that they came by.
    static FENCES: RefCell<BTreeSet<Place>> = const { RefCell::new(BTreeSet::new()) };
    /// The one that is left out.
    static LEFT_OUT: Cell<Option<Place>> = const { Cell::new(None) };
}

/// That of `std`.
#[track_caller]
pub fn fence(order: Ordering) {
    if order == Ordering::SeqCst && STARTED.get() {
        let place = Location::caller();
        FENCES.with_borrow_mut(|fences| fences.insert(place));
        if LEFT_OUT.get() == Some(place) {
            return;
        }
    }
    loom::sync::atomic::fence(order);
}

/// Starts a thread of a model, of which the calling one is another.
pub fn spawn(body: impl FnOnce() + Send + 'static) -> loom::thread::JoinHandle<()> {
    STARTED.set(true);
    // In words: a worker's turn has a batch on its stack.
    let thread = loom::thread::Builder::new().stack_size(1 << 16);
    thread.spawn(body).expect("a model has few threads")
}

/// What a model's threads do, from the first on.
pub type Model = Arc<dyn Fn() + Send + Sync>;

/// Runs models in every order, with at most so many changes from a thread that
/// could have gone on (`LOOM_MAX_PREEMPTIONS` says otherwise). Then again
/// without each of the sequentially consistent fences that their threads came
/// by: one of the models must fail.
pub fn explore(changes: usize, models: &[Model]) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(changes);
    builder.max_branches = 100_000;
    let run = |left_out| {
        LEFT_OUT.set(left_out);
        for model in models {
            let model = Arc::clone(model);
            builder.check(move || {
                STARTED.set(false);
                model();
            });
        }
    };
    run(None);
    let fences = FENCES.take();
    assert!(!fences.is_empty(), "models of nothing");
    for fence in fences {
        let run = std::panic::AssertUnwindSafe(|| run(Some(fence)));
        let passes = std::panic::catch_unwind(run).is_ok();
        assert!(!passes, "nothing is lost without the fence at {fence}");
    }
}
