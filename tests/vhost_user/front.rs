//! A front end that can say anything, and the memory that it shares.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vtnetd::frontend::vhost_user::message::{
    FLAG_NEED_REPLY, Header, MemoryTable, Request, VringAddress, VringFd, VringState,
    u64_from_bytes,
};
use vtnetd::frontend::vhost_user::{Channel, ChannelError, Message, PROTOCOL_FEATURES};
use vtnetd::virtio::memory::RegionSpec;
use vtnetd::virtio::spec::feature;

/// How mappings of shared memory are called in /proc/self/maps.
pub const MEMORY_NAME: &str = "vtnetd-guest";
/// Far longer than anything takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Guest memory of one region.
pub struct Memory {
    pub file: File,
    pub region: RegionSpec,
}

/// Entries of every ring.
pub const RING: u16 = 64;
/// Bytes of memory for each ring and its buffers.
const RING_ROOM: u64 = 0x10000;
/// Where in its room a ring's parts and its buffers are.
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
const BUFFERS: u64 = 0x4000;
/// Bytes of each buffer: a header of 12 bytes and a frame of 60.
const BUFFER: u64 = 0x100;
const FRAME: u32 = 12 + 60;

impl Memory {
    pub const LEN: u64 = 0x10_0000;

    pub fn new() -> Self {
        Self::at(0x4000_0000, 0x7f12_3450_0000)
    }

    pub fn at(guest_addr: u64, user_addr: u64) -> Self {
        let fd = memfd_create(MEMORY_NAME, MFdFlags::MFD_CLOEXEC).unwrap();
        let file = File::from(fd);
        file.set_len(Self::LEN).unwrap();
        let region = RegionSpec {
            guest_addr,
            user_addr,
            len: Self::LEN,
            offset: 0,
        };
        Self { file, region }
    }

    pub fn table(&self) -> Vec<u8> {
        MemoryTable::from_iter([self.region]).to_bytes()
    }

    pub fn addresses(&self, ring: u32) -> VringAddress {
        let base = self.region.user_addr + u64::from(ring) * RING_ROOM;
        VringAddress {
            index: ring,
            desc: base,
            avail: base + AVAIL,
            used: base + USED,
            ..VringAddress::default()
        }
    }

    /// Makes buffer number `number` of a transmit ring available: a header
    /// that asks for nothing and a frame.
    pub fn offer_frame(&self, ring: u32, number: u16) {
        let room = u64::from(ring) * RING_ROOM;
        let slot = u64::from(number % RING);
        let at = room + BUFFERS + slot * BUFFER;
        let mut frame = [0; FRAME as usize];
        frame[12..24].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1]);
        frame[24..26].copy_from_slice(&[0x88, 0xb5]);
        self.file.write_all_at(&frame, at).unwrap();
        let mut descriptor = [0; 16];
        let address = self.region.guest_addr + at;
        descriptor[..8].copy_from_slice(&address.to_le_bytes());
        descriptor[8..12].copy_from_slice(&FRAME.to_le_bytes());
        self.file
            .write_all_at(&descriptor, room + slot * 16)
            .unwrap();
        let entry = room + AVAIL + 4 + slot * 2;
        let head = number % RING;
        self.file.write_all_at(&head.to_le_bytes(), entry).unwrap();
        let index = number.wrapping_add(1).to_le_bytes();
        self.file.write_all_at(&index, room + AVAIL + 2).unwrap();
    }

    /// How many chains the device has used.
    pub fn used(&self, ring: u32) -> u16 {
        let mut index = [0; 2];
        let at = u64::from(ring) * RING_ROOM + USED + 2;
        self.file.read_exact_at(&mut index, at).unwrap();
        u16::from_le_bytes(index)
    }
}

/// One ring's descriptors on the front end's side.
pub struct Notifiers {
    pub kick: EventFd,
    pub call: EventFd,
}

impl Notifiers {
    pub fn new() -> Self {
        Self {
            kick: eventfd(),
            call: eventfd(),
        }
    }

    /// Waits for an interrupt and takes it.
    pub fn interrupted(&self) {
        assert!(is_ready(self.call.as_fd()), "no interrupt");
        self.call.read().unwrap();
    }
}

pub fn eventfd() -> EventFd {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).unwrap()
}

/// Waits until `fd` can be read.
pub fn is_ready(fd: BorrowedFd<'_>) -> bool {
    let timeout = PollTimeout::try_from(PATIENCE).unwrap();
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut fds, timeout).unwrap() == 1
}

/// A connected front end.
pub struct Front {
    pub channel: Channel,
}

impl Front {
    pub fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            channel: Channel::new(stream),
        }
    }

    pub fn header(request: Request, payload: &[u8]) -> Header {
        Header::request(request, u32::try_from(payload.len()).unwrap())
    }

    pub fn send(&self, request: Request, payload: &[u8], fds: &[BorrowedFd<'_>]) {
        let header = Self::header(request, payload);
        self.channel.send(header, payload, fds).unwrap();
    }

    fn reply(&mut self, request: u32) -> Message {
        let message = self.channel.receive().expect("an answer");
        assert_eq!(message.header.request, request);
        assert!(message.header.is_reply() && !message.header.needs_reply());
        assert!(message.fds.is_empty());
        message
    }

    /// Sends a request that has an answer of its own.
    pub fn ask(&mut self, request: Request, payload: &[u8]) -> Vec<u8> {
        self.send(request, payload, &[]);
        self.reply(request as u32).payload
    }

    pub fn ask_number(&mut self, request: Request) -> u64 {
        u64_from_bytes(&self.ask(request, &[])).expect("a number")
    }

    /// Sends a request and asks whether it was right: 0 if so.
    pub fn ack(&mut self, request: Request, payload: &[u8], fds: &[BorrowedFd<'_>]) -> u64 {
        let header = Self::header(request, payload);
        self.ack_raw(header, payload, fds)
    }

    pub fn ack_raw(&mut self, header: Header, payload: &[u8], fds: &[BorrowedFd<'_>]) -> u64 {
        let flags = header.flags | FLAG_NEED_REPLY;
        let header = Header { flags, ..header };
        self.channel.send(header, payload, fds).unwrap();
        u64_from_bytes(&self.reply(header.request).payload).expect("a number")
    }

    /// A request that must be right.
    pub fn done(&mut self, request: Request, payload: &[u8], fds: &[BorrowedFd<'_>]) {
        assert_eq!(self.ack(request, payload, fds), 0, "{request:?}");
    }

    /// A request that must be refused.
    pub fn refused(&mut self, request: Request, payload: &[u8], fds: &[BorrowedFd<'_>]) {
        assert_eq!(self.ack(request, payload, fds), 1, "{request:?}");
    }

    /// Waits until what was sent before has been handled.
    pub fn sync(&mut self) -> u64 {
        self.ask_number(Request::GetFeatures)
    }

    pub fn is_alive(&mut self) -> bool {
        self.sync() & feature::VHOST_USER_PROTOCOL_FEATURES != 0
    }

    /// Waits until the back end has closed the connection.
    pub fn expect_close(mut self) {
        match self.channel.receive() {
            Err(ChannelError::Closed | ChannelError::Io(Errno::ECONNRESET)) => {}
            other => panic!("not closed: {other:?}"),
        }
    }

    /// Negotiates all protocol features.
    pub fn hello(&mut self) {
        let offered = self.ask_number(Request::GetProtocolFeatures);
        assert_eq!(offered, PROTOCOL_FEATURES);
        self.done(
            Request::SetProtocolFeatures,
            &PROTOCOL_FEATURES.to_ne_bytes(),
            &[],
        );
        self.done(Request::SetOwner, &[], &[]);
    }

    /// Accepts these virtio features, and that of protocol features.
    pub fn accept(&mut self, features: u64) {
        let features = features | feature::VHOST_USER_PROTOCOL_FEATURES;
        self.done(Request::SetFeatures, &features.to_ne_bytes(), &[]);
    }

    pub fn share(&mut self, memory: &Memory) {
        self.done(
            Request::SetMemTable,
            &memory.table(),
            &[memory.file.as_fd()],
        );
    }

    pub fn state(index: u32, num: u32) -> [u8; VringState::LEN] {
        VringState { index, num }.to_bytes()
    }

    /// Everything about a ring but its kick.
    pub fn prepare(&mut self, ring: u32, memory: &Memory, call: Option<BorrowedFd<'_>>) {
        let size = Self::state(ring, u32::from(RING));
        self.done(Request::SetVringNum, &size, &[]);
        self.done(Request::SetVringBase, &Self::state(ring, 0), &[]);
        let addresses = memory.addresses(ring).to_bytes();
        self.done(Request::SetVringAddr, &addresses, &[]);
        self.signal(Request::SetVringCall, ring, call);
    }

    /// Sets a kick, call or error descriptor, or none.
    pub fn signal(&mut self, request: Request, ring: u32, fd: Option<BorrowedFd<'_>>) {
        let payload = VringFd {
            index: u8::try_from(ring).unwrap(),
            no_fd: fd.is_none(),
        };
        self.done(request, &payload.to_bytes(), fd.as_slice());
    }

    /// Prepares a ring and starts it.
    pub fn start(&mut self, ring: u32, memory: &Memory) -> Notifiers {
        let notifiers = Notifiers::new();
        self.prepare(ring, memory, Some(notifiers.call.as_fd()));
        self.signal(Request::SetVringKick, ring, Some(notifiers.kick.as_fd()));
        notifiers
    }

    pub fn enable(&mut self, ring: u32, enable: bool) {
        let state = Self::state(ring, u32::from(enable));
        self.done(Request::SetVringEnable, &state, &[]);
    }

    /// Stops a ring; its next available index.
    pub fn stop(&mut self, ring: u32) -> u32 {
        let reply = self.ask(Request::GetVringBase, &Self::state(ring, 0));
        let state = VringState::from_bytes(&reply).unwrap();
        assert_eq!(state.index, ring);
        state.num
    }
}

/// One descriptor of each kind that is good for no ring.
pub fn wrong_notifiers() -> Vec<OwnedFd> {
    let memory = Memory::new().file;
    let null = File::open("/dev/null").unwrap();
    let directory = File::open("/").unwrap();
    vec![memory.into(), null.into(), directory.into()]
}
