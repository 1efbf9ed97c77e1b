//! What vtnetd(8) is as a process: its control thread, its log, its pid file,
//! the descriptors it inherits and may have, and the status it ends with.

mod balance;
mod confine;
mod control;
mod descriptors;
mod failure;
mod inherited;
pub mod log;
mod pid_file;

pub use confine::{Threads, confine_and_start_threads};
pub use control::Control;
pub use descriptors::raise_open_files;
pub use failure::{Exit, Failure};
pub use inherited::{InheritError, close_others, inherited};
pub use pid_file::{PidFile, PidFileError};
