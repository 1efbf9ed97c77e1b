//! The processor that a thread is on, and how to get off it.

use nix::sched::{sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

/// This thread, where a thread's number is asked for.
const SELF: Pid = Pid::from_raw(0);

/// The processor that this thread is on, counted from 0; the next moment it may
/// be on another. `None`: the system does not say, or it is nobody's business:
/// Linux moves a thread that waits for one processor to another by itself.
#[inline]
pub fn processor() -> Option<u32> {
    if cfg!(target_os = "linux") {
        return None;
    }
    u32::try_from(sched_getcpu().ok()?).ok()
}

/// Moves this thread from `processor` to another that it may be on; `false`:
/// there is none. It may come back whenever the system wants, for where it may be
/// is then what it was. (As a list of its own, which does not follow one that
/// others make longer later.)
pub fn leave(processor: u32) -> bool {
    let Ok(processor) = usize::try_from(processor) else {
        return false;
    };
    let Ok(allowed) = sched_getaffinity(SELF) else {
        return false;
    };
    let mut others = allowed;
    // To be allowed none is an error, and changes nothing.
    if others.unset(processor).is_err() || sched_setaffinity(SELF, &others).is_err() {
        return false;
    }
    // If somebody has said something else meanwhile, that holds.
    if sched_getaffinity(SELF).is_ok_and(|now| now == others) {
        // It was allowed before.
        let _ = sched_setaffinity(SELF, &allowed);
    }
    true
}

#[cfg(test)]
mod tests {
    use nix::sched::CpuSet;

    use super::*;

    /// How often it is tried: a thread may be moved back at once, by others' work.
    const TRIES: usize = 1000;

    fn count(set: &CpuSet) -> usize {
        let all = 0..CpuSet::count();
        all.filter(|&at| set.is_set(at) == Ok(true)).count()
    }

    fn here() -> u32 {
        u32::try_from(sched_getcpu().unwrap()).unwrap()
    }

    #[test]
    fn a_thread_leaves_its_processor_and_may_come_back() {
        let allowed = sched_getaffinity(SELF).unwrap();
        if count(&allowed) < 2 {
            return;
        }
        let mut left = 0;
        for _ in 0..TRIES {
            let before = here();
            assert!(leave(before));
            left += usize::from(here() != before);
        }
        assert!(left > TRIES / 2, "{left} of {TRIES}");
        assert_eq!(sched_getaffinity(SELF).unwrap(), allowed);
    }

    #[test]
    fn who_may_be_nowhere_else_stays() {
        let at = here();
        let mut alone = CpuSet::new();
        alone.set(usize::try_from(at).unwrap()).unwrap();
        sched_setaffinity(SELF, &alone).unwrap();
        assert!(!leave(at));
        assert_eq!(here(), at);
        assert_eq!(sched_getaffinity(SELF).unwrap(), alone);
        // Nor does anything come of a processor that there is not.
        assert!(!leave(u32::MAX));
        assert_eq!(sched_getaffinity(SELF).unwrap(), alone);
    }

    #[test]
    #[cfg(target_os = "freebsd")]
    fn the_processor_is_told() {
        let numbers = 0..u32::try_from(CpuSet::count()).unwrap();
        assert!(processor().is_some_and(|at| numbers.contains(&at)));
    }
}
