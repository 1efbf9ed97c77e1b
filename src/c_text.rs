//! Text in fields of C structures, such as the name in an `ifreq`
//! (netintro(4), netdevice(7)): bytes, and a NUL behind them.

use std::ffi::c_char;

use nix::errno::Errno;

/// Writes `text` into `field`, and zeros behind it. Nothing is cut off.
///
/// # Errors
/// `ENAMETOOLONG` when there is no room for it and a NUL; `EINVAL` when a NUL
/// is in it.
pub(crate) fn put(field: &mut [c_char], text: &str) -> Result<(), Errno> {
    if text.len() >= field.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    if text.contains('\0') {
        return Err(Errno::EINVAL);
    }
    let bytes = text.bytes().chain(std::iter::repeat(0));
    for (to, from) in field.iter_mut().zip(bytes) {
        *to = c_char::from_ne_bytes([from]);
    }
    Ok(())
}

/// The text in `field`, up to the first NUL; none without one.
#[cfg(any(target_os = "freebsd", test))]
pub(crate) fn get(field: &[c_char]) -> String {
    let bytes: Vec<u8> = field.iter().map(|c| c.to_ne_bytes()[0]).collect();
    let text = std::ffi::CStr::from_bytes_until_nul(&bytes).unwrap_or_default();
    text.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_cut_off() {
        let mut field = [120; 4];
        for (text, result) in [
            ("abc", Ok(())),
            ("", Ok(())),
            ("abcd", Err(Errno::ENAMETOOLONG)),
            ("a\0", Err(Errno::EINVAL)),
        ] {
            assert_eq!(put(&mut field, text), result, "{text}");
            if result.is_ok() {
                assert_eq!(get(&field), text);
            }
        }
    }

    #[test]
    fn nothing_stays_behind_a_shorter_text() {
        let mut field = [120; 4];
        put(&mut field, "a").unwrap();
        assert_eq!(field, [97, 0, 0, 0]);
    }

    #[test]
    fn what_has_no_end_is_nothing() {
        assert_eq!(get(&[97; 4]), "");
        assert_eq!(get(&[]), "");
    }
}
