//! What each test stands on.

use std::path::{Path, PathBuf};

use bed::equipment::{self, GuestImage};
use bed::{Guest, GuestOptions, Result, Scratch, Vtnetd};

fn start(devices: &[String]) -> Result<Vtnetd> {
    Vtnetd::start(Path::new(env!("CARGO_BIN_EXE_vtnetd")), devices, None)
}

/// A vtnetd, and guests on its sockets.
pub struct Bench {
    // Dropped before what they use: guests, vtnetd, directory.
    pub guests: Vec<Guest>,
    pub vtnetd: Vtnetd,
    image: GuestImage,
    scratch: Scratch,
}

impl Bench {
    /// A vtnetd with two ports of one switch, each with `options` at its end,
    /// such as `,mtu=1500`, and no guests yet.
    pub fn new(options: &str) -> Result<Self> {
        Self::started(&["vale0:vm1", "vale0:vm2"], options, start)
    }

    /// As [`new`](Self::new), with a third port.
    pub fn with_third_port() -> Result<Self> {
        Self::started(&["vale0:vm1", "vale0:vm2", "vale0:vm3"], "", start)
    }

    /// The socket of port `number`, from 1 on.
    pub fn socket(&self, number: u8) -> PathBuf {
        self.scratch.path(&format!("vm{number}.sock"))
    }

    /// A vtnetd in `namespace`, with `tap0` for one guest.
    #[cfg(target_os = "linux")]
    pub fn on_tap(namespace: &bed::Namespace) -> Result<Self> {
        Self::started(&["tap0"], "", |devices| namespace.within(|| start(devices)))
    }

    fn started(
        back_ends: &[&str],
        options: &str,
        start: impl FnOnce(&[String]) -> Result<Vtnetd>,
    ) -> Result<Self> {
        let image = equipment::guests()?;
        let scratch = Scratch::new()?;
        let device = |(number, back_end): (usize, &&str)| {
            let socket = scratch.path(&format!("vm{}.sock", number + 1));
            format!("virtio-net,{back_end},socket={}{options}", socket.display())
        };
        let devices: Vec<String> = back_ends.iter().enumerate().map(device).collect();
        let vtnetd = start(&devices)?;
        Ok(Self {
            guests: Vec::new(),
            vtnetd,
            image,
            scratch,
        })
    }

    /// What guest `number`, 1 or 2, is like if the test wants nothing else.
    pub fn options(&self, number: u8) -> GuestOptions {
        GuestOptions::numbered(number, self.socket(number))
    }

    /// Starts a guest that is not expected to come up.
    pub fn start(&self, options: GuestOptions) -> Result<Guest> {
        Guest::start(&self.image, options, &self.scratch)
    }

    /// Adds guests, and waits until they are up.
    pub fn boot<const N: usize>(&mut self, options: [GuestOptions; N]) -> Result<()> {
        self.guests
            .extend(Guest::boot(&self.image, options, &self.scratch)?);
        Ok(())
    }

    /// With both guests, as most tests want it.
    pub fn with_guests() -> Result<Self> {
        let mut bench = Self::new("")?;
        let options = [bench.options(1), bench.options(2)];
        bench.boot(options)?;
        bench.ping()?;
        Ok(bench)
    }

    /// The second guest.
    pub fn second(&mut self) -> Result<&mut Guest> {
        let second = self.guests.get_mut(1);
        second.ok_or_else(|| bed::Error::new("two guests were started"))
    }

    /// Pings the last guest from the first.
    pub fn ping(&mut self) -> Result<()> {
        let [first, .., last] = self.guests.as_mut_slice() else {
            return Err(bed::Error::new("a ping takes two guests"));
        };
        first.run(&format!("ping -A -q -c 10 -W 5 {}", last.address()))?;
        Ok(())
    }
}
