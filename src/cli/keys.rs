//! What may be written after a name, `KEY=VALUE,...`, and what was.

use std::fmt::Write as _;

use super::error::{Blame, UsageError};

/// Keys that may be written, what their values look like, and what they are
/// for.
pub(super) type Known = [(&'static str, &'static str, &'static str)];

/// The part of `-h` that is about the keys `known`.
pub(super) fn usage(known: &Known) -> String {
    let mut text = String::new();
    for (key, value, purpose) in known {
        let form = format!("{key}={value}");
        // Writing to a string does not fail.
        let _ = writeln!(text, "    {form:<22} {purpose}");
    }
    text
}

/// Keys that were written, each known, with a value, and there once if it may
/// not be repeated: as written, key, value.
pub(super) struct Keys<'a>(Vec<(&'a str, &'a str, &'a str)>);

impl<'a> Keys<'a> {
    /// Reads `items`, of which each is one of the keys `known`. Those in
    /// `repeated` may be there again.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(super) fn parse(
        known: &Known,
        repeated: &[&str],
        items: impl Iterator<Item = &'a str>,
    ) -> Result<Self, UsageError> {
        let names = || {
            let names = known.iter().map(|(key, ..)| format!("{key}="));
            names.collect::<Vec<_>>().join(", ")
        };
        let mut found: Vec<(&str, &str, &str)> = Vec::new();
        for item in items {
            if item.is_empty() {
                return Err("','".blame("nothing follows it", "leave it out, or write KEY=VALUE"));
            }
            let Some((key, value)) = item.split_once('=') else {
                return Err(item.blame("'=' is missing", format!("write one of {}", names())));
            };
            let Some((_, form, _)) = known.iter().find(|(known, ..)| *known == key) else {
                return Err(item.blame("unknown key", format!("write one of {}", names())));
            };
            if value.is_empty() {
                return Err(item.blame("the value is empty", format!("write {key}={form}")));
            }
            let earlier = found.iter().any(|(_, earlier, _)| *earlier == key);
            if earlier && !repeated.contains(&key) {
                return Err(item.blame(
                    format!("{key}= is given more than once"),
                    "leave all but one out",
                ));
            }
            found.push((item, key, value));
        }
        Ok(Self(found))
    }

    /// All, in order: as written, key, value.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str, &'a str)> {
        self.0.iter().copied()
    }

    /// The item as it was written, and its value.
    pub(super) fn get(&self, wanted: &str) -> Option<(&'a str, &'a str)> {
        self.0
            .iter()
            .find(|(_, key, _)| *key == wanted)
            .map(|(item, _, value)| (*item, *value))
    }

    /// The value of `wanted`, judged by `parse`.
    pub(super) fn parse_value<T>(
        &self,
        wanted: &str,
        parse: impl FnOnce(&str, &str) -> Result<T, UsageError>,
    ) -> Result<Option<T>, UsageError> {
        self.get(wanted)
            .map(|(item, value)| parse(item, value))
            .transpose()
    }

    /// Has `key` stand for `meant`, if it is there.
    ///
    /// # Errors
    /// `meant` is there as well.
    pub(super) fn rename(&mut self, key: &str, meant: &'static str) -> Result<(), UsageError> {
        let twice = self.get(meant).is_some();
        let Some(found) = self.0.iter_mut().find(|(_, found, _)| *found == key) else {
            return Ok(());
        };
        if twice {
            return Err(found.0.blame(
                format!("excludes {meant}="),
                format!("leave one of them out: here {key}= means the same"),
            ));
        }
        found.1 = meant;
        Ok(())
    }
}
