//! poll(2), ppoll(2), select(2), pselect(2).

use std::time::{Duration, Instant};

use libc::{c_int, c_short, fd_set, nfds_t, pollfd, sigset_t, timespec, timeval};
use nix::errno::Errno;

use crate::cache::is_netmap;
use crate::edge::edge;
use crate::real::{POLL, PPOLL, PSELECT, SELECT};
use crate::waiting::{Limit, Watched, poll as poll_all};

/// The structures that a program has given.
///
/// # Safety
/// As for poll(2): `fds` has room for `count`, or is null.
unsafe fn given<'a>(fds: *mut pollfd, count: nfds_t) -> &'a mut [pollfd] {
    let Ok(count) = usize::try_from(count) else {
        return &mut [];
    };
    if fds.is_null() || count > isize::MAX as usize / size_of::<pollfd>() {
        return &mut [];
    }
    // SAFETY: the caller's, and not null.
    unsafe { std::slice::from_raw_parts_mut(fds, count) }
}

/// poll(2) with connections among the descriptors.
fn poll(fds: &mut [pollfd], limit: Limit, mask: *const sigset_t) -> Result<c_int, Errno> {
    if let [one] = fds {
        let watched = Watched {
            fd: one.fd,
            events: one.events,
            found: 0,
        };
        let mut watched = [watched];
        let ready = poll_all(&mut watched, &mut Vec::new(), limit, mask)?;
        one.revents = watched[0].found;
        return Ok(c_int::from(ready > 0));
    }
    let (mut watched, mut others) = (Vec::new(), Vec::new());
    let ours: Vec<bool> = fds.iter().map(|one| is_netmap(one.fd)).collect();
    for (one, ours) in fds.iter().zip(&ours) {
        if *ours {
            watched.push(Watched {
                fd: one.fd,
                events: one.events,
                found: 0,
            });
        } else {
            others.push(*one);
        }
    }
    let ready = poll_all(&mut watched, &mut others, limit, mask)?;
    let (mut watched, mut others) = (watched.iter(), others.iter());
    for (one, ours) in fds.iter_mut().zip(ours) {
        one.revents = if ours {
            watched.next().map_or(0, |watched| watched.found)
        } else {
            others.next().map_or(0, |other| other.revents)
        };
    }
    Ok(c_int::try_from(ready).unwrap_or(c_int::MAX))
}

/// poll(2).
///
/// # Safety
/// As for poll(2).
pub(crate) unsafe fn poll_or(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    // SAFETY: the caller's.
    let all = unsafe { given(fds, count) };
    if all.iter().any(|one| is_netmap(one.fd)) {
        return edge(-1, || {
            poll(all, Limit::from_milliseconds(timeout), std::ptr::null())
        });
    }
    match POLL.get() {
        // SAFETY: the caller's.
        Ok(real) => unsafe { real(fds, count, timeout) },
        Err(errno) => edge(-1, || Err(errno)),
    }
}

/// ppoll(2).
///
/// # Safety
/// As for ppoll(2).
pub(crate) unsafe fn ppoll_or(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's.
    let all = unsafe { given(fds, count) };
    if all.iter().any(|one| is_netmap(one.fd)) {
        // SAFETY: null, or the caller's time.
        let timeout = unsafe { timeout.as_ref() }.copied();
        return edge(-1, || poll(all, Limit::from_timespec(timeout)?, mask));
    }
    match PPOLL.get() {
        // SAFETY: the caller's.
        Ok(real) => unsafe { real(fds, count, timeout, mask) },
        Err(errno) => edge(-1, || Err(errno)),
    }
}

/// The bits of a descriptor set: those below `count`, as select(2) sees it. The
/// program may have more room than `fd_set` has.
#[derive(Clone, Copy)]
struct Bits {
    words: *mut usize,
    count: usize,
}

impl Bits {
    /// # Safety
    /// `set` is null or has room for `count` bits.
    unsafe fn new(set: *mut fd_set, count: usize) -> Self {
        Self {
            words: set.cast(),
            count,
        }
    }

    fn place(&self, fd: usize) -> Option<(*mut usize, usize)> {
        const BITS: usize = usize::BITS as usize;
        if self.words.is_null() || fd >= self.count {
            return None;
        }
        // SAFETY: inside of the set, as `new` was promised.
        let word = unsafe { self.words.add(fd / BITS) };
        Some((word, 1 << (fd % BITS)))
    }

    fn has(&self, fd: usize) -> bool {
        // SAFETY: as above; sets consist of such words on both systems.
        self.place(fd)
            .is_some_and(|(word, bit)| unsafe { word.read_unaligned() } & bit != 0)
    }

    fn put(&self, fd: usize, value: bool) {
        if let Some((word, bit)) = self.place(fd) {
            // SAFETY: as above, and the program gave it to be written.
            unsafe {
                let old = word.read_unaligned();
                word.write_unaligned(if value { old | bit } else { old & !bit });
            }
        }
    }
}

/// What each of the three sets asks of poll(2), and what answers it, as select(2)
/// of the system has it.
const MEANING: [(c_short, c_short); 3] = [
    (
        libc::POLLIN | libc::POLLRDNORM,
        libc::POLLIN | libc::POLLRDNORM | libc::POLLHUP | libc::POLLERR,
    ),
    (
        libc::POLLOUT | libc::POLLWRNORM,
        libc::POLLOUT | libc::POLLWRNORM | libc::POLLERR,
    ),
    (libc::POLLPRI, libc::POLLPRI),
];

/// select(2) with connections in the sets: through poll(2).
fn select(sets: [Bits; 3], limit: Limit, mask: *const sigset_t) -> Result<c_int, Errno> {
    let count = sets[0].count;
    let mut fds = Vec::new();
    for fd in 0..count {
        let mut events = 0;
        for (set, (asked, _)) in sets.iter().zip(MEANING) {
            if set.has(fd) {
                events |= asked;
            }
        }
        if events != 0 {
            fds.push(pollfd {
                fd: c_int::try_from(fd).map_err(|_| Errno::EINVAL)?,
                events,
                revents: 0,
            });
        }
    }
    poll(&mut fds, limit, mask)?;
    if fds.iter().any(|one| one.revents & libc::POLLNVAL != 0) {
        return Err(Errno::EBADF);
    }
    let mut ready = 0;
    for one in &fds {
        let fd = usize::try_from(one.fd).unwrap_or(usize::MAX);
        for (set, (_, answers)) in sets.iter().zip(MEANING) {
            let wanted = set.has(fd);
            let is = wanted && one.revents & answers != 0;
            set.put(fd, is);
            ready += c_int::from(is);
        }
    }
    Ok(ready)
}

/// The sets, if there is a connection in one of them.
///
/// # Safety
/// Each set is null or has room for `count` bits.
unsafe fn with_netmap(count: c_int, sets: [*mut fd_set; 3]) -> Option<[Bits; 3]> {
    let count = usize::try_from(count).ok()?;
    // SAFETY: the caller's.
    let sets = sets.map(|set| unsafe { Bits::new(set, count) });
    let mut all = (0..count).filter(|fd| sets.iter().any(|set| set.has(*fd)));
    all.any(|fd| c_int::try_from(fd).is_ok_and(is_netmap))
        .then_some(sets)
}

/// select(2).
///
/// # Safety
/// As for select(2).
pub(crate) unsafe fn select_or(
    count: c_int,
    sets: [*mut fd_set; 3],
    timeout: *mut timeval,
) -> c_int {
    // SAFETY: the caller's.
    if let Some(bits) = unsafe { with_netmap(count, sets) } {
        // SAFETY: null, or the caller's time.
        let time = unsafe { timeout.as_mut() };
        return edge(-1, || select_until(bits, time));
    }
    let [read, write, except] = sets;
    match SELECT.get() {
        // SAFETY: the caller's.
        Ok(real) => unsafe { real(count, read, write, except, timeout) },
        Err(errno) => edge(-1, || Err(errno)),
    }
}

/// select(2), which on Linux says in `time` what is left of it.
fn select_until(bits: [Bits; 3], time: Option<&mut timeval>) -> Result<c_int, Errno> {
    let asked = time.as_deref().map(|time| timespec {
        tv_sec: time.tv_sec,
        tv_nsec: time.tv_usec.saturating_mul(1000),
    });
    let limit = Limit::from_timespec(asked)?;
    let begun = Instant::now();
    let ended = select(bits, limit, std::ptr::null());
    if cfg!(target_os = "linux") {
        if let (Some(time), Limit::For(asked)) = (time, limit) {
            let left: Duration = asked.saturating_sub(begun.elapsed());
            time.tv_sec = left.as_secs().try_into().unwrap_or(time.tv_sec);
            time.tv_usec = left.subsec_micros().into();
        }
    }
    ended
}

/// pselect(2).
///
/// # Safety
/// As for pselect(2).
pub(crate) unsafe fn pselect_or(
    count: c_int,
    sets: [*mut fd_set; 3],
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's.
    if let Some(bits) = unsafe { with_netmap(count, sets) } {
        // SAFETY: null, or the caller's time.
        let timeout = unsafe { timeout.as_ref() }.copied();
        return edge(-1, || select(bits, Limit::from_timespec(timeout)?, mask));
    }
    let [read, write, except] = sets;
    match PSELECT.get() {
        // SAFETY: the caller's.
        Ok(real) => unsafe { real(count, read, write, except, timeout, mask) },
        Err(errno) => edge(-1, || Err(errno)),
    }
}
