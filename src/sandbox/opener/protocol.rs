//! What the sandboxed process can ask for, and what it is answered.
//!
//! A request is sixteen bytes: what to do, for which device, and a small
//! number. No name, path or descriptor is in it, so there is none to check. Both
//! ends are the same program on the same machine: numbers are in its byte order.

use crate::backend::host::{MAX_NUMBERS, MAX_TEXT, Opened, Operation};

/// A device's place in the configuration.
pub(super) type Index = u32;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Write the pid file beside its place.
    ClaimPidFile,
    /// Give it its name.
    PublishPidFile,
    /// A socket that listens where the device's front end is to connect.
    Listen(Index),
    /// A connection with the device's front end.
    Connect(Index),
    /// The device's back end, open.
    Open(Index),
    /// Something about its open back end.
    Operate(Index, Operation),
    /// A socket that listens where clients of the netmap service connect.
    ListenService,
    /// Whether an interface is there that clients of the service may have.
    LookAtInterface(Index),
    /// Such an interface, open; for a switch it receives what is for others,
    /// too.
    OpenInterface(Index, bool),
}

impl Request {
    /// Bytes of a request.
    pub(super) const LEN: usize = 16;

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let (kind, device, number): (u32, Index, u64) = match self {
            Self::ClaimPidFile => (1, 0, 0),
            Self::PublishPidFile => (2, 0, 0),
            Self::Listen(device) => (3, device, 0),
            Self::Connect(device) => (4, device, 0),
            Self::Open(device) => (5, device, 0),
            Self::Operate(device, Operation::SetFeatures(features)) => (6, device, features),
            Self::Operate(device, Operation::SetHeaderLen(len)) => (7, device, u64::from(len)),
            Self::ListenService => (8, 0, 0),
            Self::LookAtInterface(interface) => (9, interface, 0),
            Self::OpenInterface(interface, switch) => (10, interface, switch.into()),
        };
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&kind.to_ne_bytes());
        bytes[4..8].copy_from_slice(&device.to_ne_bytes());
        bytes[8..].copy_from_slice(&number.to_ne_bytes());
        bytes
    }

    /// `None`: nothing that can be asked for. What a request does not use is 0.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let (kind, rest) = split_u32(bytes)?;
        let (device, number) = split_u32(rest)?;
        let number = u64::from_ne_bytes(number.try_into().ok()?);
        Some(match (kind, device, number) {
            (1, 0, 0) => Self::ClaimPidFile,
            (2, 0, 0) => Self::PublishPidFile,
            (3, _, 0) => Self::Listen(device),
            (4, _, 0) => Self::Connect(device),
            (5, _, 0) => Self::Open(device),
            (6, _, features) => Self::Operate(device, Operation::SetFeatures(features)),
            (7, _, len) => {
                let len = u16::try_from(len).ok()?;
                Self::Operate(device, Operation::SetHeaderLen(len))
            }
            (8, 0, 0) => Self::ListenService,
            (9, _, 0) => Self::LookAtInterface(device),
            (10, _, 0 | 1) => Self::OpenInterface(device, number == 1),
            _ => return None,
        })
    }
}

fn split_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (first, rest) = bytes.split_first_chunk()?;
    Some((u32::from_ne_bytes(*first), rest))
}

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The status of sysexits(3) that a process ends with for it.
    pub exit: u8,
    /// The system's error, where that is all there is to say; or 0.
    pub errno: i32,
    /// What to tell the user.
    pub message: String,
}

/// The error of a back end that is not there, and may be again.
pub(super) const ABSENT: i32 = libc::ENXIO;

/// What a request is answered.
pub(super) type Answer = Result<Opened, Refusal>;

/// Most bytes of an answer.
pub(super) const ANSWER: usize = HEAD + 8 * MAX_NUMBERS + MAX_MESSAGE;
/// Six words: whether it was done, the exit status, the error, and how many
/// descriptors, numbers and bytes of text there are.
const HEAD: usize = 6 * 4;
/// Longer messages are cut; a path has up to 4096 bytes.
const MAX_MESSAGE: usize = 8192;

/// Encodes `answer`, whose descriptors go beside it.
pub(super) fn encode(answer: &Answer) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (head, numbers, text) = match answer {
        Ok(opened) => {
            let fds = u32::try_from(opened.fds.len()).unwrap_or(u32::MAX);
            (
                [0, 0, 0, fds],
                opened.numbers.as_slice(),
                cut(&opened.text, MAX_TEXT),
            )
        }
        Err(refusal) => {
            let errno = u32::try_from(refusal.errno).unwrap_or(0);
            let head = [1, u32::from(refusal.exit), errno, 0];
            (head, &[][..], cut(&refusal.message, MAX_MESSAGE))
        }
    };
    let counts = [numbers.len(), text.len()].map(|len| u32::try_from(len).unwrap_or(u32::MAX));
    for word in head.into_iter().chain(counts) {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    for number in numbers {
        bytes.extend_from_slice(&number.to_ne_bytes());
    }
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// Decodes an answer but for its descriptors: also says how many there are.
/// `None`: it is not one.
pub(super) fn decode(bytes: &[u8]) -> Option<(Answer, usize)> {
    let mut head = [0; 6];
    let mut rest = bytes;
    for word in &mut head {
        (*word, rest) = split_u32(rest)?;
    }
    let [refused, exit, errno, fds, numbers, text] = head;
    let (raw, said) = rest.split_at_checked(usize::try_from(numbers).ok()?.checked_mul(8)?)?;
    if said.len() != usize::try_from(text).ok()? {
        return None;
    }
    let said = String::from_utf8(said.to_vec()).ok()?;
    let answer = match refused {
        0 => Ok(Opened {
            fds: Vec::new(),
            numbers: raw
                .chunks_exact(8)
                .filter_map(|number| Some(u64::from_ne_bytes(number.try_into().ok()?)))
                .collect(),
            text: said,
        }),
        1 => Err(Refusal {
            exit: u8::try_from(exit).ok()?,
            errno: i32::try_from(errno).ok()?,
            message: said,
        }),
        _ => return None,
    };
    Some((answer, usize::try_from(fds).ok()?))
}

/// The beginning of `text` that has at most `len` bytes.
fn cut(text: &str, len: usize) -> &str {
    let mut end = text.len().min(len);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn requests() -> impl Strategy<Value = Request> {
        prop_oneof![
            Just(Request::ClaimPidFile),
            Just(Request::PublishPidFile),
            Just(Request::ListenService),
            any::<u32>().prop_map(Request::LookAtInterface),
            any::<(u32, bool)>()
                .prop_map(|(interface, switch)| Request::OpenInterface(interface, switch)),
            any::<u32>().prop_map(Request::Listen),
            any::<u32>().prop_map(Request::Connect),
            any::<u32>().prop_map(Request::Open),
            any::<(u32, u64)>().prop_map(|(device, features)| {
                Request::Operate(device, Operation::SetFeatures(features))
            }),
            any::<(u32, u16)>()
                .prop_map(|(device, len)| Request::Operate(device, Operation::SetHeaderLen(len))),
        ]
    }

    proptest! {
        #[test]
        fn requests_survive_the_way(request in requests()) {
            prop_assert_eq!(Request::from_bytes(&request.to_bytes()), Some(request));
        }

        /// Whatever is understood has one form, so nothing can hide in one.
        #[test]
        fn other_bytes_are_no_request(
            mut bytes in prop::collection::vec(any::<u8>(), 0..40),
            kind in 0u32..10,
            plain in any::<bool>(),
        ) {
            if plain && bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&kind.to_ne_bytes());
            }
            if let Some(request) = Request::from_bytes(&bytes) {
                prop_assert_eq!(&request.to_bytes()[..], &bytes[..]);
            }
        }

        #[test]
        fn answers_survive_the_way(
            numbers in prop::collection::vec(any::<u64>(), 0..=MAX_NUMBERS),
            text in ".{0,100}",
            exit in any::<u8>(),
            errno in 0..i32::MAX,
        ) {
            let opened = Opened { fds: Vec::new(), numbers: numbers.clone(), text: text.clone() };
            let bytes = encode(&Ok(opened));
            prop_assert!(bytes.len() <= ANSWER);
            let Some((Ok(opened), 0)) = decode(&bytes) else {
                return Err(TestCaseError::fail("not what was sent"));
            };
            prop_assert_eq!((opened.numbers, &opened.text), (numbers, &text));

            let refusal = Refusal { exit, errno, message: text };
            let bytes = encode(&Err(refusal.clone()));
            let Some((Err(received), 0)) = decode(&bytes) else {
                return Err(TestCaseError::fail("not what was sent"));
            };
            prop_assert_eq!(received, refusal);
        }

        #[test]
        fn other_bytes_are_no_answer_or_a_whole_one(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Some((answer, _)) = decode(&bytes) {
                let again = encode(&answer);
                // All but the number of descriptors, which are not there.
                prop_assert_eq!(again.len(), bytes.len());
            }
        }
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let message = "ä".repeat(MAX_MESSAGE);
        let refusal = Refusal {
            exit: 1,
            errno: 0,
            message,
        };
        let bytes = encode(&Err(refusal));
        assert!(bytes.len() <= ANSWER);
        let Some((Err(refusal), 0)) = decode(&bytes) else {
            panic!("it has to be an answer");
        };
        assert_eq!(refusal.message.len(), MAX_MESSAGE);
    }
}
