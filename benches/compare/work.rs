//! One cell of the matrix.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use bed::Links;

/// Frames of one guest's queue that go round, half of what a ring holds.
const IN_FLIGHT: u32 = 128;
/// Guests among which the load is divided, where it is the same for any number.
const LOADED: u32 = 2;

/// The format of the rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Split,
    Packed,
}

impl Format {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Split => "split",
            Self::Packed => "packed",
        }
    }
}

impl FromStr for Format {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        let both = [Self::Split, Self::Packed];
        both.into_iter()
            .find(|format| format.name() == word)
            .ok_or(())
    }
}

/// Who sends and receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontEnd {
    /// testpmd's `net_virtio_user` ([`crate::closed_loop`]).
    Testpmd,
    /// vtgen, or its driver ([`crate::driver_loop`]).
    Vtgen,
}

impl FrontEnd {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Testpmd => "testpmd",
            Self::Vtgen => "vtgen",
        }
    }
}

impl FromStr for FrontEnd {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        let both = [Self::Testpmd, Self::Vtgen];
        both.into_iter().find(|one| one.name() == word).ok_or(())
    }
}

/// What the frames under way are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// As many for each guest, however many there are.
    EachGuest,
    /// As many in all as two guests have.
    Total,
    /// None go round: the guests send when they like, if they do.
    None,
}

/// What a back end has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Bytes of a frame.
    pub length: u64,
    pub format: Format,
    /// Pairs of queues of a guest.
    pub pairs: u16,
    pub guests: u32,
    pub load: Load,
    pub front_end: FrontEnd,
    /// Front ends ask for chains to be used in order.
    pub in_order: bool,
}

impl Work {
    /// Frames that go round from each queue.
    pub fn in_flight(&self) -> u32 {
        match self.load {
            Load::EachGuest => IN_FLIGHT,
            Load::Total => (IN_FLIGHT * LOADED / self.guests).max(1),
            Load::None => 0,
        }
    }

    /// Frames that go round in all.
    pub fn loop_size(&self) -> u32 {
        self.in_flight() * self.guests * u32::from(self.pairs)
    }

    /// How testpmd's ports are to be.
    pub fn links(&self) -> Links {
        // As it is before anybody has taken any: all contenders are to have
        // the same.
        static HUGE_PAGES: OnceLock<bool> = OnceLock::new();
        let links = Links::new(self.pairs, true, self.format == Format::Packed);
        Links {
            in_order: self.in_order,
            longest: self.length.max(links.longest),
            huge_pages: *HUGE_PAGES.get_or_init(|| links.huge_pages),
            ..links
        }
    }
}

impl Work {
    /// What tables call it.
    pub fn label(&self) -> String {
        format!("{}, {}", self.short_label(), self.format.name())
    }

    /// What it is called where the format is said already. What is as usual is
    /// not said.
    pub fn short_label(&self) -> String {
        let mut label = format!("{} B", self.length);
        if !self.in_order {
            label += ", in any order";
        }
        if self.pairs != 1 {
            label += &format!(", {} pairs", self.pairs);
        }
        if self.guests != LOADED {
            label += &format!(", {} guests", self.guests);
        }
        if self.front_end != FrontEnd::Testpmd {
            label += &format!(", {}", self.front_end.name());
        }
        if self.load == Load::Total {
            label += &format!(", {} in all", self.loop_size());
        }
        label
    }

    /// Bits of a frame.
    pub fn bits(&self) -> f64 {
        u32::try_from(8 * self.length).map_or(f64::INFINITY, f64::from)
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (format, pairs) = (self.format.name(), self.pairs);
        write!(
            f,
            "{} bytes, {format}, pairs {pairs}, guests {}, {} in the loop of {}",
            self.length,
            self.guests,
            self.loop_size(),
            self.front_end.name()
        )
    }
}
