//! What went wrong, in words.

use std::{fmt, io};

/// A failure of a test or of what it stands on: a text for a reader, for
/// nothing but printing is ever done with it.
#[derive(Debug)]
pub struct Error(String);

/// What nearly everything here returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Says what went wrong.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Says what was being done when it did.
    #[must_use]
    pub fn while_doing(self, what: impl fmt::Display) -> Self {
        Self(format!("{what}: {}", self.0))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}
