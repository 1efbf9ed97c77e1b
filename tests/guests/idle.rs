//! What guests cost that do nothing.

use std::thread;
use std::time::Duration;

use bed::{Error, Result};

use crate::bench::Bench;

/// How long they do nothing.
const WHILE: Duration = Duration::from_secs(10);
/// How much processor time vtnetd may use in it.
const PROCESSOR_TIME: Duration = Duration::from_millis(10);
/// How much memory of its own it may have, in bytes.
const RESIDENT: u64 = 16 << 20;

pub fn two_guests() -> Result<()> {
    let bench = Bench::with_guests()?;
    let before = bench.vtnetd.processor_time()?;
    // Time is what is measured here, not waited for.
    thread::sleep(WHILE);
    let used = bench.vtnetd.processor_time()? - before;
    let resident = bench.vtnetd.private_resident()?;
    println!(
        "idle: {used:?} of processor time, {} KiB resident",
        resident >> 10
    );
    if used >= PROCESSOR_TIME {
        return Err(Error::new(format!(
            "{used:?} of processor time in {WHILE:?}"
        )));
    }
    if resident >= RESIDENT {
        return Err(Error::new(format!("{resident} bytes of memory of its own")));
    }
    Ok(())
}
