//! The model's memory: which objects of a region are taken, and what lies in
//! its buffers.

use vtnetd::netmap::abi::{Ring, Slot};
use vtnetd::netmap::mem::PoolLayout;

/// The first buffer that may be somebody's.
const FIRST: u32 = 2;

/// A region.
#[derive(Debug, Default)]
pub struct Region {
    /// Its id, once somebody was told.
    pub id: Option<u16>,
    /// `netmap_if`s, rings, buffers.
    pub layout: Option<[PoolLayout; 3]>,
    /// Rings and buffers that are there at least.
    at_least: [u32; 2],
    pub interfaces: u32,
    pub rings: u32,
    taken: Vec<bool>,
    taken_buffers: u32,
    /// Every buffer, one behind the other.
    bytes: Vec<u8>,
    /// Buffers that were written since somebody asked.
    pub written: Vec<u32>,
}

impl Region {
    /// A region that nobody was told of yet, with so many rings and buffers.
    pub fn of_at_least(rings: u32, buffers: u32) -> Self {
        Self {
            at_least: [rings, buffers],
            ..Self::default()
        }
    }

    /// The real region is known from here on.
    pub fn adopt(&mut self, id: u16, layout: [PoolLayout; 3]) {
        if self.layout.is_none() {
            let [_, _, buffers] = layout;
            self.id = Some(id);
            self.layout = Some(layout);
            self.taken = vec![false; buffers.num as usize];
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.bytes = vec![0; self.taken.len() * self.size()];
    }

    /// Bytes of a buffer.
    fn size(&self) -> usize {
        self.layout
            .map_or(0, |[_, _, buffers]| buffers.size as usize)
    }

    /// Bytes of a buffer that a slot can use.
    pub fn buf_size(&self) -> usize {
        self.size().min(usize::from(u16::MAX))
    }

    pub fn free_interfaces(&self) -> u32 {
        self.layout
            .map_or(1, |[pool, _, _]| pool.num - self.interfaces)
    }

    pub fn free_rings(&self) -> u32 {
        let all = self
            .layout
            .map_or(self.at_least[0], |[_, pool, _]| pool.num);
        all - self.rings
    }

    pub fn free_buffers(&self) -> u32 {
        let all = self
            .layout
            .map_or(self.at_least[1], |[_, _, pool]| pool.num - FIRST);
        all - self.taken_buffers
    }

    /// Whether a ring of so many slots fits an object.
    pub fn has_room_for_ring(&self, slots: u32) -> bool {
        let need = size_of::<Ring>() + size_of::<Slot>() * slots as usize;
        self.layout
            .is_none_or(|[_, pool, _]| need <= pool.size as usize)
    }

    /// A buffer that a slot may have.
    pub fn is_buffer(&self, index: u32) -> bool {
        index >= FIRST && (index as usize) < self.taken.len()
    }

    /// The buffer is somebody's now. `false`: it was already, or is none.
    pub fn take(&mut self, index: u32) -> bool {
        let good = self.is_buffer(index) && !self.taken[index as usize];
        if good {
            self.taken[index as usize] = true;
            self.taken_buffers += 1;
        }
        good
    }

    /// The buffer is nobody's now. `false`: it was nobody's, or is none.
    pub fn give(&mut self, index: u32) -> bool {
        let good = self.is_buffer(index) && self.taken[index as usize];
        if good {
            self.taken[index as usize] = false;
            self.taken_buffers -= 1;
        }
        good
    }

    /// With the last ring and interface everything is free, whatever was lost.
    pub fn tidy(&mut self) {
        if self.interfaces == 0 && self.rings == 0 {
            self.taken.fill(false);
            self.taken_buffers = 0;
            self.clear();
            self.written.clear();
        }
    }

    /// The bytes of a buffer.
    pub fn buffer(&self, index: u32) -> &[u8] {
        let size = self.size();
        &self.bytes[index as usize * size..][..size]
    }

    /// Writes into a buffer; returns how much of `from` there was room for.
    pub fn write(&mut self, index: u32, at: usize, from: &[u8]) -> usize {
        let size = self.size();
        let buffer = &mut self.bytes[index as usize * size..][..size];
        let room = buffer.get_mut(at..).unwrap_or_default();
        let len = room.len().min(from.len());
        room[..len].copy_from_slice(&from[..len]);
        self.written.push(index);
        len
    }

    /// The first four bytes of a buffer: the next of a list of extra buffers.
    pub fn link(&self, index: u32) -> u32 {
        let bytes = self.buffer(index).first_chunk().copied();
        u32::from_ne_bytes(bytes.unwrap_or_default())
    }
}
