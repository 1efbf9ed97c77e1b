//! What vtgen(8) tells of what it did: lines for people, JSON for programs.

use std::fmt::{self, Display, Write as _};
use std::time::Duration;

use super::latency::Latency;
use super::net::Flow;
use super::traffic::Tally;

/// What one run counts.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Frames that the device has taken.
    pub tx: Flow,
    /// Frames that the device has brought.
    pub rx: Flow,
    /// Frames that were due by the rate and for which the device had no room.
    pub missed: u64,
    /// What arrived, judged.
    pub tally: Tally,
    /// Times from sending a probe to its return.
    pub latency: Latency,
}

/// What the numbers are about, and so which of them are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Frames were sent.
    Source,
    /// Frames were received and judged.
    Sink,
    /// Frames were sent back.
    Reflector,
    /// Probes were sent and came back.
    Ping,
}

impl Kind {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "tx",
            Self::Sink => "rx",
            Self::Reflector => "reflect",
            Self::Ping => "ping",
        }
    }

    fn sends(self) -> bool {
        self != Self::Sink
    }

    fn receives(self) -> bool {
        self != Self::Source
    }
}

/// Frames that should have arrived and did not. Whoever pings knows how many
/// were sent; a receiver knows of gaps only.
fn lost(kind: Kind, counters: &Counters) -> u64 {
    let tally = &counters.tally;
    if kind == Kind::Ping {
        let arrived = tally.good.saturating_sub(tally.duplicate());
        counters.tx.frames.saturating_sub(arrived)
    } else {
        tally.lost()
    }
}

/// A number for people: three digits and a prefix.
struct Scaled(f64, &'static str);

impl Display for Scaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
        let (scale, prefix) = steps
            .into_iter()
            .find(|(scale, _)| self.0 >= *scale)
            .unwrap_or((1.0, ""));
        let value = self.0 / scale;
        let digits = match value {
            100.0.. => 0,
            10.0.. => 1,
            _ => 2,
        };
        write!(f, "{value:.digits$} {prefix}{}", self.1)
    }
}

/// `count` a second; 0 when no time has passed.
#[expect(clippy::cast_precision_loss, reason = "a rate is told with few digits")]
fn per_second(count: u64, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

/// The rates of one way in words.
fn rates(flow: Flow, time: Duration) -> String {
    format!(
        "{}, {}",
        Scaled(per_second(flow.frames, time), "frames/s"),
        Scaled(8.0 * per_second(flow.bytes, time), "bit/s"),
    )
}

/// One line about the `time` since `earlier`.
pub fn interval(kind: Kind, now: &Counters, earlier: &Counters, time: Duration) -> String {
    let mut line = String::new();
    if kind.sends() {
        line += &format!("tx {}", rates(now.tx.since(earlier.tx), time));
        if now.missed > earlier.missed {
            line += &format!(", {} missed", now.missed - earlier.missed);
        }
    }
    if kind.receives() {
        let sep = if line.is_empty() { "" } else { "; " };
        line += &format!("{sep}rx {}", rates(now.rx.since(earlier.rx), time));
        // A gap may close again, so the difference may be negative.
        let lost = i128::from(now.tally.lost()) - i128::from(earlier.tally.lost());
        if lost != 0 {
            line += &format!(", {lost} lost");
        }
    }
    line
}

/// How long a run took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// All of it.
    pub total: Duration,
    /// From the first frame that arrived to the last.
    pub receiving: Duration,
}

impl Times {
    /// What frames that were sent are to be divided by: a reflector sends while
    /// it receives.
    fn sending(self, kind: Kind) -> Duration {
        if kind == Kind::Reflector {
            self.receiving
        } else {
            self.total
        }
    }
}

/// What is told at the end, for people.
pub fn summary(kind: Kind, counters: &Counters, times: Times) -> String {
    let mut text = String::new();
    let way = |name: &str, flow: Flow, time: Duration| {
        format!(
            "{name}: {} frames, {} bytes in {:.3} s: {}",
            flow.frames,
            flow.bytes,
            time.as_secs_f64(),
            rates(flow, time)
        )
    };
    if kind.sends() {
        text += &way("tx", counters.tx, times.sending(kind));
        if counters.missed > 0 {
            text += &format!(", {} missed", counters.missed);
        }
        text.push('\n');
    }
    if kind.receives() {
        text += &way("rx", counters.rx, times.receiving);
        text.push('\n');
    }
    let tally = &counters.tally;
    if matches!(kind, Kind::Sink | Kind::Ping) {
        let _ = writeln!(
            text,
            "rx: {} probes, {} lost, {} late, {} duplicate, {} corrupt, {} other frames",
            tally.good,
            lost(kind, counters),
            tally.late(),
            tally.duplicate(),
            tally.corrupt,
            tally.foreign
        );
    }
    // Without an answer there is no time.
    if kind == Kind::Ping && counters.latency.count() > 0 {
        let times: Vec<_> = quantiles(&counters.latency)
            .into_iter()
            .map(|(name, time)| format!("{name} {:.1}", micros(time)))
            .collect();
        let _ = writeln!(text, "round trip in us: {}", times.join(", "));
    }
    text
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// What is told of a distribution.
fn quantiles(latency: &Latency) -> [(&'static str, Duration); 6] {
    [
        ("min", latency.min()),
        ("avg", latency.mean()),
        ("p50", latency.quantile(500)),
        ("p90", latency.quantile(900)),
        ("p99", latency.quantile(990)),
        ("max", latency.max()),
    ]
}

/// What is told at the end, for programs: one JSON object on one line.
pub fn json(kind: Kind, counters: &Counters, times: Times) -> String {
    let way = |name: &str, flow: Flow, time: Duration| {
        format!(
            "\"{name}\": {{\"frames\": {}, \"bytes\": {}, \"seconds\": {:.6}, \
             \"frames_per_second\": {:.1}, \"bits_per_second\": {:.1}",
            flow.frames,
            flow.bytes,
            time.as_secs_f64(),
            per_second(flow.frames, time),
            8.0 * per_second(flow.bytes, time)
        )
    };
    let tally = &counters.tally;
    let mut text = format!(
        "{{\"mode\": \"{}\", \"seconds\": {:.6}, {}, \"missed\": {}}}, {}, \"probes\": {}, \
         \"lost\": {}, \"late\": {}, \"duplicate\": {}, \"corrupt\": {}, \"other\": {}}}",
        kind.name(),
        times.total.as_secs_f64(),
        way("tx", counters.tx, times.sending(kind)),
        counters.missed,
        way("rx", counters.rx, times.receiving),
        tally.good,
        lost(kind, counters),
        tally.late(),
        tally.duplicate(),
        tally.corrupt,
        tally.foreign
    );
    if kind == Kind::Ping {
        let times: Vec<_> = quantiles(&counters.latency)
            .into_iter()
            .map(|(name, time)| format!("\"{name}\": {:.3}", micros(time)))
            .collect();
        text += &format!(", \"latency_us\": {{{}}}", times.join(", "));
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::traffic::{Probe, Verdict};

    const TIMES: Times = Times {
        total: Duration::from_secs(2),
        receiving: Duration::from_secs(1),
    };

    fn counters() -> Counters {
        let mut counters = Counters::default();
        for _ in 0..3000 {
            counters.tx.add(60);
            counters.rx.add(1514);
        }
        counters.missed = 7;
        for sequence in [0, 2] {
            counters.tally.count(Verdict::Good(Probe {
                stream: 1,
                sequence,
                time: 0,
            }));
        }
        counters.tally.count(Verdict::Corrupt);
        counters.latency.record(1500);
        counters
    }

    #[test]
    fn people_read_rates_and_losses() {
        let time = Duration::from_secs(2);
        let all = counters();
        assert_eq!(
            summary(Kind::Source, &all, TIMES),
            "tx: 3000 frames, 180000 bytes in 2.000 s: 1.50 kframes/s, 720 kbit/s, 7 missed\n"
        );
        assert_eq!(
            summary(Kind::Sink, &all, TIMES),
            "rx: 3000 frames, 4542000 bytes in 1.000 s: 3.00 kframes/s, 36.3 Mbit/s\n\
             rx: 2 probes, 1 lost, 0 late, 0 duplicate, 1 corrupt, 0 other frames\n"
        );
        assert!(
            summary(Kind::Ping, &all, TIMES).ends_with(
                "round trip in us: min 1.5, avg 1.5, p50 1.5, p90 1.5, p99 1.5, max 1.5\n"
            )
        );
        assert_eq!(
            interval(Kind::Reflector, &all, &Counters::default(), time),
            "tx 1.50 kframes/s, 720 kbit/s, 7 missed; rx 1.50 kframes/s, 18.2 Mbit/s, 1 lost"
        );
    }

    #[test]
    fn programs_read_one_object() {
        assert_eq!(
            json(Kind::Ping, &counters(), TIMES),
            "{\"mode\": \"ping\", \"seconds\": 2.000000, \
             \"tx\": {\"frames\": 3000, \"bytes\": 180000, \"seconds\": 2.000000, \"frames_per_second\": 1500.0, \
             \"bits_per_second\": 720000.0, \"missed\": 7}, \
             \"rx\": {\"frames\": 3000, \"bytes\": 4542000, \"seconds\": 1.000000, \
             \"frames_per_second\": 3000.0, \"bits_per_second\": 36336000.0, \"probes\": 2, \"lost\": 2998, \"late\": 0, \
             \"duplicate\": 0, \"corrupt\": 1, \"other\": 0}, \
             \"latency_us\": {\"min\": 1.500, \"avg\": 1.500, \"p50\": 1.500, \"p90\": 1.500, \
             \"p99\": 1.500, \"max\": 1.500}}"
        );
    }

    #[test]
    fn no_time_is_no_rate() {
        assert_eq!(
            rates(
                Flow {
                    frames: 1,
                    bytes: 1
                },
                Duration::ZERO
            ),
            "0.00 frames/s, 0.00 bit/s"
        );
    }

    #[test]
    fn without_an_answer_no_time_is_told() {
        let silent = Counters::default();
        assert!(!summary(Kind::Ping, &silent, TIMES).contains("round trip"));
        assert!(summary(Kind::Ping, &counters(), TIMES).contains("round trip in us: min 1.5"));
    }
}
