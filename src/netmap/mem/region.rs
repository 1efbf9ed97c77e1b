//! One region: what is taken from its pools, and what goes back.

use std::mem::size_of;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::external::Plan;
use super::object::SharedObject;
use super::pool::{Bounds, Free, PoolLayout};
use super::taken::{InterfaceMemory, InterfaceSpec, RingMemory, RingSpec};
use super::view::FIRST_BUFFER;
use super::{GLOBAL_ID, MemError, RegionConfig};
use crate::netmap::abi::{self, Slot};
use crate::netmap::authority::{Authority, Charge, Resource};

/// The bounds of a region's three pools.
struct RegionBounds {
    interfaces: Bounds,
    rings: Bounds,
    buffers: Bounds,
}

impl RegionBounds {
    /// The kernel's, for pages of `page` bytes.
    fn new(id: u16, page: u32) -> Self {
        let interfaces = if id == GLOBAL_ID {
            (10, 10_000)
        } else {
            (1, 100)
        };
        Self {
            interfaces: Bounds {
                what: "interface",
                size: (64, 4096),
                num: interfaces,
            },
            rings: Bounds {
                what: "ring",
                size: (256, 32 * page),
                num: (2, 1024),
            },
            buffers: Bounds {
                what: "buffer",
                size: (64, 65536),
                num: (4, 1_000_000),
            },
        }
    }
}

/// A region of shared memory and its three pools.
#[derive(Debug)]
pub struct Region {
    id: u16,
    object: SharedObject,
    bytes: u64,
    interfaces: PoolLayout,
    pub(super) rings: PoolLayout,
    pub(super) buffers: PoolLayout,
    free: Mutex<Pools>,
    charge: OnceLock<Charge>,
}

/// What is free of each pool.
#[derive(Debug)]
pub(super) struct Pools {
    pub interfaces: Free,
    pub rings: Free,
    pub buffers: Free,
}

impl Region {
    pub(super) fn new(id: u16, config: &RegionConfig, page: u32) -> Result<Self, MemError> {
        let bounds = RegionBounds::new(id, page);
        let interfaces = PoolLayout::new(0, config.interfaces, &bounds.interfaces, page)?;
        let offset = interfaces.bytes();
        let rings = PoolLayout::new(offset, config.rings, &bounds.rings, page)?;
        let offset = offset + rings.bytes();
        let buffers = PoolLayout::new(offset, config.buffers, &bounds.buffers, page)?;
        let bytes = offset + buffers.bytes();
        let refused = |errno| MemError::System { bytes, errno };
        let len = usize::try_from(bytes)
            .ok()
            .and_then(NonZeroUsize::new)
            .ok_or(refused(nix::Error::EFBIG))?;
        let object = SharedObject::new(len).map_err(refused)?;
        let layouts = [interfaces, rings, buffers];
        Ok(Self::with(id, object, bytes, layouts))
    }

    /// A region in a client's object, which is as long as `plan` says.
    pub(super) fn external(id: u16, object: SharedObject, plan: Plan) -> Self {
        Self::with(id, object, plan.len.get() as u64, plan.layouts)
    }

    /// All pools lie in the first `bytes` of the object, which are mapped.
    fn with(id: u16, object: SharedObject, bytes: u64, layouts: [PoolLayout; 3]) -> Self {
        let [interfaces, rings, buffers] = layouts;
        let free = Pools {
            interfaces: Free::new(interfaces.num, 0),
            rings: Free::new(rings.num, 0),
            buffers: Free::new(buffers.num, FIRST_BUFFER),
        };
        Self {
            id,
            object,
            bytes,
            interfaces,
            rings,
            buffers,
            free: Mutex::new(free),
            charge: OnceLock::new(),
        }
    }

    /// Makes it the client's, unless it is somebody's already.
    ///
    /// # Errors
    /// The client has as much memory as it may have.
    pub fn charge_to(&self, client: &Authority) -> Result<(), MemError> {
        if self.charge.get().is_some() {
            return Ok(());
        }
        let charge = client.charge(Resource::Memory, self.bytes);
        if let Some(charge) = charge.map_err(MemError::Limit)? {
            // Where somebody was faster, the charge is given back.
            let _ = self.charge.set(charge);
        }
        Ok(())
    }

    /// The user whose clients it belongs to; `None`: the service itself.
    pub fn owner(&self) -> Option<u32> {
        self.charge.get().map(Charge::uid)
    }

    /// The region's id (`nr_mem_id`).
    pub fn id(&self) -> u16 {
        self.id
    }

    /// Bytes of the whole region (`nr_memsize`).
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The shared object, for a client to map.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.object.fd()
    }

    /// Where `netmap_if`s, rings and buffers are.
    pub fn layout(&self) -> [PoolLayout; 3] {
        [self.interfaces, self.rings, self.buffers]
    }

    /// How many `netmap_if`s, rings and buffers are free.
    pub fn free(&self) -> [u32; 3] {
        let pools = self.pools();
        [
            pools.interfaces.free(),
            pools.rings.free(),
            pools.buffers.free(),
        ]
    }

    pub(super) fn pools(&self) -> MutexGuard<'_, Pools> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exhausted(&self, what: &'static str) -> MemError {
        MemError::Exhausted {
            region: self.id,
            what,
        }
    }

    /// The bytes at an offset that a pool's layout gave.
    #[inline]
    pub(super) fn at(&self, offset: u64) -> NonNull<u8> {
        debug_assert!(offset < self.bytes);
        // Offsets of objects are below `bytes`, which fits usize.
        #[expect(clippy::cast_possible_truncation, reason = "as said")]
        // SAFETY: the offset of an object lies inside the mapping.
        unsafe {
            self.object.base().add(offset as usize)
        }
    }

    /// The buffer with this index, its first four bytes taken for the index of
    /// the next in a list of extra buffers.
    pub(super) fn link(&self, index: u32) -> Option<NonNull<u32>> {
        let offset = self.buffers.object(index)?;
        (index >= FIRST_BUFFER).then(|| self.at(offset).cast())
    }

    /// Makes a ring and takes buffers for its slots.
    ///
    /// # Errors
    /// Nothing stays taken when the region has too little left.
    pub fn ring(self: &Arc<Self>, spec: &RingSpec) -> Result<RingMemory, MemError> {
        self.make_ring(spec, spec.slots)
    }

    /// Makes a ring whose slots have no buffers yet.
    ///
    /// # Errors
    /// As for [`ring`](Self::ring).
    pub fn empty_ring(self: &Arc<Self>, spec: &RingSpec) -> Result<RingMemory, MemError> {
        self.make_ring(spec, 0)
    }

    fn make_ring(self: &Arc<Self>, spec: &RingSpec, buffers: u32) -> Result<RingMemory, MemError> {
        let need = size_of::<abi::Ring>() as u64 + 16 * u64::from(spec.slots);
        if need > u64::from(self.rings.size) {
            return Err(MemError::TooSmall {
                region: self.id,
                what: "ring",
                need,
                size: self.rings.size,
            });
        }
        let mut pools = self.pools();
        if pools.buffers.free() < buffers {
            return Err(self.exhausted("buffer"));
        }
        let index = pools.rings.take().ok_or(self.exhausted("ring"))?;
        let ring = RingMemory {
            offset: self.rings.object(index).unwrap_or_default(),
            index,
            slots: spec.slots,
            offsets: OnceLock::new(),
            region: Arc::clone(self),
        };
        let header = abi::Ring {
            buf_ofs: i64::try_from(self.buffers.offset - ring.offset).unwrap_or_default(),
            num_slots: spec.slots,
            nr_buf_size: self.buffers.size,
            ringid: spec.id,
            dir: u16::from(spec.rx),
            head: 0,
            cur: 0,
            tail: spec.tail,
            flags: 0,
            ts: abi::Timeval::default(),
            offset_mask: 0,
            buf_align: 0,
            sem: abi::Semaphore([0; 128]),
        };
        // SAFETY: a ring's object is large enough (see above) and aligned to 8
        // bytes.
        unsafe { self.at(ring.offset).cast().write_unaligned(header) };
        if let Some(progress) = ring.progress() {
            progress.clear();
        }
        let view = ring.view();
        for at in 0..spec.slots {
            let (mut buf_idx, mut len) = (0, 0);
            if at < buffers {
                // Enough are free: the pools were locked all the while.
                buf_idx = pools.buffers.take().unwrap_or(0);
                // The kernel's rings begin with the buffer's size as each
                // length.
                len = u16::try_from(self.buffers.size).unwrap_or(0);
            }
            view.set_slot(
                at,
                Slot {
                    buf_idx,
                    len,
                    flags: 0,
                    ptr: 0,
                },
            );
        }
        Ok(ring)
    }

    /// Makes a `netmap_if`, with as many extra buffers as there are, up to
    /// `extra_bufs`.
    ///
    /// # Errors
    /// When the region has none left or its size is too small for the rings.
    pub fn interface(
        self: &Arc<Self>,
        spec: &InterfaceSpec<'_>,
    ) -> Result<InterfaceMemory, MemError> {
        let need = size_of::<abi::Interface>() as u64 + 8 * spec.rings.len() as u64;
        if need > u64::from(self.interfaces.size) {
            return Err(MemError::TooSmall {
                region: self.id,
                what: "interface",
                need,
                size: self.interfaces.size,
            });
        }
        let mut pools = self.pools();
        let index = pools.interfaces.take().ok_or(self.exhausted("interface"))?;
        let mut extra_bufs = 0;
        let mut first = 0;
        while extra_bufs < spec.extra_bufs {
            let Some(buffer) = pools.buffers.take() else {
                break;
            };
            if let Some(link) = self.link(buffer) {
                // SAFETY: the buffer is ours, and aligned to 8 bytes.
                unsafe { link.write_volatile(first) };
            }
            first = buffer;
            extra_bufs += 1;
        }
        drop(pools);
        let interface = InterfaceMemory {
            offset: self.interfaces.object(index).unwrap_or_default(),
            index,
            extra_bufs,
            region: Arc::clone(self),
        };
        let mut ni_name = [0; abi::IFNAMSIZ];
        for (to, from) in ni_name
            .iter_mut()
            .take(abi::IFNAMSIZ - 1)
            .zip(spec.name.bytes())
        {
            *to = from;
        }
        let header = abi::Interface {
            ni_name,
            ni_version: 0,
            ni_flags: if self.id == GLOBAL_ID {
                0
            } else {
                abi::NI_PRIV_MEM
            },
            ni_tx_rings: spec.tx_rings.into(),
            ni_rx_rings: spec.rx_rings.into(),
            ni_bufs_head: first,
            ni_host_tx_rings: spec.host_tx_rings.into(),
            ni_host_rx_rings: spec.host_rx_rings.into(),
            ni_spare1: [0; 3],
        };
        let at = self.at(interface.offset);
        // SAFETY: an interface's object is large enough for the header and the
        // offsets (see above), and aligned to 8 bytes.
        unsafe {
            at.cast().write_volatile(header);
            let offsets = at.add(size_of::<abi::Interface>()).cast::<i64>();
            for (nth, ring) in spec.rings.iter().enumerate() {
                // Rings lie behind all interfaces.
                let offset = ring.map_or(0, |ring| ring.offset - interface.offset);
                let offset = i64::try_from(offset).unwrap_or_default();
                offsets.add(nth).write_volatile(offset);
            }
        }
        Ok(interface)
    }

    /// When nobody has anything in the region any more, every buffer is free,
    /// whatever hostile slots and lists said, and the pages go back.
    pub(super) fn tidy(&self, pools: &mut Pools) {
        if pools.interfaces.is_untouched() && pools.rings.is_untouched() {
            pools.buffers.reset();
            self.object.release_pages();
        }
    }
}
