//! What vtgen(8) does, apart from being a process: its command line, and the
//! loop that sends, receives, reflects or measures.

mod options;
mod run;
#[cfg(test)]
mod tests;
mod values;
mod work;

pub use options::{Command, Config, Peer, parse, usage};
pub use run::{RunError, run};
