//! Two hosts with a cable between them, the first with a netmap core.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bed::{Namespace, PacketSocket, Result, equipment};
use vtnetd::netmap::device::{Devices, Here};
use vtnetd::netmap::mem::RegionConfig;
use vtnetd::netmap::register::Netmap;
use vtnetd::netmap::vale::Switches;

/// The first host's address, of `here0`.
pub const HERE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// The second one's, of `there0`.
pub const THERE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
/// What is soon.
pub const SOON: Duration = Duration::from_secs(10);
/// Long enough for what would come to have come.
pub const NEVER: Duration = Duration::from_millis(150);

pub struct Bed {
    pub here: Namespace,
    pub there: Namespace,
    pub core: Arc<Netmap>,
    pub switches: Arc<Switches>,
}

/// Calls `test` with a bed in the first host, or says why not.
pub fn on_bed(test: impl FnOnce(&Bed) + Send) {
    if let Err(error) = equipment::tap().and_then(|()| equipment::tcx()) {
        bed::skipped(error);
        return;
    }
    let bed = Bed::new().unwrap();
    bed.here
        .within(|| {
            test(&bed);
            Ok(())
        })
        .unwrap();
}

impl Bed {
    fn new() -> Result<Self> {
        let (here, there) = (Namespace::new()?, Namespace::new()?);
        let peer = there.path();
        here.run(&format!(
            "ip link add here0 type veth peer name there0 netns {peer}"
        ))?;
        here.run(&format!("ip addr add {HERE}/24 dev here0"))?;
        there.run(&format!("ip addr add {THERE}/24 dev there0"))?;
        here.run("ip link set here0 up")?;
        there.run("ip link set there0 up")?;
        let switches = Arc::new(Switches::default());
        let devices = Devices::new(Here::new(["here0", "here1"]))?;
        let core = Netmap::new(Arc::clone(&switches), RegionConfig::global());
        Ok(Self {
            here,
            there,
            core: Arc::new(core.with_devices(devices)),
            switches,
        })
    }

    /// The other end of the cable.
    pub fn wire(&self) -> PacketSocket {
        let socket = self.there.within(|| Ok(PacketSocket::new("there0")?));
        socket.unwrap()
    }

    /// Whether the stacks of the two hosts reach each other, while `carry` is
    /// called again and again.
    pub fn reaches(&self, within: Duration, mut carry: impl FnMut()) -> bool {
        let socket = |address| {
            let socket = UdpSocket::bind(SocketAddrV4::new(address, 4000))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let there = self.there.within(|| socket(THERE)).unwrap();
        let here = socket(HERE).unwrap();
        let start = Instant::now();
        let (mut asked, mut answered) = (None::<Instant>, false);
        while start.elapsed() < within && !answered {
            if asked.is_none_or(|asked| asked.elapsed() > Duration::from_millis(50)) {
                // Not before its neighbour is known, which takes a frame.
                let _ = there.send_to(b"question", (HERE, 4000));
                asked = Some(Instant::now());
            }
            carry();
            let mut room = [0; 64];
            match here.recv_from(&mut room) {
                Ok((8, from)) => assert_eq!(here.send_to(b"answer", from).unwrap(), 6),
                Ok(_) => panic!("something else came"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            carry();
            answered = matches!(there.recv_from(&mut room), Ok((6, _)));
        }
        answered
    }

    /// The interfaces of the first host.
    pub fn interfaces(&self) -> Vec<String> {
        let names = nix::net::if_::if_nameindex().unwrap();
        let mut names: Vec<String> = names
            .iter()
            .map(|one| one.name().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    /// No program is between the interface and the host.
    pub fn is_untouched(&self) -> bool {
        [TCX_INGRESS, TCX_EGRESS].map(programs) == [0, 0]
    }

    /// Everything is as it was before anybody had an interface, or soon is:
    /// whoever was at it last closes it.
    pub fn is_clean(&self) -> bool {
        let start = Instant::now();
        while !self.nobody_has_it() {
            if start.elapsed() > SOON {
                return false;
            }
            std::thread::yield_now();
        }
        self.reaches(SOON, || {})
    }

    fn nobody_has_it(&self) -> bool {
        let link = std::process::Command::new("ip")
            .args(["-d", "link", "show", "here0"])
            .output()
            .unwrap();
        let link = String::from_utf8(link.stdout).unwrap();
        self.interfaces() == ["here0", "lo"]
            && self.is_untouched()
            && link.contains("promiscuity 0")
    }
}

/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` (linux/bpf.h).
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;

/// How many programs see frames of the interface.
fn programs(way: u32) -> u32 {
    /// `BPF_PROG_QUERY`
    const QUERY: nix::libc::c_long = 16;
    let interface = nix::net::if_::if_nametoindex("here0").unwrap();
    // Interface, way, flags twice, where to put programs (twice), how many; and
    // what the kernel writes behind that, whatever the size.
    let mut query = [0; 32];
    query[..2].copy_from_slice(&[interface, way]);
    let size = size_of_val(&query);
    // SAFETY: more bytes than the kernel knows of this query.
    let asked = unsafe { nix::libc::syscall(nix::libc::SYS_bpf, QUERY, &mut query, size) };
    nix::errno::Errno::result(asked).unwrap();
    query[6]
}
