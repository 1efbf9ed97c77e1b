//! What is wrong with a command line.

use std::fmt::Display;

/// An option, what is wrong with it, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {problem}; {cure}")]
pub struct UsageError {
    /// The option as the user wrote it.
    pub option: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub cure: String,
}

impl UsageError {
    /// Says which device string the option is in.
    pub(super) fn within(mut self, outer: impl Display) -> Self {
        self.option = format!("{outer}: {}", self.option);
        self
    }
}

/// Makes an error of the option that is to blame.
pub(super) trait Blame {
    fn blame(&self, problem: impl Into<String>, cure: impl Into<String>) -> UsageError;
}

impl<T: Display + ?Sized> Blame for T {
    fn blame(&self, problem: impl Into<String>, cure: impl Into<String>) -> UsageError {
        UsageError {
            option: self.to_string(),
            problem: problem.into(),
            cure: cure.into(),
        }
    }
}
