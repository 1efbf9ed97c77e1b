//! kevent(2) with connections among what is registered: `EVFILT_READ` and
//! `EVFILT_WRITE`, as the kernel's netmap has them.
//!
//! `EV_CLEAR` is taken for the other mode: who reads until nothing is left, as
//! he must there, sees no difference.

use std::ptr;

use libc::{c_int, kevent, pollfd, timespec};
use nix::errno::Errno;

use crate::cache::is_netmap;
use crate::edge::edge;
use crate::real::system::KEVENT;
use crate::registered::{Item, Opaque, REGISTERED};
use crate::waiting::{Limit, Watched, Woken, look, sleep};

/// The connection that a change is about.
fn connection(change: &kevent) -> Option<c_int> {
    let filter = matches!(change.filter, libc::EVFILT_READ | libc::EVFILT_WRITE);
    let fd = c_int::try_from(change.ident).ok().filter(|_| filter)?;
    is_netmap(fd).then_some(fd)
}

/// Makes a change to what is registered.
fn change(queue: c_int, fd: c_int, change: &kevent) -> Result<(), Errno> {
    REGISTERED.change(|items| {
        let same = |item: &Item<Opaque>| {
            item.queue == queue && item.fd == fd && item.how.0.filter == change.filter
        };
        let found = items.iter().position(same);
        if change.flags & libc::EV_DELETE != 0 {
            let found = found.ok_or(Errno::ENOENT)?;
            items.swap_remove(found);
            return Ok(());
        }
        let mut how = *change;
        match found.and_then(|found| items.get_mut(found)) {
            Some(item) => {
                if how.flags & (libc::EV_ENABLE | libc::EV_DISABLE) == 0 {
                    how.flags |= item.how.0.flags & libc::EV_DISABLE;
                }
                item.how = Opaque(how);
            }
            None if change.flags & libc::EV_ADD == 0 => return Err(Errno::ENOENT),
            None => items.push(Item {
                queue,
                fd,
                how: Opaque(how),
            }),
        }
        Ok(())
    })
}

/// Makes all changes; those that are not ours are the system's. Errors are told
/// as events while there is room, as the system does it. Returns how much room
/// they took.
fn change_all(queue: c_int, changes: &[kevent], room: &mut [kevent]) -> Result<usize, Errno> {
    let real = KEVENT.get()?;
    let mut told = 0;
    for one in changes {
        let made = match connection(one) {
            Some(fd) => change(queue, fd, one),
            None => {
                // SAFETY: one structure, alive meanwhile, and no room.
                let made = unsafe { real(queue, one, 1, ptr::null_mut(), 0, ptr::null()) };
                Errno::result(made).map(drop)
            }
        };
        let errno = match made {
            Err(errno) => errno as i32,
            Ok(()) if one.flags & libc::EV_RECEIPT != 0 => 0,
            Ok(()) => continue,
        };
        let Some(place) = room.get_mut(told) else {
            return made.map(|()| told);
        };
        *place = kevent {
            flags: libc::EV_ERROR,
            data: errno.into(),
            ..*one
        };
        told += 1;
    }
    Ok(told)
}

/// kevent(2) on `queue`, without waiting, for what is not ours.
fn glance(queue: c_int, room: &mut [kevent]) -> Result<usize, Errno> {
    let Ok(count @ 1..) = c_int::try_from(room.len()) else {
        return Ok(0);
    };
    let real = KEVENT.get()?;
    let now = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: room for so many, alive meanwhile, as is the time.
    let ready = unsafe { real(queue, ptr::null(), 0, room.as_mut_ptr(), count, &now) };
    Errno::result(ready).map(|ready| usize::try_from(ready).unwrap_or(0))
}

fn wait(
    queue: c_int,
    room: &mut [kevent],
    items: &[Item<Opaque>],
    mut limit: Limit,
) -> Result<c_int, Errno> {
    let items: Vec<_> = items
        .iter()
        .filter(|item| item.how.0.flags & libc::EV_DISABLE == 0)
        .collect();
    let mut watched: Vec<Watched> = items
        .iter()
        .map(|item| Watched {
            fd: item.fd,
            events: match item.how.0.filter {
                libc::EVFILT_READ => libc::POLLIN,
                _ => libc::POLLOUT,
            },
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
            let ours = tell(queue, room, &items, &watched);
            let rest = room.get_mut(ours..).unwrap_or_default();
            let all = ours + glance(queue, rest)?;
            return Ok(c_int::try_from(all).unwrap_or(c_int::MAX));
        }
        last = match sleep(&watched, &mut others, &mut limit, ptr::null())? {
            Woken::Late => true,
            Woken::By(others) => others > 0,
        };
    }
}

/// Tells of the connections at which there is something, as far as there is
/// room. Returns how many are told of.
fn tell(queue: c_int, room: &mut [kevent], items: &[&Item<Opaque>], watched: &[Watched]) -> usize {
    let ready = items.iter().zip(watched).filter(|(_, one)| one.found != 0);
    let mut count = 0;
    for ((item, one), place) in ready.zip(room) {
        let how = item.how.0;
        *place = kevent {
            flags: how.flags & (libc::EV_ONESHOT | libc::EV_CLEAR | libc::EV_DISPATCH),
            fflags: 0,
            data: 0,
            ..how
        };
        if one.found & libc::POLLERR != 0 {
            place.flags |= libc::EV_EOF;
        }
        count += 1;
        let same = |other: &Item<Opaque>| {
            other.queue == queue && other.fd == item.fd && other.how.0.filter == how.filter
        };
        if how.flags & libc::EV_ONESHOT != 0 {
            REGISTERED.change(|items| items.retain(|other| !same(other)));
        } else if how.flags & libc::EV_DISPATCH != 0 {
            REGISTERED.change(|items| {
                for other in items.iter_mut().filter(|other| same(other)) {
                    other.how.0.flags |= libc::EV_DISABLE;
                }
            });
        }
    }
    count
}

/// A slice of what a program has given.
///
/// # Safety
/// `at` is null or there are `count` of them, nobody else's meanwhile.
unsafe fn given<'a>(at: *mut kevent, count: c_int) -> &'a mut [kevent] {
    match usize::try_from(count) {
        // SAFETY: the caller's, and not null.
        Ok(count) if !at.is_null() => unsafe { std::slice::from_raw_parts_mut(at, count) },
        _ => &mut [],
    }
}

/// kevent(2).
///
/// # Safety
/// As for kevent(2).
pub(crate) unsafe fn kevent_or(
    queue: c_int,
    changes: *const kevent,
    change_count: c_int,
    events: *mut kevent,
    count: c_int,
    timeout: *const timespec,
) -> c_int {
    // SAFETY: the caller's; they are copied before any room is written, which
    // may be the same.
    let wanted = unsafe { given(changes.cast_mut(), change_count) }.to_vec();
    let ours = wanted.iter().any(|one| connection(one).is_some());
    if !ours && REGISTERED.of(queue).is_empty() {
        return match KEVENT.get() {
            // SAFETY: the caller's.
            Ok(real) => unsafe { real(queue, changes, change_count, events, count, timeout) },
            Err(errno) => edge(-1, || Err(errno)),
        };
    }
    // SAFETY: the caller's.
    let (room, timeout) = unsafe { (given(events, count), timeout.as_ref().copied()) };
    edge(-1, || {
        let told = change_all(queue, &wanted, room)?;
        if told > 0 || room.is_empty() {
            return Ok(c_int::try_from(told).unwrap_or(c_int::MAX));
        }
        let limit = Limit::from_timespec(timeout)?;
        wait(queue, room, &REGISTERED.of(queue), limit)
    })
}
