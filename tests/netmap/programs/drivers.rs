//! Two guests that are drivers in software, in this process.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bed::{Error, Result};
use vtnetd::driver::front_end::FrontEnd;
use vtnetd::driver::net::{NetDriver, NetOptions};

use crate::scene::SOON;

/// The addresses of the two, and the EtherType of their frames.
pub const HEADER: [u8; 14] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];

fn failed(error: impl std::fmt::Display) -> Error {
    Error::new(format!("driver: {error}"))
}

/// A driver behind a device's socket.
pub fn start(socket: &Path) -> Result<NetDriver> {
    let front_end = FrontEnd::connect(socket).map_err(failed)?;
    NetDriver::start(front_end, &NetOptions::default()).map_err(failed)
}

/// A frame from the first to the second, of `len` bytes, that has `number` in
/// it and says with each byte where it is.
pub fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut frame = HEADER.to_vec();
    frame.extend(number.to_be_bytes());
    frame.extend((frame.len()..len).map(|at| (at + number as usize).to_le_bytes()[0]));
    frame
}

/// The same on its way back.
fn back(mut frame: Vec<u8>) -> Vec<u8> {
    let (to, from) = frame[..12].split_at_mut(6);
    to.swap_with_slice(from);
    frame
}

/// Sends a frame.
pub fn send(driver: &mut NetDriver, frame: &[u8]) -> Result<()> {
    driver.pair(0).tx.send(frame).map_err(failed)
}

/// The next frame of these two that comes; others may send, too. `None`: none
/// within `timeout`.
pub fn receive(driver: &mut NetDriver, timeout: Duration) -> Result<Option<Vec<u8>>> {
    loop {
        let got = driver.pair(0).rx.recv(timeout).map_err(failed)?;
        match got.map(|got| got.frame) {
            Some(frame) if frame.get(12..14) != Some(&HEADER[12..]) => {}
            frame => return Ok(frame),
        }
    }
}

/// The first sends frames, the second sends them back, until they are to stop:
/// all come, whole and in order. How many.
pub fn talk(one: &mut NetDriver, other: &mut NetDriver, stop: &AtomicBool) -> Result<u32> {
    const WINDOW: u32 = 16;
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let echo = scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                if let Some(frame) = receive(other, Duration::from_millis(50))? {
                    send(other, &back(frame))?;
                }
            }
            Ok::<_, Error>(())
        });
        let mut count = 0;
        let mut talk = || {
            while !stop.load(Ordering::Relaxed) {
                let frames = (count..count + WINDOW)
                    .map(|number| frame(number, 64 + number as usize * 7 % 1450));
                let frames: Vec<Vec<u8>> = frames.collect();
                for frame in &frames {
                    send(one, frame)?;
                }
                for frame in frames {
                    let got = receive(one, SOON)?;
                    if got != Some(back(frame)) {
                        return Err(Error::new(format!("{got:?} is the answer to {count}")));
                    }
                    count += 1;
                }
            }
            Ok(())
        };
        let talked = talk();
        ended.store(true, Ordering::Relaxed);
        let echoed = echo.join().unwrap_or_else(|_| Err(Error::new("panicked")));
        echoed.and(talked)?;
        Ok(count)
    })
}
