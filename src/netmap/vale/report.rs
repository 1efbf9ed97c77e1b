//! What a switch tells people: its ports' counters, and where it has heard which
//! address.

use std::fmt;

use super::{PortStatistics, Switch};

impl Switch {
    /// A line for each port, from the lowest number, then one for each address
    /// with the port and how long ago it was heard, in epochs.
    pub fn report(&self) -> String {
        let mut lines = Vec::new();
        for port in self.statistics() {
            lines.push(format!("{}:{port}\n", self.name));
        }
        let mut addresses = self.addresses();
        addresses.sort_unstable_by_key(|(mac, ..)| mac.0);
        for (mac, port, age) in addresses {
            lines.push(format!("{}: {mac} port={port} age={age}\n", self.name));
        }
        lines.concat()
    }
}

impl fmt::Display for PortStatistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let causes = &self.causes;
        for (name, number) in [
            ("in", self.in_frames),
            ("in_bytes", self.in_bytes),
            ("out", self.out_frames),
            ("out_bytes", self.out_bytes),
            ("dropped", self.dropped),
            ("flooded", self.flooded),
            ("unknown", self.unknown),
            ("no_room", causes.no_room),
            ("unbound", causes.unbound),
            ("short", causes.short),
            ("long", causes.long),
            ("bad_slots", causes.bad_slots),
            ("bad_headers", causes.bad_headers),
        ] {
            let before = if name == "in" { &self.name } else { "" };
            write!(f, "{before} {name}={number}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::net::frame::Batch;
    use crate::netmap::attachment::{Attachment, Delivered};
    use crate::virtio::memory::Readable;
    use crate::virtio::net_header::NetHeader;

    /// Takes nothing.
    struct Full;

    impl Attachment for Full {
        fn offloads(&self) -> u64 {
            0
        }

        fn deliver(&self, _: usize, _: &Batch<'_>, _: &[u16]) -> Delivered {
            Delivered::default()
        }
    }

    #[test]
    fn ports_and_addresses_in_lines() {
        let switch = Switch::new("vale0");
        let from = switch.attach("a", None, Arc::new(Full)).unwrap();
        switch.attach("b", None, Arc::new(Full)).unwrap();
        let mut frame = [0; 60];
        frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
        let mut batch = Batch::new();
        batch.push_part(0, Readable::from_slice(&frame)).unwrap();
        let ether = *frame.first_chunk().unwrap();
        assert!(batch.push_frame(0, 60, ether, NetHeader::default()));
        switch.forward(from, 0, &batch);
        switch.age();
        let causes = "no_room=0 unbound=0 short=0 long=0 bad_slots=0 bad_headers=0";
        let want = [
            format!(
                "vale0:a in=1 in_bytes=60 out=0 out_bytes=0 dropped=0 flooded=1 unknown=1 {causes}"
            ),
            format!(
                "vale0:b in=0 in_bytes=0 out=0 out_bytes=0 dropped=1 flooded=0 unknown=0 {causes}"
            ),
            "vale0: 02:00:00:00:00:01 port=a age=1".to_owned(),
        ];
        let report = switch.report();
        assert_eq!(report.lines().collect::<Vec<_>>(), want);
    }
}
