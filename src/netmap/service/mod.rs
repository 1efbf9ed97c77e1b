//! The service: programs on this machine open ports of this core, as they open
//! `/dev/netmap` of a kernel that has it.
//!
//! | module | job |
//! | --- | --- |
//! | [`wire`] | what goes between a client and the service |
//! | [`gather`] | what of a client's memory goes along with a request |

pub mod gather;
pub mod wire;
