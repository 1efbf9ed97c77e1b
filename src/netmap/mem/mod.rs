//! Memory regions: interfaces, rings and buffers in one shared object.
//!
//! ```text
//! 0                 if.bytes          + ring.bytes           + buf.bytes
//! | netmap_if ...   | netmap_ring ... | buffer 0, 1, 2 ...   |
//! ```
//!
//! A client maps the object, adds `nr_offset` and has its `netmap_if`, from
//! there its rings, from these its buffers; all offsets are as the kernel
//! computes them. Every client has a region of its own unless configured
//! otherwise, for who shares one can write to the others' buffers; region 1 is
//! the global one. Nothing in a region is touched before it is allocated, so an
//! idle region costs no memory, and which objects are free is not kept in it.

mod entries;
mod external;
mod mapped;
mod object;
mod pool;
mod progress;
mod region;
mod taken;
mod view;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use nix::unistd::{SysconfVar, sysconf};

use super::abi;
use super::authority::LimitError;
pub use entries::{Entries, Entry};
pub use external::ExternalConfig;
pub use mapped::{Buffers, Mapped};
use object::{ObjectId, SharedObject};
pub use pool::{PoolLayout, PoolSize};
pub use progress::{Busy, Line, Progress};
pub use region::Region;
pub use taken::{InterfaceMemory, InterfaceSpec, RingMemory, RingSpec};
#[cfg(target_os = "freebsd")]
pub(crate) use view::RingParts;
pub use view::{FIRST_BUFFER, RingView, SlotOffsets};

/// Why memory was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemError {
    /// An object's size is out of bounds.
    #[error("netmap {what} size {size} is not between {min} and {max} bytes")]
    Size {
        /// Which pool.
        what: &'static str,
        /// What was asked for.
        size: u32,
        /// Smallest.
        min: u32,
        /// Largest.
        max: u32,
    },
    /// A number of objects is out of bounds.
    #[error("number of netmap {what}s {num} is not between {min} and {max}")]
    Num {
        /// Which pool.
        what: &'static str,
        /// What was asked for.
        num: u32,
        /// Fewest.
        min: u32,
        /// Most.
        max: u32,
    },
    /// Objects of this size do not fill whole pages within 4 MiB.
    #[error("netmap {what}s of {size} bytes fill no whole pages; take a multiple of 4096 bytes")]
    Cluster {
        /// Which pool.
        what: &'static str,
        /// Its size, rounded.
        size: u32,
    },
    /// All objects of a pool are taken.
    #[error("netmap memory region {region} has no {what} left; configure more")]
    Exhausted {
        /// The region.
        region: u16,
        /// Which pool.
        what: &'static str,
    },
    /// An object that is larger than those of the pool.
    #[error(
        "netmap memory region {region}: {need} bytes needed for a {what}, its size is {size}; \
         configure a larger one"
    )]
    TooSmall {
        /// The region.
        region: u16,
        /// Which pool.
        what: &'static str,
        /// Bytes needed.
        need: u64,
        /// Bytes there are.
        size: u32,
    },
    /// The system gave no memory.
    #[error("cannot make a netmap memory region of {bytes} bytes: {errno}")]
    System {
        /// How much.
        bytes: u64,
        /// Why not.
        errno: nix::Error,
    },
    /// An object of a client that could lose its pages.
    #[error(
        "external netmap memory could vanish; hand over a memfd of plain pages with F_SEAL_SHRINK"
    )]
    NotSealed,
    /// A client's object is smaller than what it is to hold.
    #[error("external netmap memory has {size} bytes, not the {need} of nr_memsize")]
    Beyond {
        /// What was said, in whole pages.
        need: u64,
        /// What there is.
        size: u64,
    },
    /// Pools that are larger than the client's memory.
    #[error("external netmap memory of {bytes} bytes has no room for its {what}s; add memory")]
    NoRoom {
        /// The first pool that does not fit.
        what: &'static str,
        /// What there is, in bytes.
        bytes: u64,
    },
    /// Objects of this size would not be aligned.
    #[error("netmap {what} size {size} of external memory is no multiple of 8 bytes")]
    Alignment {
        /// Which pool.
        what: &'static str,
        /// What was asked for.
        size: u32,
    },
    /// No region has this id.
    #[error("there is no netmap memory region {0}; 0 makes a new one, 1 is the global one")]
    NoSuchRegion(u16),
    /// The user has as much as it may have.
    #[error(transparent)]
    Limit(LimitError),
    /// All 65535 ids are taken.
    #[error("all ids of netmap memory regions are taken")]
    NoId,
}

/// What a region is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionConfig {
    /// `netmap_if`s: one for each registration.
    pub interfaces: PoolSize,
    /// Rings.
    pub rings: PoolSize,
    /// Buffers, of which 0 and 1 are never handed out.
    pub buffers: PoolSize,
}

/// Bytes of a page, as pools are rounded to.
pub fn page_size() -> u32 {
    sysconf(SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| u32::try_from(size).ok())
        .filter(|size| size.is_power_of_two())
        .unwrap_or(4096)
}

/// What a port's own region is to have room for, in the kernel's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortNeeds {
    /// Transmit rings, host rings not counted.
    pub tx_rings: u16,
    /// Slots of each.
    pub tx_slots: u32,
    /// Receive rings, host rings not counted.
    pub rx_rings: u16,
    /// Slots of each.
    pub rx_slots: u32,
    /// Buffers that belong to no ring.
    pub extra_bufs: u32,
    /// Pipes below the port that fit as well.
    pub pipes: u32,
}

impl RegionConfig {
    /// The global region's default: as many and as large as the kernel's.
    pub fn global() -> Self {
        Self {
            interfaces: PoolSize {
                size: 1024,
                num: 100,
            },
            rings: PoolSize {
                size: 9 * page_size(),
                num: 200,
            },
            buffers: PoolSize {
                size: 2048,
                num: 163_840,
            },
        }
    }

    /// A port's own region: the kernel's minimum, or more where the port needs
    /// more. Each pipe end has two rings each way, of which one has buffers;
    /// those may be twice as long as the port's.
    pub fn private(needs: &PortNeeds) -> Self {
        let (tx_rings, rx_rings) = (u32::from(needs.tx_rings) + 1, u32::from(needs.rx_rings) + 1);
        let pipes = needs.pipes.min(abi::NM_MAXPIPES);
        let longest = needs.tx_slots.max(needs.rx_slots);
        let interface = size_of::<abi::Interface>() as u64 + 8 * u64::from(tx_rings + rx_rings);
        let ring = size_of::<abi::Ring>() as u64 + 16 * u64::from(longest);
        let buffers = u64::from(4 * pipes + rx_rings) * u64::from(needs.rx_slots)
            + u64::from(4 * pipes + tx_rings) * u64::from(needs.tx_slots)
            + u64::from(FIRST_BUFFER)
            + u64::from(needs.extra_bufs);
        // What passes u32 is out of every bound, and refused there.
        let at_least = |min: u32, need: u64| u32::try_from(need).unwrap_or(u32::MAX).max(min);
        Self {
            interfaces: PoolSize {
                size: at_least(1024, interface),
                num: 2.max(2 + 4 * pipes),
            },
            rings: PoolSize {
                size: at_least(5 * page_size(), ring),
                num: 4.max(tx_rings + rx_rings + 8 * pipes),
            },
            buffers: PoolSize {
                size: 2048,
                num: at_least(4098, buffers),
            },
        }
    }
}

/// The regions there are, by id.
#[derive(Debug)]
pub struct Regions {
    global: RegionConfig,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    regions: HashMap<u16, Weak<Region>>,
    /// Ids of those in clients' memory.
    external: HashMap<ObjectId, u16>,
    last: u16,
}

impl Known {
    /// Forgets what is gone.
    fn tidy(&mut self) {
        self.regions.retain(|_, region| region.strong_count() > 0);
        let regions = &self.regions;
        self.external.retain(|_, id| regions.contains_key(id));
    }

    /// Makes a region with an id that nobody has.
    fn add(
        &mut self,
        make: impl FnOnce(u16) -> Result<Region, MemError>,
    ) -> Result<Arc<Region>, MemError> {
        self.tidy();
        let id = (1..=u16::MAX)
            .map(|step| self.last.wrapping_add(step))
            .find(|id| *id > GLOBAL_ID && !self.regions.contains_key(id))
            .ok_or(MemError::NoId)?;
        let region = Arc::new(make(id)?);
        self.last = id;
        self.regions.insert(id, Arc::downgrade(&region));
        Ok(region)
    }
}

/// The id of the global region.
pub const GLOBAL_ID: u16 = 1;

impl Regions {
    /// None yet; the global one will be as `global` says.
    pub fn new(global: RegionConfig) -> Self {
        Self {
            global,
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new region, which lives as long as somebody holds it.
    ///
    /// # Errors
    /// When the configuration is out of bounds or the system gives no memory.
    pub fn private(&self, config: &RegionConfig) -> Result<Arc<Region>, MemError> {
        self.known().add(|id| Region::new(id, config, page_size()))
    }

    /// The region in a client's object: a new one, or the one that is there
    /// already, whatever its pools are.
    ///
    /// # Errors
    /// When the configuration is out of bounds or does not fit, or the object
    /// could lose its pages.
    pub fn external(
        &self,
        object: OwnedFd,
        config: &ExternalConfig,
    ) -> Result<Arc<Region>, MemError> {
        let object = SharedObject::external(object, config.len(page_size())?)?;
        let object_id = object.id().map_err(|errno| MemError::System {
            bytes: config.bytes,
            errno,
        })?;
        let known = &mut *self.known();
        let there = known.external.get(&object_id);
        let there = there.and_then(|id| known.regions.get(id));
        if let Some(region) = there.and_then(Weak::upgrade) {
            return Ok(region);
        }
        let plan = config.plan(page_size())?;
        let region = known.add(|id| Ok(Region::external(id, object, plan)))?;
        known.external.insert(object_id, region.id());
        Ok(region)
    }

    /// The region with this id. The global one is made when it is first asked
    /// for, and again when everybody had left it.
    ///
    /// # Errors
    /// When there is none, or the global one cannot be made.
    pub fn find(&self, id: u16) -> Result<Arc<Region>, MemError> {
        let known = &mut *self.known();
        if let Some(region) = known.regions.get(&id).and_then(Weak::upgrade) {
            return Ok(region);
        }
        if id != GLOBAL_ID {
            return Err(MemError::NoSuchRegion(id));
        }
        let region = Arc::new(Region::new(id, &self.global, page_size())?);
        known.regions.insert(id, Arc::downgrade(&region));
        Ok(region)
    }
}

#[cfg(test)]
pub(super) mod tests;
