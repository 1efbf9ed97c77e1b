//! epoll(7) with connections among what is registered.
//!
//! The system's own list has a connection, too, without events, so that what
//! is there twice or not at all is its answer, and so is the end of a dead
//! service. What is ready is found out as for poll(2), in each epoll_wait(2).
//!
//! `EPOLLET` is taken for the other mode: who reads until nothing is left, as
//! he must there, sees no difference.

use std::ptr;

use libc::{c_int, epoll_event, pollfd, sigset_t};
use nix::errno::Errno;

use crate::cache::is_netmap;
use crate::edge::edge;
use crate::real::system::{EPOLL_CTL, EPOLL_PWAIT};
use crate::registered::{Item, Opaque, REGISTERED};
use crate::waiting::{Limit, Watched, Woken, look, sleep};

/// What epoll_event(7) and poll(2) call by the same numbers.
const EVENTS: u32 = 0xffff;

/// Told of once, until it is modified.
const ONCE: u32 = 1 << 30;

fn events(how: &epoll_event) -> libc::c_short {
    let events = u16::try_from(how.events & EVENTS).unwrap_or(0);
    libc::c_short::from_ne_bytes(events.to_ne_bytes())
}

/// epoll_ctl(2) for a connection.
fn control(
    queue: c_int,
    operation: c_int,
    fd: c_int,
    event: Option<epoll_event>,
) -> Result<(), Errno> {
    let real = EPOLL_CTL.get()?;
    let mut quiet = epoll_event {
        events: 0,
        u64: event.map_or(0, |event| event.u64),
    };
    // SAFETY: one structure, alive meanwhile.
    Errno::result(unsafe { real(queue, operation, fd, &mut quiet) })?;
    REGISTERED.change(|items| {
        items.retain(|item| item.queue != queue || item.fd != fd);
        if let (true, Some(how)) = (operation != libc::EPOLL_CTL_DEL, event) {
            let how = Opaque(how);
            items.push(Item { queue, fd, how });
        }
    });
    Ok(())
}

/// epoll_ctl(2).
///
/// # Safety
/// As for epoll_ctl(2).
pub(crate) unsafe fn control_or(
    queue: c_int,
    operation: c_int,
    fd: c_int,
    event: *mut epoll_event,
) -> c_int {
    let deletes = operation == libc::EPOLL_CTL_DEL;
    if (deletes || !event.is_null()) && is_netmap(fd) {
        // SAFETY: null, or the caller's structure, which need not be aligned.
        let event = (!event.is_null()).then(|| unsafe { event.read_unaligned() });
        return edge(-1, || control(queue, operation, fd, event).map(|()| 0));
    }
    match EPOLL_CTL.get() {
        // SAFETY: the caller's.
        Ok(real) => unsafe { real(queue, operation, fd, event) },
        Err(errno) => edge(-1, || Err(errno)),
    }
}

/// epoll_pwait(2) on `queue`, without waiting, for what is not ours.
fn glance(queue: c_int, room: &mut [epoll_event]) -> Result<usize, Errno> {
    let Ok(count @ 1..) = c_int::try_from(room.len()) else {
        return Ok(0);
    };
    let real = EPOLL_PWAIT.get()?;
    // SAFETY: room for so many, alive meanwhile.
    let ready = unsafe { real(queue, room.as_mut_ptr(), count, 0, ptr::null()) };
    Errno::result(ready).map(|ready| usize::try_from(ready).unwrap_or(0))
}

fn wait(
    queue: c_int,
    room: &mut [epoll_event],
    items: &[Item<Opaque>],
    mut limit: Limit,
    mask: *const sigset_t,
) -> Result<c_int, Errno> {
    let mut watched: Vec<Watched> = items
        .iter()
        .map(|item| Watched {
            fd: item.fd,
            events: events(&item.how.0),
            found: 0,
        })
        .collect();
    let mut others = vec![pollfd {
        fd: queue,
        events: libc::POLLIN,
        revents: 0,
    }];
    let mut last = matches!(limit, Limit::Look);
    loop {
        let found = look(&mut watched, !last);
        if last || found > 0 {
            let ours = tell(queue, room, items, &watched);
            let rest = room.get_mut(ours..).unwrap_or_default();
            let all = ours + glance(queue, rest)?;
            return Ok(c_int::try_from(all).unwrap_or(c_int::MAX));
        }
        last = match sleep(&watched, &mut others, &mut limit, mask)? {
            Woken::Late => true,
            Woken::By(others) => others > 0,
        };
    }
}

/// Tells of the connections at which there is something, as far as there is
/// room. Returns how many are told of.
fn tell(
    queue: c_int,
    room: &mut [epoll_event],
    items: &[Item<Opaque>],
    watched: &[Watched],
) -> usize {
    let ready = items.iter().zip(watched).filter(|(_, one)| one.found != 0);
    let mut count = 0;
    for ((item, one), place) in ready.zip(room) {
        let found = u16::from_ne_bytes(one.found.to_ne_bytes());
        *place = epoll_event {
            events: found.into(),
            u64: item.how.0.u64,
        };
        count += 1;
        if item.how.0.events & ONCE != 0 {
            // The system's list still has it, to be modified.
            let same = |other: &Item<Opaque>| other.queue == queue && other.fd == item.fd;
            REGISTERED.change(|items| items.retain(|other| !same(other)));
        }
    }
    count
}

/// epoll_wait(2), epoll_pwait(2).
///
/// # Safety
/// As for epoll_pwait(2).
pub(crate) unsafe fn wait_or(
    queue: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: c_int,
    mask: *const sigset_t,
) -> c_int {
    let items = REGISTERED.of(queue);
    let room = usize::try_from(count).unwrap_or(0);
    if !items.is_empty() && room > 0 && !events.is_null() {
        // SAFETY: the caller's room; the structure may lie anywhere (packed).
        let room = unsafe { std::slice::from_raw_parts_mut(events, room) };
        let limit = Limit::from_milliseconds(timeout);
        return edge(-1, || wait(queue, room, &items, limit, mask));
    }
    match EPOLL_PWAIT.get() {
        // SAFETY: the caller's.
        Ok(real) => unsafe { real(queue, events, count, timeout, mask) },
        Err(errno) => edge(-1, || Err(errno)),
    }
}
