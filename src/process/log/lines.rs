//! Lines on their way to standard error.
//!
//! Whoever reads them may be slow, or not read at all, as where a pipe's reader
//! is stopped or a terminal is held. What is served must not wait for that: once
//! [`detach`] was called a thread of its own writes the lines. Those that find
//! no room meanwhile are left out, and how many they were is said in their
//! place.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Most bytes that wait to be written.
const ROOM: usize = 1 << 20;
/// How long a process that ends waits for its last lines to be written.
const PATIENCE: Duration = Duration::from_secs(1);

/// Lines that wait.
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lines that found no room since the last one that did.
    left_out: u64,
    /// One is being written.
    writing: bool,
}

impl Queue {
    const fn new() -> Self {
        Self {
            lines: VecDeque::new(),
            bytes: 0,
            left_out: 0,
            writing: false,
        }
    }

    fn add(&mut self, line: &[u8]) {
        if self.bytes + line.len() > ROOM && !self.lines.is_empty() {
            self.left_out += 1;
            return;
        }
        if let Some(gap) = self.gap() {
            self.push(gap);
        }
        self.push(line.to_vec());
    }

    fn push(&mut self, line: Vec<u8>) {
        self.bytes += line.len();
        self.lines.push_back(line);
    }

    /// The next line to write.
    fn take(&mut self) -> Option<Vec<u8>> {
        match self.lines.pop_front() {
            Some(line) => {
                self.bytes -= line.len();
                Some(line)
            }
            None => self.gap(),
        }
    }

    /// What is said in place of the lines that were left out.
    fn gap(&mut self) -> Option<Vec<u8>> {
        let count = std::mem::take(&mut self.left_out);
        let said = || format!("... log: {count} lines were left out: they were not read in time\n");
        (count > 0).then(|| said().into_bytes())
    }

    fn is_done(&self) -> bool {
        self.lines.is_empty() && self.left_out == 0 && !self.writing
    }
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue::new());
/// There is a line to write.
static MORE: Condvar = Condvar::new();
/// All lines are written.
static DONE: Condvar = Condvar::new();
/// There is a thread that writes.
static DETACHED: AtomicBool = AtomicBool::new(false);

fn lock() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes one line, or has it written.
pub(super) fn write(line: &[u8]) {
    if DETACHED.load(Ordering::Acquire) {
        lock().add(line);
        MORE.notify_one();
    } else {
        // Who cannot be told is not told.
        let _ = io::stderr().write_all(line);
    }
}

/// Has lines written by a thread of its own from now on: to be called before
/// the sandbox is sealed, and after the last fork.
///
/// # Errors
/// The system gives no thread; then everything is as it was.
pub fn detach() -> io::Result<()> {
    thread::Builder::new().name("log".to_owned()).spawn(run)?;
    if !DETACHED.swap(true, Ordering::AcqRel) {
        // A panic aborts the process, and the last lines say how it came to it.
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |about| {
            flush();
            default(about);
        }));
    }
    Ok(())
}

fn run() {
    let mut queue = lock();
    loop {
        match queue.take() {
            Some(line) => {
                queue.writing = true;
                drop(queue);
                let _ = io::stderr().write_all(&line);
                queue = lock();
                queue.writing = false;
            }
            None => {
                DONE.notify_all();
                queue = MORE.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// Waits until all lines are written, for a moment at most: to be called before
/// the process ends.
pub fn flush() {
    let waits = |queue: &mut Queue| !queue.is_done();
    // The lock is nobody's afterwards, whether it came to that or not.
    drop(DONE.wait_timeout_while(lock(), PATIENCE, waits));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes all lines that wait.
    fn taken(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.take())
            .map(|line| String::from_utf8(line).unwrap())
            .collect()
    }

    #[test]
    fn what_finds_no_room_is_left_out_and_counted_in_its_place() {
        let mut queue = Queue::new();
        let long = vec![b'x'; ROOM / 4];
        for _ in 0..7 {
            queue.add(&long);
        }
        assert_eq!(queue.bytes, ROOM);
        assert!(!queue.is_done());
        // There is room again.
        queue.take().unwrap();
        queue.add(b"next\n");
        let lines = taken(&mut queue);
        assert_eq!(lines.len(), 5);
        assert!(lines[3].starts_with("... log: 3 lines were left out"));
        assert_eq!(lines[4], "next\n");
        assert!(queue.is_done());
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn what_was_left_out_last_is_said_as_well() {
        let mut queue = Queue::new();
        // Longer than there is room, but alone.
        queue.add(&vec![b'x'; ROOM + 1]);
        queue.add(b"y");
        queue.take().unwrap();
        assert!(!queue.is_done());
        let lines = taken(&mut queue);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("... log: 1 lines"), "{lines:?}");
        assert!(queue.is_done());
    }
}
