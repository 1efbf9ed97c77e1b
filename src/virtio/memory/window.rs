//! One region, looked at in a row: most buffers of a batch lie where the last
//! one did.

use std::marker::PhantomData;
use std::ptr::NonNull;

use super::View;

/// A mapped region of guest memory, while `'m` lasts.
pub(crate) struct Window<'m> {
    guest_addr: u64,
    len: u64,
    base: NonNull<u8>,
    memory: PhantomData<&'m ()>,
}

impl<'m> Window<'m> {
    /// # Safety
    /// `len` bytes at `base` must stay mapped for `'m`.
    #[inline]
    pub(super) unsafe fn new(guest_addr: u64, len: u64, base: NonNull<u8>) -> Self {
        Self {
            guest_addr,
            len,
            base,
            memory: PhantomData,
        }
    }

    /// The `len` bytes at a guest address, if there are any and all of them lie
    /// here.
    #[inline]
    pub(crate) fn view<V: View<'m>>(&self, addr: u64, len: u32) -> Option<V> {
        let offset = addr.wrapping_sub(self.guest_addr);
        let end = offset.checked_add(len.into())?;
        if end > self.len || len == 0 {
            return None;
        }
        // A mapping's length fits usize.
        let offset = usize::try_from(offset).ok()?;
        // SAFETY: `len` bytes from `offset` on lie in the region, which is
        // mapped for 'm.
        Some(unsafe { V::new(self.base.add(offset), len) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::memory::{Readable, Writable};

    #[test]
    fn a_view_lies_inside_the_window_and_is_not_empty() {
        let mut bytes = [0u8; 64];
        // SAFETY: the array outlives the window.
        let window = unsafe { Window::new(0x1000, 64, NonNull::from(&mut bytes).cast()) };
        let len = |addr, len| {
            window
                .view::<Readable<'_>>(addr, len)
                .map(|view| view.len())
        };
        assert_eq!(len(0x1000, 64), Some(64));
        assert_eq!(len(0x103f, 1), Some(1));
        for (addr, bytes) in [
            (0x1000, 65),
            (0x1000, 0),
            (0x103f, 2),
            (0x1040, 1),
            (0xfff, 1),
            (0xfff, 8),
            (0, u32::MAX),
            (u64::MAX, 1),
            (u64::MAX - 3, u32::MAX),
        ] {
            assert_eq!(len(addr, bytes), None, "{addr:#x} {bytes}");
        }
        let view: Writable<'_> = window.view(0x1008, 8).unwrap();
        view.write(&[7; 8]);
        assert_eq!((bytes[7], bytes[8], bytes[15], bytes[16]), (0, 7, 7, 0));
    }
}
