//! The log, on standard error.
//!
//! Guests and front ends can make things happen as often as they like, and
//! some of these are worth a line: a front end that comes and goes, a ring that
//! is set up wrongly. So the log has a limit: of lines of one kind about one
//! device only so many a second are written, unless each message is asked for. How
//! many were left out is said with the next one that is written. And nobody waits for who reads it: see
//! [`detach`].

mod lines;

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

pub use lines::{detach, flush};

/// Most lines of one kind about one thing in one [`PERIOD`].
const BURST: u32 = 20;
const PERIOD: Duration = Duration::from_secs(1);
/// Most kinds and things that are told apart; then counting begins anew.
const SUBJECTS: usize = 1024;

/// The target of lines that whoever runs this process has asked for: neither a
/// guest nor a front end can, so they have no limit.
pub const ASKED: &str = "vtnetd::asked";

/// Starts logging: warnings, errors and what happens to connections; `verbose`
/// is how many steps more. `debug` adds module and thread to each line.
///
/// A second start changes nothing.
pub fn start(verbose: usize, debug: bool) {
    let level = match verbose {
        0 => Level::INFO,
        1 => Level::DEBUG,
        _ => Level::TRACE,
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| Lines)
        .with_target(debug)
        .with_thread_names(debug)
        .with_filter(Limit::default());
    let level = tracing_subscriber::filter::LevelFilter::from_level(level);
    // An error says that there is a subscriber already.
    let _ = tracing_subscriber::registry()
        .with(level)
        .with(lines)
        .try_init();
}

/// Writes `line` after what was logged, without time and level.
pub fn say(line: fmt::Arguments<'_>) {
    lines::write(format!("{line}\n").as_bytes());
}

/// Takes one line in each call.
struct Lines;

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        lines::write(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a line is about: the place in the program that it comes from, and what
/// its message begins with, which is the name of a device.
type Subject = (Identifier, String);

/// The lines about one subject in the current period.
struct Window {
    since: Instant,
    lines: u32,
    left_out: u64,
}

/// Lets the first lines of a burst through.
#[derive(Default)]
struct Limit(Mutex<HashMap<Subject, Window>>);

/// What to do with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Write,
    /// Write it, after saying that so many like it were left out.
    WriteAfter(u64),
    LeaveOut,
}

impl Limit {
    fn judge(&self, subject: Subject, now: Instant) -> Verdict {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= SUBJECTS && !windows.contains_key(&subject) {
            windows.clear();
        }
        let window = windows.entry(subject).or_insert(Window {
            since: now,
            lines: 0,
            left_out: 0,
        });
        let mut verdict = Verdict::Write;
        if now.saturating_duration_since(window.since) >= PERIOD {
            if window.left_out > 0 {
                verdict = Verdict::WriteAfter(window.left_out);
            }
            *window = Window {
                since: now,
                lines: 0,
                left_out: 0,
            };
        }
        if window.lines >= BURST {
            window.left_out += 1;
            return Verdict::LeaveOut;
        }
        window.lines += 1;
        verdict
    }
}

impl<S: Subscriber> Filter<S> for Limit {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        // Who asks for every message gets every one.
        let meta = event.metadata();
        if meta.target() == ASKED || *meta.level() == Level::TRACE {
            return true;
        }
        let mut beginning = Beginning::default();
        event.record(&mut beginning);
        let name = beginning.0;
        let subject = (meta.callsite(), name.clone());
        match self.judge(subject, Instant::now()) {
            Verdict::Write => true,
            Verdict::LeaveOut => false,
            Verdict::WriteAfter(count) => {
                // Not by an event of its own: it is inside of one.
                let line = format!("... {name}: {count} more lines like the next were left out\n");
                lines::write(line.as_bytes());
                true
            }
        }
    }
}

/// What a message begins with, up to the first `": "`.
#[derive(Default)]
struct Beginning(String);

/// Longer names are told apart by what they begin with.
const NAME: usize = 400;

impl Visit for Beginning {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing fails once enough was written.
            let _ = write!(self, "{value:?}");
        }
    }
}

impl fmt::Write for Beginning {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push_str(text);
        if let Some(end) = self.0.find(": ") {
            self.0.truncate(end);
            return Err(fmt::Error);
        }
        if self.0.len() > NAME {
            return Err(fmt::Error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(limit: &Limit, name: &str, now: Instant) -> Verdict {
        struct Place;
        impl tracing::Callsite for Place {
            fn set_interest(&self, _: tracing::subscriber::Interest) {}
            fn metadata(&self) -> &Metadata<'_> {
                unreachable!("only its address counts")
            }
        }
        limit.judge((Identifier(&Place), name.to_owned()), now)
    }

    fn beginning(message: fmt::Arguments<'_>) -> String {
        let mut beginning = Beginning::default();
        let _ = beginning.write_fmt(message);
        beginning.0
    }

    #[test]
    fn a_burst_is_cut_and_what_is_cut_is_counted() {
        let limit = Limit::default();
        let now = Instant::now();
        for _ in 0..BURST {
            assert_eq!(judge(&limit, "vm1", now), Verdict::Write);
        }
        for _ in 0..1000 {
            assert_eq!(judge(&limit, "vm1", now), Verdict::LeaveOut);
        }
        // Another's are not touched.
        assert_eq!(judge(&limit, "vm2", now), Verdict::Write);
        let later = now + PERIOD;
        assert_eq!(judge(&limit, "vm1", later), Verdict::WriteAfter(1000));
        assert_eq!(judge(&limit, "vm1", later), Verdict::Write);
    }

    #[test]
    fn subjects_without_end_take_no_memory_without_end() {
        let limit = Limit::default();
        let now = Instant::now();
        for number in 0..10 * SUBJECTS {
            judge(&limit, &number.to_string(), now);
        }
        assert!(limit.0.lock().unwrap().len() <= SUBJECTS);
    }

    #[test]
    fn a_message_begins_with_its_subject() {
        let (name, path) = ("vale0:vm1", "p".repeat(10_000));
        assert_eq!(beginning(format_args!("{name}: bad: {path}")), name);
        assert_eq!(beginning(format_args!("ready")), "ready");
        assert!(beginning(format_args!("{path}{path}")).len() < 3 * path.len() / 2);
    }
}
