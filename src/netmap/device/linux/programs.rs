//! The four small programs that take an interface away from the host's stack
//! and give it back (bpf(2), `Documentation/bpf/standardization`).
//!
//! | where | a frame | does |
//! | --- | --- | --- |
//! | in, on the interface | that we gave to the host | passes |
//! | | other, the NIC's receive ring bound | ends here; the socket has it |
//! | | other | passes |
//! | out, on the interface | that we send | passes |
//! | | of the host, the NIC's transmit ring bound | goes to the tap, or nowhere |
//! | | other | passes |
//! | in, on the tap | that we wrote there | comes in on the interface |
//! | out, on the tap | of the host, sent to the interface | passes, for us to read |
//! | | of the tap's own | ends here |
//!
//! A frame is known by its mark, a number by chance that each opened interface
//! has for itself. It is taken off before anybody else could see it. Which
//! rings are bound says a word in shared memory ([`RX`], [`TX`], [`HOST`]): to
//! bind a ring is a store.

/// The NIC's receive ring is bound.
pub(super) const RX: u32 = 1;
/// The NIC's transmit ring is bound.
pub(super) const TX: u32 = 2;
/// A receive ring from the host is bound, or the host is on a switch.
pub(super) const HOST: u32 = 4;

/// One instruction.
pub(super) type Instruction = [u8; 8];

/// `TCX_NEXT`: whoever comes next decides.
const NEXT: i32 = -1;
/// `TCX_DROP`
const DROP: i32 = 2;
/// Where `mark` is in `struct __sk_buff`.
const MARK: i16 = 8;
/// `bpf_redirect`
const REDIRECT: i32 = 23;
/// `BPF_F_INGRESS`
const INGRESS: i32 = 1;
/// `BPF_PSEUDO_MAP_VALUE`
const MAP_VALUE: u8 = 2;

fn instruction(code: u8, to: u8, from: u8, offset: i16, number: i32) -> Instruction {
    let [o0, o1] = offset.to_ne_bytes();
    let [n0, n1, n2, n3] = number.to_ne_bytes();
    let registers = if cfg!(target_endian = "little") {
        from << 4 | to
    } else {
        to << 4 | from
    };
    [code, registers, o0, o1, n0, n1, n2, n3]
}

fn set(to: u8, number: i32) -> Instruction {
    instruction(0xb7, to, 0, 0, number)
}

fn and(to: u8, number: u32) -> Instruction {
    instruction(0x57, to, 0, 0, i32::from_ne_bytes(number.to_ne_bytes()))
}

fn load(to: u8, from: u8, offset: i16) -> Instruction {
    instruction(0x61, to, from, offset, 0)
}

fn store(to: u8, offset: i16, from: u8) -> Instruction {
    instruction(0x63, to, from, offset, 0)
}

/// Steps over `skip` instructions if the low half of `register` is `number`.
fn if_equal(register: u8, number: i32, skip: i16) -> Instruction {
    instruction(0x16, register, 0, skip, number)
}

fn if_not_equal(register: u8, number: i32, skip: i16) -> Instruction {
    instruction(0x56, register, 0, skip, number)
}

fn call(function: i32) -> Instruction {
    instruction(0x85, 0, 0, 0, function)
}

const EXIT: Instruction = [0x95, 0, 0, 0, 0, 0, 0, 0];

/// The address of the word that says which rings are bound.
fn address(to: u8, map: i32) -> [Instruction; 2] {
    [
        instruction(0x18, to, MAP_VALUE, 0, map),
        instruction(0, 0, 0, 0, 0),
    ]
}

fn leave(verdict: i32) -> [Instruction; 2] {
    [set(0, verdict), EXIT]
}

/// In, on the interface.
pub(super) fn inbound(mark: i32, map: i32) -> Vec<Instruction> {
    let [value, rest] = address(3, map);
    let [pass, exit] = leave(NEXT);
    let [drop, out] = leave(DROP);
    vec![
        load(2, 1, MARK),
        if_not_equal(2, mark, 4),
        // Ours: on its way to the host.
        set(2, 0),
        store(1, MARK, 2),
        pass,
        exit,
        value,
        rest,
        load(3, 3, 0),
        and(3, RX),
        if_equal(3, 0, 2),
        drop,
        out,
        pass,
        exit,
    ]
}

/// Out, on the interface, whose tap is number `tap`.
pub(super) fn outbound(mark: i32, map: i32, tap: i32) -> Vec<Instruction> {
    let [value, rest] = address(3, map);
    let [pass, exit] = leave(NEXT);
    let [drop, out] = leave(DROP);
    vec![
        load(2, 1, MARK),
        if_not_equal(2, mark, 4),
        set(2, 0),
        store(1, MARK, 2),
        pass,
        exit,
        value,
        rest,
        load(3, 3, 0),
        instruction(0xbf, 4, 3, 0, 0),
        and(3, TX),
        if_not_equal(3, 0, 2),
        pass,
        exit,
        and(4, HOST),
        if_not_equal(4, 0, 2),
        drop,
        out,
        set(2, mark),
        store(1, MARK, 2),
        set(1, tap),
        set(2, 0),
        call(REDIRECT),
        EXIT,
    ]
}

/// In, on the tap: the frame comes in on `interface`.
pub(super) fn to_host(mark: i32, interface: i32) -> Vec<Instruction> {
    vec![
        set(2, mark),
        store(1, MARK, 2),
        set(1, interface),
        set(2, INGRESS),
        call(REDIRECT),
        EXIT,
    ]
}

/// Out, on the tap.
pub(super) fn from_host(mark: i32) -> Vec<Instruction> {
    let [pass, exit] = leave(NEXT);
    let [drop, out] = leave(DROP);
    vec![
        load(2, 1, MARK),
        if_equal(2, mark, 2),
        drop,
        out,
        set(2, 0),
        store(1, MARK, 2),
        pass,
        exit,
    ]
}
