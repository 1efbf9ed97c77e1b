//! What stands behind an option: numbers, times, addresses.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use getopts::Matches;

use crate::cli::UsageError;
use crate::net::ethernet::Mac;

/// An error that names the option and the cure.
pub(super) fn wrong(
    option: &str,
    problem: impl Into<String>,
    cure: impl Into<String>,
) -> UsageError {
    UsageError {
        option: option.to_owned(),
        problem: problem.into(),
        cure: cure.into(),
    }
}

/// The number that an option gives, if it is given.
pub(super) fn number<T>(
    matches: &Matches,
    name: &str,
    range: RangeInclusive<T>,
) -> Result<Option<T>, UsageError>
where
    T: FromStr + PartialOrd + std::fmt::Display,
{
    let Some(text) = matches.opt_str(name) else {
        return Ok(None);
    };
    text.parse()
        .ok()
        .filter(|n| range.contains(n))
        .map(Some)
        .ok_or_else(|| {
            wrong(
                &format!("--{name}={text}"),
                "not a number that is allowed here",
                format!("give one from {} to {}", range.start(), range.end()),
            )
        })
}

/// A number with a suffix, if it is given.
pub(super) fn scaled(matches: &Matches, name: &str) -> Result<Option<u64>, UsageError> {
    let Some(text) = matches.opt_str(name) else {
        return Ok(None);
    };
    let split = text.find(|c: char| !c.is_ascii_digit());
    let (digits, suffix) = text.split_at(split.unwrap_or(text.len()));
    let scale = match suffix {
        "" => Some(1),
        "k" | "K" => Some(1_000),
        "m" | "M" => Some(1_000_000),
        "g" | "G" => Some(1_000_000_000),
        _ => None,
    };
    let value = scale.and_then(|scale| digits.parse::<u64>().ok()?.checked_mul(scale));
    value.filter(|&n| n > 0).map(Some).ok_or_else(|| {
        wrong(
            &format!("--{name}={text}"),
            "not a number above 0",
            "give digits and at most one of k, M and G, as in 100k",
        )
    })
}

/// A time in seconds, if it is given.
pub(super) fn seconds(matches: &Matches, name: &str) -> Result<Option<Duration>, UsageError> {
    let Some(text) = matches.opt_str(name) else {
        return Ok(None);
    };
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let value = if plain {
        text.parse::<f64>().ok()
    } else {
        None
    };
    value
        .and_then(|s| Duration::try_from_secs_f64(s).ok())
        .map(Some)
        .ok_or_else(|| {
            wrong(
                &format!("--{name}={text}"),
                "not a number of seconds",
                "give one as in 10 or 0.5",
            )
        })
}

/// A MAC address, if it is given.
pub(super) fn mac(matches: &Matches, name: &str) -> Result<Option<Mac>, UsageError> {
    let Some(text) = matches.opt_str(name) else {
        return Ok(None);
    };
    let option = format!("--{name}={text}");
    text.parse().map(Some).map_err(|error| {
        wrong(
            &option,
            format!("{error}"),
            "give a MAC address like 58:9c:fc:0a:0b:0c",
        )
    })
}
