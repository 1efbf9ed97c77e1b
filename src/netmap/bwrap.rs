//! A persistent port on a second switch: what the kernel makes of it with a
//! *bwrap*.
//!
//! Such a port joins its switches: what one of them gives it goes on to the
//! other, as from the port that it is there, by whoever sends and straight from
//! where the frames lie. As in the kernel, nobody can have the port's rings
//! meanwhile.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::adapter::Place;
use super::attachment::{Attachment, Delivered};
use super::authority::Charge;
use super::device::part_with;
use super::ring_port::RingPort;
use super::vale::{PortError, PortId, Switch};
use crate::net::frame::Batch;
use crate::virtio::spec::net;

/// The way out to a switch, as from one port of it.
#[derive(Debug)]
pub struct Way {
    switch: Arc<Switch>,
    port: PortId,
}

impl Attachment for Way {
    fn offloads(&self) -> u64 {
        // Each receiver there gets its frames as it can take them.
        net::GUEST_OFFLOADS
    }

    fn deliver(&self, ring: usize, batch: &Batch<'_>, picks: &[u16]) -> Delivered {
        let mut picks = picks.iter().map(|pick| usize::from(*pick)).peekable();
        let mut delivered = Delivered::default();
        while picks.peek().is_some() {
            let some = batch.some(&mut picks);
            for frame in some.frames() {
                delivered.frames += 1;
                delivered.bytes += u64::from(frame.len);
            }
            self.switch.forward(self.port, ring, &some);
        }
        delivered
    }
}

/// What a port has while it is on two switches.
#[derive(Debug)]
pub struct Second {
    /// The second place.
    pub place: Place,
    /// That place, on the account of who has put the port there.
    pub charge: Option<Charge>,
    /// From there to the first.
    back: Arc<Way>,
}

impl Second {
    /// Puts a port that is at `first` on `switch` as well.
    ///
    /// # Errors
    /// The switch refuses it; it is given back.
    pub fn new(
        port: &RingPort,
        first: &Place,
        (switch, name): (Arc<Switch>, &str),
        charge: Option<Charge>,
    ) -> Result<Self, (Arc<Switch>, PortError)> {
        let back = Arc::new(Way {
            switch: Arc::clone(&first.switch),
            port: first.id,
        });
        let id = match switch.attach(name, None, Arc::clone(&back) as _) {
            Ok(id) => id,
            Err(error) => return Err((switch, error)),
        };
        port.lead_on(Some(Way {
            switch: Arc::clone(&switch),
            port: id,
        }));
        Ok(Self {
            place: Place {
                name: format!("{}:{name}", switch.name()),
                switch,
                id,
            },
            charge,
            back,
        })
    }

    /// Takes the port off the second switch, which is given back, with the
    /// number that the port had there. No frame is on its way any more then.
    pub fn undo(self, port: &RingPort) -> (Arc<Switch>, PortId) {
        let Place { switch, id, .. } = self.place;
        port.lead_on(None);
        switch.detach(id);
        part_with(self.back);
        (switch, id)
    }
}

/// Where frames go on to that are for a port whose rings nobody has.
#[derive(Debug, Default)]
pub struct Onward(ArcSwapOption<Way>);

impl Onward {
    /// There from now on; with `None`, whoever is on the way is waited for.
    pub fn set(&self, way: Option<Way>) {
        if let Some(before) = self.0.swap(way.map(Arc::new)) {
            part_with(before);
        }
    }

    /// Sends frames on; `None`: there is no way.
    pub fn deliver(&self, ring: usize, batch: &Batch<'_>, picks: &[u16]) -> Option<Delivered> {
        let way = self.0.load();
        way.as_ref().map(|way| way.deliver(ring, batch, picks))
    }
}
