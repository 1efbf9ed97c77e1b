//! A place in a packed ring (section 2.8.1).

/// The index of a descriptor, and the wrap counter of whoever is there: it
/// flips each time the end of the ring is passed, beginning with 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Below the ring's size.
    pub index: u16,
    /// The wrap counter.
    pub wrap: bool,
}

impl Position {
    /// Where both sides begin.
    pub const START: Self = Self {
        index: 0,
        wrap: true,
    };

    /// As event suppression structures and vring bases have it: the index in 15
    /// bits, the wrap counter above.
    #[inline]
    pub fn to_bits(self) -> u16 {
        self.index | u16::from(self.wrap) << 15
    }

    /// The reverse of [`to_bits`](Self::to_bits); the index may be anything.
    #[inline]
    pub fn from_bits(bits: u16) -> Self {
        Self {
            index: bits & 0x7fff,
            wrap: bits >> 15 != 0,
        }
    }

    /// `count` descriptors further in a ring of `size`, at most once round.
    #[inline]
    #[must_use]
    pub fn advance(self, count: u16, size: u16) -> Self {
        // Both are at most 32768.
        let index = u32::from(self.index) + u32::from(count);
        match index.checked_sub(u32::from(size)) {
            None => Self {
                index: self.index + count,
                ..self
            },
            Some(rest) => Self {
                index: u16::try_from(rest).unwrap_or(0),
                wrap: !self.wrap,
            },
        }
    }

    /// Whether going from `old` to `self`, at most once round a ring of `size`,
    /// passes the descriptor at `event` (2.8.10).
    #[inline]
    pub fn passes(self, event: Self, old: Self, size: u16) -> bool {
        // As if the ring went on before its beginning.
        let before = |other: Self| {
            let lap = if other.wrap == self.wrap { 0 } else { size };
            other.index.wrapping_sub(lap)
        };
        let since_event = self.index.wrapping_sub(before(event)).wrapping_sub(1);
        since_event < self.index.wrapping_sub(before(old))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way around small rings, against a count that never wraps.
    #[test]
    fn events_are_passed_as_if_the_ring_had_no_end() {
        for size in [1, 2, 3, 5, 8] {
            let at = |count: u32| {
                let lap = count / u32::from(size);
                Position {
                    index: u16::try_from(count % u32::from(size)).unwrap(),
                    wrap: lap % 2 == 0,
                }
            };
            for old in 0..3 * u32::from(size) {
                for step in 0..=u32::from(size) {
                    let new = old + step;
                    assert_eq!(at(old).advance(u16::try_from(step).unwrap(), size), at(new));
                    // The next lap from the old place on, and what is behind.
                    for event in old..old + u32::from(size) {
                        let passed = at(new).passes(at(event), at(old), size);
                        assert_eq!(
                            passed,
                            (old..new).contains(&event),
                            "{size} {old} {new} {event}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn bits_are_those_of_the_event_structure() {
        assert_eq!(Position::START.to_bits(), 0x8000);
        let place = Position {
            index: 0x1234,
            wrap: false,
        };
        assert_eq!(place.to_bits(), 0x1234);
        for bits in [0, 1, 0x7fff, 0x8000, 0xffff] {
            assert_eq!(Position::from_bits(bits).to_bits(), bits);
        }
    }

    #[test]
    fn the_largest_ring_wraps() {
        let end = Position {
            index: 32767,
            wrap: true,
        };
        assert_eq!(
            end.advance(1, 32768),
            Position {
                index: 0,
                wrap: false
            }
        );
        assert_eq!(
            end.advance(32768, 32768),
            Position {
                index: 32767,
                wrap: false
            }
        );
    }
}
