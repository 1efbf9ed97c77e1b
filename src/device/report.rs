//! What a device tells people: how its front end has set it up, and what its
//! queues have counted.

use std::fmt::Write;
use std::sync::PoisonError;

use super::Device;
use crate::virtio::feature_names;

impl Device {
    /// A line with the device's state, then one for each queue with its
    /// counters.
    pub fn statistics(&self) -> String {
        let name = &self.options.name;
        let mut text = format!("{name}: {}\n", self.state());
        for pair in &self.pairs {
            let index = pair.index;
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name} rx{index}: {}", pair.rx_stats);
            let _ = writeln!(text, "{name} tx{index}: {}", pair.tx_stats);
        }
        text
    }

    fn state(&self) -> String {
        let word = |yes, yes_word, no_word| if yes { yes_word } else { no_word };
        let running = self
            .queues()
            .enumerate()
            .filter(|(_, (vring, ..))| vring.is_active() && vring.is_enabled())
            .map(|(index, _)| self.ring_name(index));
        format!(
            "front_end={} link={} mtu={} memory={} running={} features={}",
            word(self.has_front_end(), "connected", "none"),
            word(self.shared.is_link_up(), "up", "down"),
            self.shared.config().mtu(),
            self.memory().total_bytes(),
            or_none(running.collect::<Vec<_>>().join(",")),
            or_none(feature_names::describe(self.acked_features())),
        )
    }

    /// A front end listens to the device.
    fn has_front_end(&self) -> bool {
        let listener = self.listener.lock();
        listener.unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The name of queue `index`, such as `rx0`.
    pub(super) fn ring_name(&self, index: usize) -> String {
        let (pair, is_tx) = (index / 2, index % 2 == 1);
        if pair >= self.pairs.len() {
            return "ctrl".to_owned();
        }
        format!("{}{pair}", if is_tx { "tx" } else { "rx" })
    }
}

fn or_none(list: String) -> String {
    if list.is_empty() {
        "none".to_owned()
    } else {
        list
    }
}
