//! Rings that a client syncs itself: all that its registration has bound, where
//! all of them are pipes'.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::Registration;
use crate::netmap::adapter::Kind;
use crate::netmap::mem::Buffers;
use crate::netmap::pipe::Link;
use crate::netmap::pipe::borrowed::{RingTerms, Terms};
use crate::netmap::port::Direction;

impl Registration {
    /// The bound rings' links and which half of them is bound; none where they
    /// are no pipe's.
    #[inline]
    fn links(&self) -> impl Iterator<Item = (&Arc<Link>, Direction)> {
        let is_pipe = matches!(self.adapter().kind(), Kind::Pipe(_));
        let directions = [Direction::Tx, Direction::Rx].into_iter();
        let directions = directions.filter(move |_| is_pipe);
        directions.flat_map(|direction| {
            let bound = self.bound(direction).iter();
            bound.filter_map(move |bound| Some((bound.link()?, direction)))
        })
    }

    /// What a client has to know that the rings are lent to, under the number
    /// `holder`; `None` where they cannot be.
    pub(in crate::netmap) fn terms(&self, holder: NonZeroU32) -> Option<Terms> {
        let mut terms = Terms {
            buffers: {
                let [_, _, buffers] = self.region().layout();
                Buffers {
                    offset: buffers.offset,
                    size: buffers.size,
                    num: buffers.num,
                }
            },
            flags: self.flags,
            holder,
            tx: Vec::new(),
            rx: Vec::new(),
        };
        for (link, direction) in self.links() {
            let [own, other] = [direction, direction.other()].map(|way| link.kring(way).memory());
            own.progress().and(other.progress())?;
            let rings = match direction {
                Direction::Tx => &mut terms.tx,
                Direction::Rx => &mut terms.rx,
            };
            rings.push(RingTerms {
                own: own.offset(),
                other: other.offset(),
                slots: own.view().num_slots().into(),
            });
        }
        (!terms.tx.is_empty() || !terms.rx.is_empty()).then_some(terms)
    }

    /// Lends all rings to `holder`, or none. Returns whether it has them.
    pub(in crate::netmap) fn lend(&self, holder: NonZeroU32) -> bool {
        let lent = self.links().next().is_some()
            && self
                .links()
                .all(|(link, direction)| link.lend(direction, holder));
        if !lent {
            self.take_back(holder);
        }
        lent
    }

    /// `holder` has rings.
    pub(in crate::netmap) fn is_lent_to(&self, holder: NonZeroU32) -> bool {
        let mut links = self.links();
        links.any(|(link, direction)| link.is_lent_to(direction, holder))
    }

    /// Takes back what `holder` has, which does not sync it meanwhile.
    pub(in crate::netmap) fn take_back(&self, holder: NonZeroU32) {
        for (link, direction) in self.links() {
            link.take_back(direction, holder);
        }
    }

    /// Takes back all that is lent, without waiting. Returns whether nothing is
    /// lent any more: to be asked again if not.
    #[inline]
    pub(in crate::netmap) fn try_recall(&self) -> bool {
        // All of them, so that each is on its way.
        self.links().fold(true, |home, (link, direction)| {
            link.try_recall(direction) && home
        })
    }

    /// Takes back all that is lent.
    pub(in crate::netmap) fn recall(&self) {
        self.try_recall();
        for (link, _) in self.links() {
            link.recall();
        }
    }

    /// Whoever has the rings has passed something on: tells those who sleep at
    /// the other ends.
    pub(in crate::netmap) fn tell_others(&self) {
        for (link, direction) in self.links() {
            link.tell_other(direction);
        }
    }
}
