//! Guest memory in a file, as VMMs have it in a tmpfs.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use vtnetd::driver::memory::{MemorySource, set_len};
use vtnetd::virtio::memory::RegionSpec;

/// A file for each region, without a name as soon as it is open.
#[derive(Debug)]
pub struct Files(pub PathBuf);

impl MemorySource for Files {
    fn object(&self, region: &mut RegionSpec) -> nix::Result<OwnedFd> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = self.0.join(format!("memory-{number}"));
        let os = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(0));
        let mut options = File::options();
        let options = options.read(true).write(true).create_new(true);
        let file = OwnedFd::from(options.open(&path).map_err(os)?);
        std::fs::remove_file(&path).map_err(os)?;
        set_len(&file, region)?;
        Ok(file)
    }
}
