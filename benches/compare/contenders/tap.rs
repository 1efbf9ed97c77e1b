//! vtnetd on taps. The guests are on a bridge of the kernel's, in a network
//! namespace of their own, each with a tap.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bed::{Namespace, Result, Scratch, Vtnetd, equipment};

use super::{BackEnd, Server, sockets, vtnetd};
use crate::processor::BACK_END;
use crate::work::Work;

pub const NAME: &str = "vtnetd-tap";
/// What a frame has besides the MTU.
const ETHERNET: u64 = 14;

/// The namespace with the bridge.
pub struct Bridge(Namespace);

impl Bridge {
    /// One without ports.
    ///
    /// # Errors
    /// This kernel has no bridges.
    pub fn new(work: &Work) -> Result<Self> {
        let namespace = Namespace::new()?;
        namespace.run("ip link add bridge type bridge forward_delay 0 mcast_snooping 0")?;
        namespace.run(&format!("ip link set bridge up mtu {}", mtu(work)))?;
        namespace.within(without_packet_filters)?;
        Ok(Self(namespace))
    }

    /// Calls `body` in the namespace.
    ///
    /// # Errors
    /// Those of `body`.
    pub fn within<T: Send>(&self, body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.0.within(body)
    }

    /// Adds the taps of all guests, which their back ends have made.
    ///
    /// # Errors
    /// One is not there.
    pub fn join(&self, work: &Work) -> Result<()> {
        for guest in 1..=usize::try_from(work.guests).unwrap_or(0) {
            let (tap, mtu) = (tap(guest), mtu(work));
            self.0
                .run(&format!("ip link set {tap} master bridge mtu {mtu} up"))?;
        }
        Ok(())
    }
}

/// Where `br_netfilter` is loaded, each frame of a bridge passes the hooks of
/// packet filters: a matter of the machine and not of who is measured.
fn without_packet_filters() -> Result<()> {
    for filter in ["arptables", "iptables", "ip6tables"] {
        let switch = format!("/proc/sys/net/bridge/bridge-nf-call-{filter}");
        if Path::new(&switch).exists() {
            fs::write(switch, "0")?;
        }
    }
    Ok(())
}

/// The tap of guest `guest`.
pub fn tap(guest: usize) -> String {
    format!("tap{guest}")
}

fn mtu(work: &Work) -> u64 {
    work.links().longest - ETHERNET
}

pub struct VtnetdOnTap;

impl Server for VtnetdOnTap {
    fn name(&self) -> &'static str {
        NAME
    }

    fn ours(&self) -> Option<&'static str> {
        None
    }

    fn version(&self) -> Result<String> {
        vtnetd::version()
    }

    fn equipment(&self) -> Result<()> {
        equipment::tap()
    }

    fn start(&self, work: &Work) -> Result<Box<dyn BackEnd>> {
        let scratch = Scratch::new()?;
        let sockets = sockets(&scratch, work);
        let bridge = Bridge::new(work)?;
        let devices = vtnetd::devices(&sockets, work, tap);
        let cpu = BACK_END.to_string();
        let program = vtnetd::program();
        let process = bridge.within(|| Vtnetd::start(&program, &devices, Some(&cpu)))?;
        bridge.join(work)?;
        Ok(Box::new(Running {
            process,
            sockets,
            _bridge: bridge,
            _scratch: scratch,
        }))
    }
}

struct Running {
    process: Vtnetd,
    sockets: Vec<PathBuf>,
    _bridge: Bridge,
    _scratch: Scratch,
}

impl BackEnd for Running {
    fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    fn command_line(&self) -> String {
        self.process.command_line().to_owned()
    }

    fn processor_time(&self) -> Result<Duration> {
        self.process.processor_time()
    }

    fn stop(self: Box<Self>) -> Result<()> {
        self.process.stop()?;
        Ok(())
    }
}
