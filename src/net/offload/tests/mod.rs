#![expect(
    clippy::cast_possible_truncation,
    reason = "packets are written from lengths that the tests choose"
)]

mod check;
mod hostile;
pub mod packet;
mod receivers;
mod segments;
