//! How often the kernel is asked to send: once for a batch at most. That several
//! go together where more wait is for `backend/netmap/tests` to see: here it is
//! a matter of who is faster.

use bed::freebsd::run_words;
use bed::{Error, Result, Scratch, Test};
use vtnetd::netmap::port::HeaderLen;

use super::client::Client;
use crate::drive::{SOON, Served};

pub fn tests() -> Vec<Test> {
    vec![Test::new("vale::a_batch_takes_one_sync", one_a_batch)]
}

/// System calls of vtnetd, as ktrace(1) sees them while a guest sends.
fn one_a_batch() -> Result<()> {
    const FRAMES: u64 = 20_000;
    let mut served = Served::start(&["vale9:a,type=kernel"])?;
    let _receiver = Client::new("vale9:other", HeaderLen::Full)?;
    let scratch = Scratch::new()?;
    let trace = scratch.path("trace").display().to_string();
    let traced = served.vtnetd.id().to_string();
    run_words(&["ktrace", "-t", "c", "-f", &trace, "-p", &traced])?;
    let mut sending = served.vtgen(0, &["--count", &FRAMES.to_string(), "tx"])?;
    let status = sending.wait(SOON)?;
    run_words(&["ktrace", "-C"])?;
    if !status.success() {
        return Err(sending.explain(Error::new(status.to_string()), "tx"));
    }
    let calls = run_words(&["kdump", "-f", &trace])?;
    let syncs = calls.matches("NIOCTXSYNC").count() as u64;
    let counters = served.vtnetd.counters()?;
    let [frames, batches] = ["frames", "batches"].map(|name| counters.sum("vale9:a tx", name));
    if frames != FRAMES || syncs == 0 || syncs > batches || batches >= frames {
        return Err(Error::new(format!(
            "{syncs} syncs for {batches} batches of {frames} frames, of {FRAMES} that were sent"
        )));
    }
    println!("{syncs} syncs for {batches} batches of {frames} frames");
    Ok(())
}
