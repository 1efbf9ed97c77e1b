//! What went wrong, in words.

use std::{fmt, io};

/// A failure of a test or of what it stands on: a text for a reader, for
/// nothing but printing is ever done with it.
#[derive(Debug)]
pub struct Error {
    text: String,
    /// The machine lacks something: nothing was tried.
    missing: bool,
}

/// What nearly everything here returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Says what went wrong.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            missing: false,
        }
    }

    /// Says what this machine lacks: a test that ends with it is skipped, not
    /// failed.
    pub fn missing(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            missing: true,
        }
    }

    /// Whether it says what this machine lacks.
    pub fn is_missing(&self) -> bool {
        self.missing
    }

    /// Says what was being done when it did.
    #[must_use]
    pub fn while_doing(self, what: impl fmt::Display) -> Self {
        Self {
            text: format!("{what}: {}", self.text),
            ..self
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::new(error.to_string())
    }
}
