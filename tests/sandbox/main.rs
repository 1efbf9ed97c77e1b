//! Everything that the sandbox is to forbid, tried from inside of it.
//!
//! Each attempt is a process of its own: this program, started again. It opens
//! what it wants to misuse, puts the sandbox on, tries, and tells how that went.
//! To know that an attempt is one, it is made without the sandbox as well.

mod attempts;
mod scene;

use std::fmt;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use bed::{Error, Result, Test, run_tests};
use nix::errno::Errno;
use vtnetd::sandbox::{Sandbox, Use};

use attempts::{ATTEMPTS, Attempt, Outcome, USES};
use scene::{Place, Scene};

/// Names the attempt that a process is to make.
const ATTEMPT: &str = "VTNETD_ATTEMPT";
/// How much of the sandbox it puts on.
const SANDBOX: &str = "VTNETD_ATTEMPT_SANDBOX";
/// A process that ends with this has done what it tried; with 1 it was refused,
/// and has said why.
const DONE: i32 = 0;

/// How much of the sandbox.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layers {
    None,
    /// What is put on before there are threads: on Linux, Landlock.
    First,
    All,
}

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(ATTEMPT) {
        return attempt(&name);
    }
    let mut tests = Vec::new();
    for attempt in ATTEMPTS.iter().chain(USES) {
        tests.push(Test::new(attempt.name, || check(attempt)));
    }
    run_tests(Ok(()), tests)
}

/// The attempt's own process.
fn attempt(name: &str) -> ExitCode {
    let layers = match std::env::var(SANDBOX).as_deref() {
        Ok("none") => Layers::None,
        Ok("first") => Layers::First,
        _ => Layers::All,
    };
    let Some(attempt) = ATTEMPTS.iter().chain(USES).find(|one| one.name == name) else {
        eprintln!("no attempt is called {name}");
        return ExitCode::from(2);
    };
    let scene = match Scene::enter(layers != Layers::None) {
        Ok(scene) => scene,
        Err(error) => {
            eprintln!("scene: {error}");
            return ExitCode::from(2);
        }
    };
    if layers != Layers::None {
        let sandbox = Sandbox::confine();
        let on = match layers {
            Layers::All => sandbox.and_then(|sandbox| sandbox.seal(Use::Devices)),
            _ => sandbox.map(drop),
        };
        if let Err(error) = on {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    }
    match (attempt.body)(&scene) {
        Ok(()) => ExitCode::SUCCESS,
        Err(errno) => {
            println!("{}", errno as i32);
            ExitCode::FAILURE
        }
    }
}

fn check(attempt: &Attempt) -> Result<()> {
    let place = Place::new()?;
    // As root of a container not everything can be done that is tried here.
    let free = run(&place, attempt, "none")?;
    if free.refusal()? == Some(Errno::ENOSYS) {
        println!("{}: this kernel does not know it", attempt.name);
    } else if !attempt.may_fail_anyway && free.status.code() != Some(DONE) {
        return Err(Error::new(format!("without a sandbox: {free}")));
    }
    // Made afresh: the first may have used it up.
    let place = Place::new()?;
    let boxed = run(&place, attempt, "all")?;
    let as_expected = match attempt.outcome {
        Outcome::Done => boxed.status.code() == Some(DONE),
        Outcome::Refused => boxed.refusal()?.is_some_and(is_refusal),
        Outcome::Killed => boxed.was_killed(),
    };
    if !as_expected {
        let wanted = attempt.outcome;
        return Err(Error::new(format!("{wanted:?} was expected: {boxed}")));
    }
    if attempt.first_layer {
        let place = Place::new()?;
        let boxed = run(&place, attempt, "first")?;
        if !boxed.refusal()?.is_some_and(is_refusal) {
            return Err(Error::new(format!("by Landlock alone: {boxed}")));
        }
    }
    Ok(())
}

/// Said by the sandbox and by nothing else.
#[cfg(target_os = "freebsd")]
fn is_refusal(errno: Errno) -> bool {
    // A sysctl(3) that is not for everybody is EPERM.
    matches!(errno, Errno::ECAPMODE | Errno::ENOTCAPABLE | Errno::EPERM)
}

#[cfg(not(target_os = "freebsd"))]
fn is_refusal(errno: Errno) -> bool {
    matches!(errno, Errno::EPERM | Errno::EACCES)
}

/// How an attempt went.
struct Ended {
    status: ExitStatus,
    said: String,
    errors: String,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            status,
            said,
            errors,
        } = self;
        write!(f, "{status}, errno {said:?}, {errors:?}")
    }
}

impl Ended {
    /// What it was refused with, if it was.
    fn refusal(&self) -> Result<Option<Errno>> {
        if self.status.code() != Some(1) {
            return Ok(None);
        }
        let number = self.said.trim().parse();
        let number = number.map_err(|_| Error::new(format!("not a number: {self}")))?;
        Ok(Some(Errno::from_raw(number)))
    }

    /// By the system call filter.
    fn was_killed(&self) -> bool {
        use std::os::unix::process::ExitStatusExt;
        self.status.signal() == Some(nix::libc::SIGSYS)
    }
}

fn run(place: &Place, attempt: &Attempt, layers: &str) -> Result<Ended> {
    let output = Command::new(std::env::current_exe()?)
        .env(ATTEMPT, attempt.name)
        .env(SANDBOX, layers)
        .envs(place.variables())
        .stdin(Stdio::null())
        .output()?;
    Ok(Ended {
        status: output.status,
        said: String::from_utf8_lossy(&output.stdout).into_owned(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
