//! What a process has said, as lines that can be waited for.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// The lines of one stream, read by a thread of their own until it ends.
pub struct Transcript {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    ended: bool,
}

impl Transcript {
    /// Starts to read.
    pub fn of(stream: impl Read + Send + 'static) -> Arc<Self> {
        let transcript = Arc::new(Self {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let writer = Arc::clone(&transcript);
        thread::spawn(move || writer.follow(BufReader::new(stream)));
        transcript
    }

    fn follow(&self, mut stream: impl BufRead) {
        let mut line = Vec::new();
        // An error ends it as the end does: nothing more will come.
        while stream.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            self.lock().lines.push(text);
            self.changed.notify_all();
            line.clear();
        }
        self.lock().ended = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many lines there are by now.
    pub fn len(&self) -> usize {
        self.lock().lines.len()
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The lines from number `from` on.
    pub fn since(&self, from: usize) -> Vec<String> {
        self.lock().lines.iter().skip(from).cloned().collect()
    }

    /// Waits for a line, from number `from` on, that `is_it` accepts, and
    /// returns its number.
    ///
    /// # Errors
    /// The stream ended without one, or `within` has passed.
    pub fn wait_for(
        &self,
        from: usize,
        within: Duration,
        is_it: impl Fn(&str) -> bool,
    ) -> Result<usize> {
        let deadline = Instant::now() + within;
        let mut state = self.lock();
        let mut next = from;
        loop {
            while let Some(line) = state.lines.get(next) {
                if is_it(line) {
                    return Ok(next);
                }
                next += 1;
            }
            if state.ended {
                return Err(Error::new("ended"));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::new(format!("nothing within {} s", within.as_secs())));
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits for the end of the stream.
    ///
    /// # Errors
    /// `within` has passed.
    pub fn wait_for_end(&self, within: Duration) -> Result<()> {
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), within, |state| !state.ended)
            .unwrap_or_else(PoisonError::into_inner);
        if !state.ended {
            return Err(Error::new(format!(
                "still there after {} s",
                within.as_secs()
            )));
        }
        Ok(())
    }
}
