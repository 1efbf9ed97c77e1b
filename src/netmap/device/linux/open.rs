//! Opening an interface: what needs a privilege, or names an interface.

use std::ffi::{CStr, CString};
use std::fs::OpenOptions;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::super::source::{DeviceError, Facts, Handles};
use super::bpf::{self, Way};
use super::packet::{Geometry, OVERHEAD};
use super::programs;
use crate::virtio::net_header;

/// What makes taps.
const TUN: &str = "/dev/net/tun";
/// The kernel puts a number in place of `%d`.
const TAP: &CStr = c"nmhost%d";
/// Frames that the receive ring holds.
const FRAMES: u32 = 2048;
/// Bytes of long frames that wait behind the ring, and of frames that are being
/// sent.
const SOCKET_BUFFER: libc::c_int = 4 << 20;
/// The longest MTU of a tap (`MAX_MTU` in drivers/net/tun.c, without an Ethernet
/// header).
const TAP_MTU: u32 = 65521;

/// What opening an interface takes.
const NEEDS_LINUX: &str =
    "to take it from the host's stack needs Linux 6.6 with CONFIG_BPF_SYSCALL, and root";

mod ioctl {
    // netdevice(7) and linux/if_tun.h.
    nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_read_bad!(get_interface, libc::TUNGETIFF, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_header_len, libc::TUNSETVNETHDRSZ, libc::c_int);
    nix::ioctl_write_ptr_bad!(set_little_endian, libc::TUNSETVNETLE, libc::c_int);
    nix::ioctl_write_int_bad!(set_offloads, libc::TUNSETOFFLOAD);
    nix::ioctl_read_bad!(get_flags, libc::SIOCGIFFLAGS, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_flags, libc::SIOCSIFFLAGS, libc::ifreq);
    nix::ioctl_read_bad!(get_mtu, libc::SIOCGIFMTU, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_mtu, libc::SIOCSIFMTU, libc::ifreq);
}

/// What there is to know of an interface without opening it; `None`: there is
/// no such.
///
/// # Errors
/// The system says nothing about it.
pub fn look(name: &str) -> Result<Option<Facts>, DeviceError> {
    let Ok(index) = if_nametoindex(name) else {
        return Ok(None);
    };
    let failed = |errno| DeviceError::new(name, errno, "see netdevice(7)");
    let control = control().map_err(failed)?;
    let mut request = request(name).ok_or(failed(Errno::EINVAL))?;
    // SAFETY: the request is a whole ifreq; after the call its MTU is set.
    let mtu = unsafe {
        match ioctl::get_mtu(control.as_raw_fd(), &mut request) {
            // It has just gone.
            Err(Errno::ENODEV) => return Ok(None),
            got => got.map_err(failed)?,
        };
        request.ifr_ifru.ifru_mtu
    };
    Ok(Some(Facts {
        index,
        mtu: u32::try_from(mtu).unwrap_or(0),
    }))
}

/// Opens the interface `name`, which stays the host's until its rings are
/// bound; with `promiscuous` it receives what is for others too.
///
/// # Errors
/// There is no such interface, no privilege, or a Linux before 6.6.
pub fn open(name: &str, promiscuous: bool) -> Result<Handles, DeviceError> {
    let failed = |cure| move |errno| DeviceError::new(name, errno, cure);
    let Some(facts) = look(name)? else {
        return Err(failed("choose an interface that is there")(Errno::ENXIO));
    };
    if facts.mtu > TAP_MTU {
        let cure = "its host rings need a tap with its MTU, which is 65521 at most: lower it";
        return Err(failed(cure)(Errno::EINVAL));
    }
    let mark = mark().map_err(failed("see getrandom(2)"))?;
    let (tap, tap_index) = tap(facts.mtu).map_err(|errno| {
        failed(match errno {
            // It does not know all offloads.
            Errno::EINVAL => NEEDS_LINUX,
            _ => "its host rings need a tap: run as root, and load the driver: modprobe tun",
        })(errno)
    })?;
    let size = Geometry::frame_size(facts.mtu);
    let socket = packet(facts.index, mark, size, promiscuous)
        .map_err(failed("packet(7) needs CAP_NET_RAW: run as root"))?;
    let mut fds = vec![socket, tap];
    attach(&mut fds, facts.index, tap_index, mark).map_err(failed(NEEDS_LINUX))?;
    Ok(Handles {
        fds,
        numbers: vec![size.into(), FRAMES.into(), facts.mtu.into()],
    })
}

/// A number that nobody else is likely to mark frames with.
fn mark() -> Result<u32, Errno> {
    let mut mark = [0; 4];
    // SAFETY: as many bytes are written as there are.
    let got = unsafe { libc::getrandom(mark.as_mut_ptr().cast(), mark.len(), 0) };
    Errno::result(got)?;
    Ok(u32::from_ne_bytes(mark) | 1)
}

fn control() -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Unix, SockType::Datagram, flags, None)
}

/// A tap that is up, and its number.
fn tap(mtu: u32) -> Result<(OwnedFd, u32), Errno> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(TUN);
    let tap = file.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    let tap = OwnedFd::from(tap);
    let mut request = empty(TAP);
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = short(flags);
    let header = libc::c_int::try_from(net_header::LEN).map_err(|_| Errno::EINVAL)?;
    let tso = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let offloads = tso | libc::TUN_F_USO4 | libc::TUN_F_USO6;
    let offloads = libc::c_int::try_from(offloads).map_err(|_| Errno::EINVAL)?;
    // SAFETY: whole ifreqs and ints that outlive the calls; the first leaves
    // the tap's name in the request.
    unsafe {
        ioctl::set_interface(tap.as_raw_fd(), &request)?;
        ioctl::get_interface(tap.as_raw_fd(), &mut request)?;
        ioctl::set_header_len(tap.as_raw_fd(), &header)?;
        ioctl::set_little_endian(tap.as_raw_fd(), &1)?;
        ioctl::set_offloads(tap.as_raw_fd(), offloads)?;
    }
    // SAFETY: the kernel ends names with a NUL.
    let name = unsafe { CStr::from_ptr(request.ifr_name.as_ptr()) }.to_owned();
    let name = name.to_str().map_err(|_| Errno::EINVAL)?;
    // It has no business of its own. Where this cannot be written, what it
    // says is dropped.
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
    let control = control()?;
    let mut request = self::request(name).ok_or(Errno::EINVAL)?;
    request.ifr_ifru.ifru_mtu = libc::c_int::try_from(mtu).map_err(|_| Errno::EINVAL)?;
    // SAFETY: whole ifreqs that outlive the calls; after the second its flags
    // are set.
    unsafe {
        ioctl::set_mtu(control.as_raw_fd(), &request)?;
        ioctl::get_flags(control.as_raw_fd(), &mut request)?;
        request.ifr_ifru.ifru_flags |= short(libc::IFF_UP);
        ioctl::set_flags(control.as_raw_fd(), &request)?;
    }
    Ok((tap, if_nametoindex(name)?))
}

/// Loads the programs and attaches them; the word they read comes first.
fn attach(fds: &mut Vec<OwnedFd>, interface: u32, tap: u32, mark: u32) -> Result<(), Errno> {
    let number = |index: u32| i32::try_from(index).map_err(|_| Errno::EINVAL);
    let mark = i32::from_ne_bytes(mark.to_ne_bytes());
    let word = bpf::word()?;
    let map = word.as_raw_fd();
    fds.push(word);
    let all = [
        (programs::to_host(mark, number(interface)?), tap, Way::In),
        (programs::from_host(mark), tap, Way::Out),
        (programs::inbound(mark, map), interface, Way::In),
        (
            programs::outbound(mark, map, number(tap)?),
            interface,
            Way::Out,
        ),
    ];
    for (program, interface, way) in all {
        let program = bpf::load(&program)?;
        fds.push(bpf::attach(program.as_fd(), interface, way)?);
    }
    Ok(())
}

/// A packet socket with a receive ring of frames of `size` bytes, which sees
/// what comes in on `interface` and sends there, with `mark`.
fn packet(interface: u32, mark: u32, size: u32, promiscuous: bool) -> Result<OwnedFd, Errno> {
    let interface = libc::c_int::try_from(interface).map_err(|_| Errno::EINVAL)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    // Without a protocol it hears nothing until it is bound.
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
    let fd = socket.as_fd();
    let packet = |name, value: libc::c_int| option(fd, libc::SOL_PACKET, name, &value);
    let version = libc::tpacket_versions::TPACKET_V2 as libc::c_int;
    packet(libc::PACKET_VERSION, version)?;
    packet(libc::PACKET_VNET_HDR, 1)?;
    packet(libc::PACKET_IGNORE_OUTGOING, 1)?;
    // What is longer than a frame of the ring waits behind it, whole.
    packet(libc::PACKET_COPY_THRESH, 1)?;
    ignore_marked(fd, mark)?;
    option(fd, libc::SOL_SOCKET, libc::SO_MARK, &mark)?;
    for name in [libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE] {
        // In a container of its own it may have less.
        match option(fd, libc::SOL_SOCKET, name, &SOCKET_BUFFER) {
            Err(Errno::EPERM) => {}
            set => set?,
        }
    }
    let block = size.max(1 << 16);
    let ring = libc::tpacket_req {
        tp_block_size: block,
        tp_block_nr: FRAMES / (block / size),
        tp_frame_size: size,
        tp_frame_nr: FRAMES,
    };
    option(fd, libc::SOL_PACKET, libc::PACKET_RX_RING, &ring)?;
    if promiscuous {
        // It lasts as long as the socket.
        let membership = libc::packet_mreq {
            mr_ifindex: interface,
            mr_type: libc::c_ushort::try_from(libc::PACKET_MR_PROMISC)
                .map_err(|_| Errno::EINVAL)?,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        option(
            fd,
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            &membership,
        )?;
    }
    bind(fd, interface)?;
    Ok(socket)
}

/// Sets an option whose value is a `T`.
fn option<T>(fd: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> Result<(), Errno> {
    let size = libc::socklen_t::try_from(size_of::<T>()).map_err(|_| Errno::EINVAL)?;
    let value = std::ptr::from_ref(value).cast();
    // SAFETY: the value is as long as is said, and outlives the call.
    let set = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value, size) };
    Errno::result(set).map(drop)
}

/// What we give to the host comes in on the interface, where the socket is not
/// to hear it.
fn ignore_marked(fd: BorrowedFd<'_>, mark: u32) -> Result<(), Errno> {
    /// `SKF_AD_OFF + SKF_AD_MARK` (linux/filter.h).
    const MARK: u32 = 0xffff_f000 + 20;
    let line = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        line(0x20, 0, 0, MARK),
        line(0x15, 0, 1, mark),
        line(0x06, 0, 0, 0),
        line(0x06, 0, 0, u32::MAX),
    ];
    let filter = libc::sock_fprog {
        len: 4,
        filter: filter.as_mut_ptr(),
    };
    option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
}

fn bind(fd: BorrowedFd<'_>, interface: libc::c_int) -> Result<(), Errno> {
    let family = libc::c_ushort::try_from(libc::AF_PACKET).map_err(|_| Errno::EINVAL)?;
    let all = u16::try_from(libc::ETH_P_ALL).map_err(|_| Errno::EINVAL)?;
    // SAFETY: numbers, for which 0 is good.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = family;
    address.sll_protocol = all.to_be();
    address.sll_ifindex = interface;
    let size =
        libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(|_| Errno::EINVAL)?;
    let address = std::ptr::from_ref(&address).cast();
    // SAFETY: a whole address that outlives the call.
    Errno::result(unsafe { libc::bind(fd.as_raw_fd(), address, size) }).map(drop)
}

/// Interface flags are within 16 bits.
#[expect(clippy::cast_possible_truncation, reason = "as said")]
fn short(flags: libc::c_int) -> libc::c_short {
    flags as libc::c_short
}

/// A request about the interface `name`, if that can be one's name.
fn request(name: &str) -> Option<libc::ifreq> {
    let name = CString::new(name).ok()?;
    (1..libc::IFNAMSIZ)
        .contains(&name.count_bytes())
        .then(|| empty(&name))
}

fn empty(name: &CStr) -> libc::ifreq {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(name.to_bytes()) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request
}

const _: () = assert!(OVERHEAD < 2048);
