//! Guest memory as bhyve(8) has it: system memory of a virtual machine of
//! vmm(4), mapped from /dev/vmm/NAME at the guest-physical address. Structures
//! and numbers are those of FreeBSD 15 (dev/vmm/vmm_dev.h, machine/vmm_dev.h).

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use bed::{Error, Result};
use nix::errno::Errno;
use vtnetd::driver::memory::MemorySource;
use vtnetd::virtio::memory::RegionSpec;

use super::shm::for_mapping_only;

/// `VM_MAX_NAMELEN`, and the byte behind it.
const NAME: usize = 230;
/// Bytes of the machine's memory, from guest-physical address 0: more than a
/// driver's regions reach. None of it is there before it is touched.
const MEMORY: usize = 256 << 20;

/// `struct vmmctl_vm_create` and `struct vmmctl_vm_destroy`.
#[repr(C)]
pub struct Machine {
    name: [u8; NAME],
    reserved: [i32; 16],
}

/// `struct vm_memseg`.
#[repr(C)]
pub struct Segment {
    id: i32,
    len: usize,
    name: [u8; 16],
    domains: *const libc::c_void,
    domains_len: usize,
    policy: i32,
}

/// `struct vm_memmap`.
#[repr(C)]
pub struct Map {
    address: u64,
    segment: i32,
    offset: i64,
    len: usize,
    protection: i32,
    flags: i32,
}

nix::ioctl_readwrite!(create, b'V', 0, Machine);
nix::ioctl_readwrite!(destroy, b'V', 1, Machine);
nix::ioctl_write_ptr!(allocate, b'v', 14, Segment);
nix::ioctl_write_ptr!(map, b'v', 16, Map);

/// A virtual machine that has memory and never runs, destroyed when dropped.
#[derive(Debug)]
pub struct Vm {
    name: String,
    control: File,
    device: OwnedFd,
}

fn machine(name: &str) -> Machine {
    let mut machine = Machine {
        name: [0; NAME],
        reserved: [0; 16],
    };
    machine.name[..name.len()].copy_from_slice(name.as_bytes());
    machine
}

impl Vm {
    /// Makes one.
    ///
    /// # Errors
    /// vmm(4)'s; it is missing where that is not loaded, or the processor has
    /// not what it takes.
    pub fn new(name: &str) -> Result<Self> {
        let control = File::options().read(true).write(true).open("/dev/vmmctl");
        let control = control.map_err(|error| Error::missing(format!("/dev/vmmctl: {error}")))?;
        let said = |what: &str, errno: Errno| Error::new(format!("{name}: {what}: {errno}"));
        let mut made = machine(name);
        // SAFETY: the structure is the kernel's, and there for the call.
        unsafe { create(control.as_raw_fd(), &raw mut made) }
            .map_err(|errno| said("VMMCTL_VM_CREATE", errno))?;
        let path = format!("/dev/vmm/{name}");
        let device = File::options().read(true).write(true).open(path)?;
        let vm = Self {
            name: name.to_owned(),
            control,
            device: device.into(),
        };
        let segment = Segment {
            id: 0,
            len: MEMORY,
            name: [0; 16],
            domains: std::ptr::null(),
            domains_len: 0,
            policy: 0,
        };
        let place = Map {
            address: 0,
            segment: 0,
            offset: 0,
            len: MEMORY,
            protection: libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
            flags: 0,
        };
        let fd = vm.device.as_raw_fd();
        // SAFETY: both structures are the kernel's, and there for the calls.
        unsafe {
            allocate(fd, &raw const segment).map_err(|errno| said("VM_ALLOC_MEMSEG", errno))?;
            map(fd, &raw const place).map_err(|errno| said("VM_MMAP_MEMSEG", errno))?;
        }
        Ok(vm)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let mut gone = machine(&self.name);
        // SAFETY: the structure is the kernel's, and there for the call. The
        // machine goes when the last has closed and unmapped it.
        let _ = unsafe { destroy(self.control.as_raw_fd(), &raw mut gone) };
    }
}

impl MemorySource for Vm {
    fn object(&self, region: &mut RegionSpec) -> nix::Result<OwnedFd> {
        region.offset = region.guest_addr;
        let shared = self.device.as_fd().try_clone_to_owned();
        let shared = shared.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
        for_mapping_only(shared.as_fd())?;
        Ok(shared)
    }
}
