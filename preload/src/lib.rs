//! `libvtnetmap.so`: lets unmodified programs open `/dev/netmap` on the netmap
//! core in `vtnetd`.
//!
//! It is loaded in front of the C library (`LD_PRELOAD`) and stands in for the
//! functions that a program uses the device with. The program's descriptor is
//! a socket that is connected to the service (`vtnetd -N`), and nothing else is
//! the truth about it: it may be duplicated, inherited and passed on, and is
//! recognised by its peer. What is about other descriptors goes to the C
//! library, untouched.
//!
//! | module | job |
//! | --- | --- |
//! | `exports` | the symbols |
//! | `real` | the functions behind them |
//! | `edge` | results become return values and errno |
//! | `connection` | making and recognising the program's descriptors |
//! | `channel` | one thread's way to ask about one connection |
//! | `pipes` | pipes that a thread syncs itself |
//! | `cache` | the channels of a thread |
//! | `descriptors` | what is known of descriptors without asking the system |
//! | `memory` | the program's memory, as a request names it |
//! | `external`, `mappings` | memory of the program's that becomes a region |
//! | `looping` | sync loops |
//! | `files` | ioctl(2), mmap(2), close(2) |
//! | `waiting`, `polling` | poll(2), select(2) |
//! | `registered`, `epoll` or `kevents` | epoll(7), kqueue(2) |

mod cache;
mod channel;
mod connection;
mod descriptors;
mod edge;
#[cfg(target_os = "linux")]
mod epoll;
pub mod exports;
mod external;
mod files;
#[cfg(target_os = "freebsd")]
mod kevents;
mod looping;
mod mappings;
mod memory;
mod pipes;
mod polling;
mod real;
mod registered;
mod waiting;

/// What is called when the object is loaded, and around fork(2).
mod hooks {
    use crate::{descriptors, external, real, registered};

    extern "C" fn before() {
        registered::hold();
        external::hold();
    }

    extern "C" fn after() {
        registered::release();
        external::release();
    }

    extern "C" fn in_child() {
        registered::release();
        external::release();
        descriptors::forked();
    }

    extern "C" fn begin() {
        real::look_up();
        real::system::look_up();
        // SAFETY: the functions are there as long as the object is, which
        // nothing unloads, and call only what is allowed in a fork's child.
        // Where there is no memory for it, forks go on without.
        unsafe { libc::pthread_atfork(Some(before), Some(after), Some(in_child)) };
    }

    /// Called when the object is loaded, before the program begins.
    // SAFETY: the section holds pointers to functions of this type, which the
    // loader calls once.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static BEGIN: extern "C" fn() = begin;
}
