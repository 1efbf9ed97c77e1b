//! What the virtio specification defines, independent of any device's logic
//! and of how a front end reaches us: guest [`memory`], [`queue`]s, the
//! [`net_header`] in front of every frame, the [`spec`]'s constants, and the
//! [`feature_names`] of its bits.

pub mod feature_names;
pub mod memory;
pub mod net_header;
pub mod queue;
pub mod spec;
