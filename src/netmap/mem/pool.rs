//! Pools: how many objects of which size lie where in a region, and which of
//! them are free. What is free is known here alone, in private memory: clients
//! cannot touch it, and no page of a region is touched to keep it.

use super::MemError;

/// What was asked of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSize {
    /// Bytes of an object.
    pub size: u32,
    /// Number of objects.
    pub num: u32,
}

/// Between what a request may lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub what: &'static str,
    pub size: (u32, u32),
    pub num: (u32, u32),
}

/// Where a pool lies and what it holds: what was asked for, rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLayout {
    /// Bytes from the start of the region.
    pub offset: u64,
    /// Bytes of an object, a multiple of 64.
    pub size: u32,
    /// Number of objects: they fill whole pages.
    pub num: u32,
}

/// Objects are multiples of a cache line.
const LINE: u32 = 64;
/// Whole objects must fill whole pages within so many bytes.
const MAX_CLUSTER: u32 = 1 << 22;

impl PoolLayout {
    /// Rounds `want` as the kernel does: sizes to cache lines, numbers to
    /// clusters of whole pages, so that objects are contiguous.
    pub(super) fn new(
        offset: u64,
        want: PoolSize,
        bounds: &Bounds,
        page: u32,
    ) -> Result<Self, MemError> {
        let what = bounds.what;
        let (min, max) = bounds.size;
        let size = want
            .size
            .checked_next_multiple_of(LINE)
            .filter(|size| (min..=max).contains(size))
            .ok_or(MemError::Size {
                what,
                size: want.size,
                min,
                max,
            })?;
        let (min, max) = bounds.num;
        if !(min..=max).contains(&want.num) {
            return Err(MemError::Num {
                what,
                num: want.num,
                min,
                max,
            });
        }
        let cluster = page / gcd(size, page);
        if u64::from(cluster) * u64::from(size) > u64::from(MAX_CLUSTER) {
            return Err(MemError::Cluster { what, size });
        }
        Ok(Self {
            offset,
            size,
            // At most a million, rounded up to at most a page more.
            num: want.num.next_multiple_of(cluster),
        })
    }

    /// Bytes of all objects, whole pages.
    pub fn bytes(&self) -> u64 {
        u64::from(self.size) * u64::from(self.num)
    }

    /// Bytes from the start of the region to an object, if there is such.
    #[inline]
    pub fn object(&self, index: u32) -> Option<u64> {
        (index < self.num).then(|| self.offset + u64::from(index) * u64::from(self.size))
    }
}

fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Which objects of one pool are free.
#[derive(Debug)]
pub(super) struct Free {
    /// A set bit is a free object.
    bits: Vec<u64>,
    num: u32,
    reserved: u32,
    free: u32,
    /// No word below this one has a free object.
    from: usize,
}

impl Free {
    /// All `num` objects free but the first `reserved` (at most 64).
    pub(super) fn new(num: u32, reserved: u32) -> Self {
        let mut free = Self {
            bits: vec![0; num.div_ceil(64) as usize],
            num,
            reserved: reserved.min(num).min(64),
            free: 0,
            from: 0,
        };
        free.reset();
        free
    }

    /// Takes everything back.
    pub(super) fn reset(&mut self) {
        self.bits.fill(u64::MAX);
        let tail = self.num % 64;
        if let Some(last) = self.bits.last_mut().filter(|_| tail != 0) {
            *last = (1 << tail) - 1;
        }
        if let Some(first) = self.bits.first_mut() {
            *first &= u64::MAX.checked_shl(self.reserved).unwrap_or(0);
        }
        self.free = self.num - self.reserved;
        self.from = 0;
    }

    /// How many are free.
    pub(super) fn free(&self) -> u32 {
        self.free
    }

    /// Nothing is taken.
    pub(super) fn is_untouched(&self) -> bool {
        self.free == self.num - self.reserved
    }

    /// Takes the free object with the lowest index.
    pub(super) fn take(&mut self) -> Option<u32> {
        let from = self.from;
        let ahead = self.bits.get_mut(from..)?;
        let (at, word) = ahead.iter_mut().enumerate().find(|(_, word)| **word != 0)?;
        let bit = word.trailing_zeros();
        *word &= *word - 1;
        self.from = from + at;
        self.free -= 1;
        u32::try_from(self.from).ok().map(|word| word * 64 + bit)
    }

    /// Gives an object back. `false`: there is no such, it is one of the
    /// reserved, or it is free already.
    pub(super) fn give(&mut self, index: u32) -> bool {
        if !(self.reserved..self.num).contains(&index) {
            return false;
        }
        let (at, bit) = ((index / 64) as usize, 1u64 << (index % 64));
        let Some(word) = self.bits.get_mut(at).filter(|word| **word & bit == 0) else {
            return false;
        };
        *word |= bit;
        self.free += 1;
        self.from = self.from.min(at);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUFFERS: Bounds = Bounds {
        what: "buffer",
        size: (64, 65536),
        num: (4, 1_000_000),
    };

    fn layout(size: u32, num: u32) -> Result<(u32, u32), MemError> {
        PoolLayout::new(0, PoolSize { size, num }, &BUFFERS, 4096).map(|l| (l.size, l.num))
    }

    #[test]
    fn sizes_round_to_lines_and_numbers_to_whole_pages() {
        assert_eq!(layout(2048, 4097).unwrap(), (2048, 4098));
        assert_eq!(layout(1500, 4).unwrap(), (1536, 8));
        assert_eq!(layout(64, 5).unwrap(), (64, 64));
        assert_eq!(layout(65536, 5).unwrap(), (65536, 5));
        assert_eq!(layout(65537, 5).unwrap_err().to_string().lines().count(), 1);
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_by_name() {
        for size in [0, 65537, u32::MAX] {
            assert!(matches!(layout(size, 100), Err(MemError::Size { .. })));
        }
        for num in [0, 3, 1_000_001, u32::MAX] {
            assert!(matches!(layout(2048, num), Err(MemError::Num { .. })));
        }
        // 65472 bytes fill whole pages only 64 at a time: just below 4 MiB.
        assert!(layout(65472, 64).is_ok());
        let wide = PoolLayout::new(
            0,
            PoolSize {
                size: 65472,
                num: 64,
            },
            &BUFFERS,
            65536,
        );
        assert!(matches!(wide, Err(MemError::Cluster { .. })));
    }

    #[test]
    fn every_object_is_handed_out_once() {
        for (num, reserved) in [(1, 0), (64, 2), (65, 2), (130, 2), (4098, 2)] {
            let mut free = Free::new(num, reserved);
            assert_eq!(free.free(), num - reserved);
            let taken: Vec<u32> = std::iter::from_fn(|| free.take()).collect();
            assert_eq!(taken, (reserved..num).collect::<Vec<_>>());
            assert_eq!(free.free(), 0);
            for index in taken {
                assert!(free.give(index));
                assert!(!free.give(index), "given back twice");
            }
            assert!(free.is_untouched());
        }
    }

    #[test]
    fn what_is_no_object_is_not_taken_back() {
        let mut free = Free::new(100, 2);
        free.take();
        for index in [0, 1, 100, 127, 128, u32::MAX] {
            assert!(!free.give(index), "{index}");
        }
        assert_eq!(free.free(), 97);
    }

    #[test]
    fn a_reset_forgets_who_had_what() {
        let mut free = Free::new(100, 2);
        for _ in 0..50 {
            free.take();
        }
        assert!(!free.is_untouched());
        free.reset();
        assert!(free.is_untouched());
        assert_eq!(free.take(), Some(2));
    }
}
