//! Tests that a machine may not be able to run.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};

use crate::{Error, Result};

/// One test.
pub struct Test {
    name: String,
    body: Box<dyn FnOnce() -> Result<()> + Send>,
    missing: Option<Error>,
}

impl Test {
    /// A test and its name.
    pub fn new(
        name: impl Into<String>,
        body: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            body: Box::new(body),
            missing: None,
        }
    }

    /// The same test, which needs `equipment` of its own.
    #[must_use]
    pub fn needing(mut self, equipment: Result<()>) -> Self {
        self.missing = equipment.err();
        self
    }
}

/// Says on one line why a test does not run; to standard error itself, for
/// what a test prints is kept by the standard harness.
pub fn skipped(why: impl fmt::Display) {
    // A test that nobody listens to is skipped all the same.
    let _ = writeln!(io::stderr(), "skipped: {why}");
}

/// Runs `tests` as the standard harness would, and one at a time, for each
/// wants the whole machine. When `equipment` is an error, they are counted as
/// ignored and the error says why; a single one when its own is missing.
pub fn run_tests(equipment: std::result::Result<(), Error>, tests: Vec<Test>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if let (Err(missing), false) = (&equipment, arguments.list) {
        skipped(missing);
    }
    let trials = tests
        .into_iter()
        .map(|test| {
            if let (Some(missing), Ok(()), false) = (&test.missing, &equipment, arguments.list) {
                skipped(format_args!("{}: {missing}", test.name));
            }
            let name = test.name.clone();
            let body = move || match (test.body)() {
                Ok(()) => Ok(Completion::Completed),
                Err(missing) if missing.is_missing() => {
                    skipped(format_args!("{name}: {missing}"));
                    Ok(Completion::ignored_with(missing))
                }
                Err(error) => Err(error.into()),
            };
            Trial::ignorable_test(test.name, body)
                .with_ignored_flag(equipment.is_err() || test.missing.is_some())
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
