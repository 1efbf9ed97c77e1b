//! A program that uses the service, without the preload object in between.

use std::mem::offset_of;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use vtnetd::netmap::abi::nmreq::*;
use vtnetd::netmap::abi::{Interface, NETMAP_API, Ring, Slot};
use vtnetd::netmap::ctrl::{ClientMemory, Fault};
use vtnetd::netmap::port::Direction;
use vtnetd::netmap::service::gather::gather;
use vtnetd::netmap::service::wire::page::{Client as Page, Operation, Outcome, PAGE};
use vtnetd::netmap::service::wire::socket::{
    bell_pair, channel_pair, quiet, receive_message, ring, send_message,
};
use vtnetd::netmap::service::wire::{Answer, MESSAGE_MAX, Request, VERSION};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Longer than anything takes that is not stuck.
pub const LONG: Duration = Duration::from_secs(20);

/// Connects to the service at `path`.
pub fn dial(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let connection = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    connect(connection.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(connection)
}

/// A channel, as a program has it.
pub struct Channel {
    pub socket: OwnedFd,
    pub bell: OwnedFd,
    pub page: Page,
    /// The page once more, for who does not keep to its rules.
    whole: Mapped,
}

impl Channel {
    pub fn attach(connection: BorrowedFd<'_>) -> Result<Self, Errno> {
        let (socket, service_end) = channel_pair().unwrap();
        let (bell, service_bell) = bell_pair().unwrap();
        let request = Request::Attach { version: VERSION }.encode().unwrap();
        let ends = [service_end.as_fd(), service_bell.as_fd()];
        send_message(connection, &request, &ends)?;
        drop((service_end, service_bell));
        let (answer, fds) = receive(socket.as_fd())?;
        match answer.errno {
            0 => Ok(Self {
                socket,
                bell,
                page: Page::new(fds[0].as_fd()).unwrap(),
                whole: Mapped::new(fds[0].as_fd(), PAGE, 0),
            }),
            errno => Err(Errno::from_raw(i32::try_from(errno).unwrap())),
        }
    }

    /// Asks over the page, and sleeps until there is an answer.
    pub fn ask(&mut self, operation: Operation) -> Outcome {
        if self.page.ask(operation) {
            ring(self.bell.as_fd());
        }
        loop {
            if let Some(outcome) = self.page.answer() {
                return outcome;
            }
            self.wait(|page| page.answer().is_some());
        }
    }

    /// Puts anything where the page's fields are.
    pub fn scribble(&self, value: u64) {
        for at in (0..128).step_by(8) {
            self.whole
                .write(at, value.rotate_left(u32::try_from(at).unwrap()));
        }
    }

    /// Sleeps until something is said, unless `done` already.
    pub fn wait(&self, done: impl Fn(&Page) -> bool) {
        self.page.sleep();
        if !done(&self.page) {
            let mut fds = [PollFd::new(self.bell.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut fds, PollTimeout::try_from(LONG).unwrap());
            assert_eq!(ready, Ok(1), "nobody rings");
            assert!(quiet(self.bell.as_fd()), "nobody is there");
        }
        self.page.wake();
    }

    /// poll(2) as a program calls it, without end.
    pub fn poll(&mut self, events: PollFlags) -> PollFlags {
        let events = u16::try_from(events.bits()).unwrap();
        loop {
            let ready = self.page.ready();
            let found = self.ask(Operation::Poll { events, arm: true });
            if found.result != 0 {
                return PollFlags::from_bits_retain(i16::try_from(found.result).unwrap());
            }
            while self.page.ready() == ready {
                self.wait(|page| page.ready() != ready);
            }
        }
    }
}

/// Waits for an answer.
pub fn receive(socket: BorrowedFd<'_>) -> Result<(Answer, Vec<OwnedFd>), Errno> {
    let mut fds = [PollFd::new(socket, PollFlags::POLLIN)];
    let ready = poll(&mut fds, PollTimeout::try_from(LONG).unwrap());
    assert_eq!(ready, Ok(1), "no answer");
    let mut room = vec![0; MESSAGE_MAX];
    let (len, fds) = receive_message(socket, &mut room)?;
    if len == 0 {
        return Err(Errno::EPIPE);
    }
    let answer = Answer::decode(&room[..len]).unwrap();
    Ok((answer, fds.into_iter().collect()))
}

/// A program's memory: addresses from [`BASE`] on.
pub struct Memory(Vec<u8>);

const BASE: u64 = 0x7000_0000_0000;

impl Memory {
    fn new() -> Self {
        Self(Vec::new())
    }

    pub fn put<T: IntoBytes + Immutable + ?Sized>(&mut self, value: &T) -> u64 {
        let at = BASE + self.0.len() as u64;
        self.0.extend_from_slice(value.as_bytes());
        self.0.resize(self.0.len().next_multiple_of(64), 0);
        at
    }

    pub fn get<T: FromBytes>(&self, at: u64) -> T {
        let at = usize::try_from(at - BASE).unwrap();
        T::read_from_prefix(&self.0[at..]).unwrap().0
    }

    fn slice(&mut self, at: u64, len: usize) -> Result<&mut [u8], Fault> {
        let at = at.checked_sub(BASE).ok_or(Fault)?;
        let at = usize::try_from(at).map_err(|_| Fault)?;
        let end = at.checked_add(len).ok_or(Fault)?;
        self.0.get_mut(at..end).ok_or(Fault)
    }
}

impl ClientMemory for Memory {
    fn copy_in(&mut self, at: u64, into: &mut [u8]) -> Result<(), Fault> {
        into.copy_from_slice(self.slice(at, into.len())?);
        Ok(())
    }

    fn copy_out(&mut self, at: u64, from: &[u8]) -> Result<(), Fault> {
        self.slice(at, from.len())?.copy_from_slice(from);
        Ok(())
    }
}

/// A program with one descriptor and one channel.
pub struct Program {
    pub connection: OwnedFd,
    pub channel: Channel,
    pub memory: Memory,
    pub region: Option<Mapped>,
}

impl Program {
    /// A program that has opened a descriptor.
    pub fn open(path: &Path) -> Result<Self, Errno> {
        let connection = dial(path)?;
        let channel = Channel::attach(connection.as_fd())?;
        Ok(Self {
            connection,
            channel,
            memory: Memory::new(),
            region: None,
        })
    }

    /// ioctl(2).
    pub fn ioctl(&mut self, command: u64, argument: u64) -> Result<(), Errno> {
        self.ioctl_with(command, argument, None).map(drop)
    }

    /// The same, with a descriptor that goes along, and the one that comes.
    pub fn ioctl_with(
        &mut self,
        command: u64,
        argument: u64,
        object: Option<BorrowedFd<'_>>,
    ) -> Result<Option<OwnedFd>, Errno> {
        let request = Request::Ioctl {
            command,
            argument,
            segments: gather(command, argument, &mut self.memory),
        };
        let (answer, handed) = self.request_with(&request, object)?;
        for write in &answer.writes {
            self.memory.copy_out(write.address, &write.data).unwrap();
        }
        match answer.errno {
            0 => Ok(handed.into_iter().next()),
            errno => Err(Errno::from_raw(i32::try_from(errno).unwrap())),
        }
    }

    pub fn request(&mut self, request: &Request) -> Result<(Answer, Vec<OwnedFd>), Errno> {
        self.request_with(request, None)
    }

    fn request_with(
        &mut self,
        request: &Request,
        object: Option<BorrowedFd<'_>>,
    ) -> Result<(Answer, Vec<OwnedFd>), Errno> {
        let socket = self.channel.socket.as_fd();
        send_message(socket, &request.encode().unwrap(), object.as_slice())?;
        receive(socket)
    }

    /// `NIOCCTRL`; the body as it is afterwards.
    pub fn control<T: IntoBytes + Immutable + FromBytes>(
        &mut self,
        reqtype: u16,
        name: &str,
        body: &T,
    ) -> Result<T, Errno> {
        let body = self.memory.put(body);
        let mut header = RequestHeader {
            nr_version: NETMAP_API,
            nr_reqtype: reqtype,
            nr_reserved: 0,
            nr_name: [0; 64],
            nr_options: 0,
            nr_body: body,
        };
        header.nr_name[..name.len()].copy_from_slice(name.as_bytes());
        let header = self.memory.put(&header);
        self.ioctl(NIOCCTRL, header)?;
        Ok(self.memory.get(body))
    }

    /// Binds a port and maps its memory.
    pub fn bind(&mut self, name: &str) -> Result<RegisterBody, Errno> {
        self.bind_with(
            name,
            &RegisterBody {
                nr_mode: NR_REG_ALL_NIC,
                ..RegisterBody::default()
            },
        )
    }

    pub fn bind_with(&mut self, name: &str, body: &RegisterBody) -> Result<RegisterBody, Errno> {
        let body = self.control(NETMAP_REQ_REGISTER, name, body)?;
        self.map(&body)?;
        Ok(body)
    }

    /// Maps the memory of what is bound; returns its object.
    pub fn map(&mut self, bound: &RegisterBody) -> Result<OwnedFd, Errno> {
        let (answer, fds) = self.request(&Request::Map)?;
        assert_eq!((answer.errno, answer.value), (0, bound.nr_memsize));
        let len = usize::try_from(answer.value).unwrap();
        let interface = usize::try_from(bound.nr_offset).unwrap();
        let object = fds.into_iter().next().unwrap();
        self.region = Some(Mapped::new(object.as_fd(), len, interface));
        Ok(object)
    }

    pub fn sync(&mut self, direction: Direction) {
        let outcome = self.channel.ask(Operation::Sync(direction));
        assert_eq!(outcome.result, 0);
    }

    pub fn ring(&self, direction: Direction) -> MappedRing<'_> {
        self.region.as_ref().unwrap().ring(direction)
    }

    /// Sends frames; returns how many there was room for.
    pub fn send(&mut self, frames: &[Vec<u8>]) -> usize {
        let sent = self.ring(Direction::Tx).fill(frames);
        self.sync(Direction::Tx);
        sent
    }

    /// The frames that have come.
    pub fn receive(&mut self) -> Vec<Vec<u8>> {
        self.sync(Direction::Rx);
        let frames = self.ring(Direction::Rx).take();
        self.sync(Direction::Rx);
        frames
    }
}

/// A region that is mapped as a program does it.
pub struct Mapped {
    base: NonNull<u8>,
    len: NonZeroUsize,
    interface: usize,
}

// SAFETY: it is only memory, as in `SharedObject`.
unsafe impl Send for Mapped {}

impl Mapped {
    fn new(fd: BorrowedFd<'_>, len: usize, interface: usize) -> Self {
        let len = NonZeroUsize::new(len).unwrap();
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping.
        let base = unsafe { mmap(None, len, protection, MapFlags::MAP_SHARED, fd, 0) };
        Self {
            base: base.unwrap().cast(),
            len,
            interface,
        }
    }

    pub fn at<T>(&self, offset: usize) -> *mut T {
        assert!(offset + size_of::<T>() <= self.len.get());
        // SAFETY: inside of the mapping.
        unsafe { self.base.add(offset) }.cast().as_ptr()
    }

    fn read<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: inside of the mapping; any bytes are right for these types.
        unsafe { self.at::<T>(offset).read_volatile() }
    }

    fn write<T>(&self, offset: usize, value: T) {
        // SAFETY: as above.
        unsafe { self.at::<T>(offset).write_volatile(value) }
    }

    /// The first ring.
    pub fn ring(&self, direction: Direction) -> MappedRing<'_> {
        let tx_rings: u32 = self.read(self.interface + offset_of!(Interface, ni_tx_rings));
        let nth = match direction {
            Direction::Tx => 0,
            Direction::Rx => usize::try_from(tx_rings).unwrap() + 1,
        };
        let at = self.interface + size_of::<Interface>() + 8 * nth;
        let offset: i64 = self.read(at);
        MappedRing {
            region: self,
            at: self.interface + usize::try_from(offset).unwrap(),
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: as it was mapped.
        unsafe { munmap(self.base.cast(), self.len.get()) }.unwrap();
    }
}

/// A ring there.
pub struct MappedRing<'m> {
    region: &'m Mapped,
    at: usize,
}

impl MappedRing<'_> {
    pub fn get(&self, field: usize) -> u32 {
        self.region.read(self.at + field)
    }

    pub fn set(&self, field: usize, value: u32) {
        self.region.write(self.at + field, value);
    }

    fn slot_at(&self, index: u32) -> usize {
        self.at + size_of::<Ring>() + size_of::<Slot>() * index as usize
    }

    pub fn set_slot(&self, index: u32, slot: Slot) {
        self.region.write(self.slot_at(index), slot);
    }

    fn buffer(&self, slot: Slot) -> usize {
        let offset: i64 = self.region.read(self.at + offset_of!(Ring, buf_ofs));
        let size = self.get(offset_of!(Ring, nr_buf_size)) as usize;
        self.at + usize::try_from(offset).unwrap() + size * slot.buf_idx as usize
    }

    fn next(&self, index: u32) -> u32 {
        (index + 1) % self.get(offset_of!(Ring, num_slots))
    }

    fn advance(&self, to: u32) {
        self.set(offset_of!(Ring, cur), to);
        self.set(offset_of!(Ring, head), to);
    }

    pub fn fill(&self, frames: &[Vec<u8>]) -> usize {
        let mut at = self.get(offset_of!(Ring, head));
        let mut sent = 0;
        for frame in frames {
            if at == self.get(offset_of!(Ring, tail)) {
                break;
            }
            let mut slot: Slot = self.region.read(self.slot_at(at));
            for (nth, byte) in frame.iter().enumerate() {
                self.region.write(self.buffer(slot) + nth, *byte);
            }
            slot.len = u16::try_from(frame.len()).unwrap();
            slot.flags = 0;
            self.set_slot(at, slot);
            at = self.next(at);
            sent += 1;
        }
        self.advance(at);
        sent
    }

    fn take(&self) -> Vec<Vec<u8>> {
        let mut at = self.get(offset_of!(Ring, head));
        let mut frames = Vec::new();
        while at != self.get(offset_of!(Ring, tail)) {
            let slot: Slot = self.region.read(self.slot_at(at));
            let bytes =
                (0..usize::from(slot.len)).map(|nth| self.region.read(self.buffer(slot) + nth));
            frames.push(bytes.collect());
            at = self.next(at);
        }
        self.advance(at);
        frames
    }
}

/// A broadcast frame with a number in it.
pub fn frame(number: u64) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 8, 0]);
    frame.extend(number.to_be_bytes());
    frame.resize(60, 7);
    frame
}
