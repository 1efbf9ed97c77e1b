//! How large the buffers of a data socket are.

/// Most bytes, as in the reference.
const MOST: u64 = 4 << 20;
/// Bytes of an mbuf(9) and of the cluster in it (sys/param.h): what the kernel
/// counts of a buffer beside the data.
const MSIZE: u64 = 256;
const MCLBYTES: u64 = 2048;

/// Bytes to ask for when the kernel allows `most` (`kern.ipc.maxsockbuf`, which
/// includes what it spends itself).
pub(super) fn size(most: u64) -> usize {
    let data = u128::from(most) * u128::from(MCLBYTES) / u128::from(MSIZE + MCLBYTES);
    usize::try_from(data.min(MOST.into())).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the reference computes, with the kernel's defaults among it.
    #[test]
    fn as_the_reference() {
        for (most, expected) in [
            (0, 0),
            (1, 0),
            (2, 1),
            (9, 8),
            // FreeBSD's default since 8.0.
            (2_097_152, 1_864_135),
            (4_194_304, 3_728_270),
            // The first at which the limit of our own counts.
            (4_718_592, 4_194_304),
            (4_718_591, 4_194_303),
            (16_777_216, 4_194_304),
            (u64::MAX, 4_194_304),
        ] {
            assert_eq!(size(most), expected, "{most}");
        }
    }
}
