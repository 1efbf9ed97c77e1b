//! Options and what is in them afterwards; shared blocks and sync loops.

use super::*;
use crate::netmap::abi::option::*;

const EINVAL: u32 = Errno::EINVAL as u32;
const EOPNOTSUPP: u32 = Errno::EOPNOTSUPP as u32;

fn register(client: &mut Client, body: &RegisterBody, options: u64) -> Result<RegisterBody, Errno> {
    client.ask_with(NETMAP_REQ_REGISTER, "vale0:a", body, options)
}

#[test]
fn unknown_options() {
    let core = core();
    let mut client = Client::new(&core);
    let last = client.memory.option(1234, &(), 0);
    let first = client.memory.option(NETMAP_REQ_OPT_MAX, &(), last);
    assert_eq!(register(&mut client, &all(), first), Err(Errno::EOPNOTSUPP));
    for option in [first, last] {
        assert_eq!(client.memory.status(option), EOPNOTSUPP);
    }
    let header: OptionHeader = client.memory.get(first);
    assert_eq!(
        (header.nro_next, header.nro_reqtype),
        (last, NETMAP_REQ_OPT_MAX)
    );
    // Nothing is bound; and who does not look at options does not mind.
    assert_eq!(core.enumerate(0, 0), None);
    let body = PortInfoBody::default();
    let told = client.ask_with(NETMAP_REQ_PORT_INFO_GET, "vale0:a", &body, last);
    assert!(told.is_ok());
    assert_eq!(client.memory.status(last), EOPNOTSUPP);
}

#[test]
fn endless_lists() {
    let core = core();
    let mut client = Client::new(&core);
    // Unknown ones: the list is too long, and nothing is written to it.
    let ring = client.memory.option(NETMAP_REQ_OPT_MAX + 1, &(), BASE);
    assert_eq!(ring, BASE);
    assert_eq!(register(&mut client, &all(), ring), Err(Errno::EMSGSIZE));
    assert_eq!(client.memory.status(ring), 777);
    // Known ones: the second time it is a duplicate.
    let at = BASE + client.memory.used as u64;
    let ring = client
        .memory
        .option(NETMAP_REQ_OPT_OFFSETS, &Offsets::default(), at);
    assert_eq!(ring, at);
    assert_eq!(register(&mut client, &all(), ring), Err(Errno::EINVAL));
    assert_eq!(client.memory.status(ring), EINVAL);
}

#[test]
fn as_many_options_as_the_kernels_buffer_holds() {
    let core = core();
    let mut client = Client::new(&core);
    let list = |client: &mut Client, count: usize| {
        (0..count).fold(0, |next, _| client.memory.option(99, &(), next))
    };
    let fits = list(&mut client, 127);
    assert_eq!(register(&mut client, &all(), fits), Err(Errno::EOPNOTSUPP));
    // An option of a known kind brings its payload along.
    let sized = |client: &mut Client, size: u64| {
        let next = list(client, 99);
        let last = OptionHeader {
            nro_next: next,
            nro_reqtype: NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS,
            nro_size: size,
            ..OptionHeader::default()
        };
        let last = client.memory.put(&last);
        client.memory.put(&[0_u8; 1000]);
        last
    };
    let fits = sized(&mut client, 904);
    assert_eq!(register(&mut client, &all(), fits), Err(Errno::EOPNOTSUPP));
    let too_long = sized(&mut client, 920);
    assert_eq!(
        register(&mut client, &all(), too_long),
        Err(Errno::EMSGSIZE)
    );
    let one_more = list(&mut client, 128);
    assert_eq!(
        register(&mut client, &all(), one_more),
        Err(Errno::EMSGSIZE)
    );
}

#[test]
fn duplicates_kind_zero_and_sizes() {
    let core = core();
    let mut client = Client::new(&core);
    let second = client
        .memory
        .option(NETMAP_REQ_OPT_CSB, &SharedBlock::default(), 0);
    let between = client.memory.option(50, &(), second);
    let first = client
        .memory
        .option(NETMAP_REQ_OPT_CSB, &SharedBlock::default(), between);
    assert_eq!(register(&mut client, &all(), first), Err(Errno::EINVAL));
    let statuses = [first, between, second].map(|option| client.memory.status(option));
    assert_eq!(statuses, [EINVAL, 0, EINVAL]);

    let behind = client.memory.option(50, &(), 0);
    let zero = client.memory.option(0, &(), behind);
    let before = client.memory.option(50, &(), zero);
    assert_eq!(register(&mut client, &all(), before), Err(Errno::EINVAL));
    let statuses = [before, zero, behind].map(|option| client.memory.status(option));
    assert_eq!(statuses, [0, EINVAL, 777], "what comes after was not read");

    for size in [4097, u64::MAX, 1 << 63] {
        let long = OptionHeader {
            nro_reqtype: NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS,
            nro_status: 777,
            nro_size: size,
            ..OptionHeader::default()
        };
        let long = client.memory.put(&long);
        assert_eq!(register(&mut client, &all(), long), Err(Errno::EMSGSIZE));
        assert_eq!(client.memory.status(long), 0);
    }
    // A list whose end is not there, and an option whose body is not.
    let cut = client.memory.option(50, &(), 16);
    assert_eq!(register(&mut client, &all(), cut), Err(Errno::EFAULT));
    assert_eq!(client.memory.status(cut), 0);
    let end = BASE + (SIZE - size_of::<OptionHeader>()) as u64;
    let header = OptionHeader {
        nro_reqtype: NETMAP_REQ_OPT_OFFSETS,
        ..OptionHeader::default()
    };
    client.memory.copy_out(end, header.as_bytes()).unwrap();
    assert_eq!(register(&mut client, &all(), end), Err(Errno::EFAULT));
    assert_eq!(core.enumerate(0, 0), None);
}

#[test]
fn offsets_tell_what_is_in_use() {
    let core = core();
    let ask = |client: &mut Client, max| {
        let offsets = Offsets {
            nro_max_offset: max,
            nro_offset_bits: 16,
            ..Offsets::default()
        };
        let option = client.memory.option(NETMAP_REQ_OPT_OFFSETS, &offsets, 0);
        let result = register(client, &all(), option).err();
        let behind = option + size_of::<OptionHeader>() as u64;
        let told: Offsets = client.memory.get(behind);
        (result, client.memory.status(option), told.nro_max_offset)
    };
    let mut first = Client::new(&core);
    assert_eq!(ask(&mut first, 4000), (Some(Errno::EINVAL), EINVAL, 4000));
    assert_eq!(ask(&mut first, 128), (None, 0, 128));
    assert_eq!(ask(&mut first, 128), (Some(Errno::EBUSY), EOPNOTSUPP, 128));
    let mut second = Client::new(&core);
    assert_eq!(ask(&mut second, 64), (None, 0, 128));
    let mut third = Client::new(&core);
    assert_eq!(
        ask(&mut third, 129),
        (Some(Errno::EBUSY), Errno::EBUSY as u32, 129)
    );
}

/// A block for `rings` rings, as an option.
pub(super) fn block(client: &mut Client, rings: usize) -> (u64, SharedBlock) {
    let entries = vec![0xffu8; rings * 64];
    let block = SharedBlock {
        csb_atok: client.memory.put(entries.as_slice()),
        csb_ktoa: client.memory.put(entries.as_slice()),
    };
    (client.memory.option(NETMAP_REQ_OPT_CSB, &block, 0), block)
}

pub(super) fn exclusive() -> RegisterBody {
    RegisterBody {
        nr_flags: NR_EXCLUSIVE,
        ..all()
    }
}

#[test]
fn a_shared_block_begins_where_the_rings_are() {
    let core = core();
    let mut client = Client::new(&core);
    let (option, block) = block(&mut client, 2);
    register(&mut client, &exclusive(), option).unwrap();
    assert_eq!(client.memory.status(option), 0);
    for (nth, hwtail) in [(0, 1023), (1, 0)] {
        let atok: AppToKernel = client.memory.get(block.csb_atok + nth * 64);
        let want = AppToKernel {
            appl_need_kick: 1,
            sync_flags: 1,
            ..AppToKernel::default()
        };
        assert_eq!(atok, want);
        let ktoa: KernelToApp = client.memory.get(block.csb_ktoa + nth * 64);
        let want = KernelToApp {
            hwtail,
            kern_need_kick: 1,
            ..KernelToApp::default()
        };
        assert_eq!(ktoa, want);
    }
    // The rings are the loop's now.
    assert_eq!(client.control.sync(Direction::Tx), Err(Errno::EBUSY));
    assert_eq!(
        client.control.poll(PollFlags::POLLOUT, false),
        PollFlags::POLLERR
    );
}

#[test]
fn rings_are_not_lent_while_a_request_is_at_work() {
    let core = core();
    let mut client = Client::new(&core);
    client.register("vale0:a{1").unwrap();
    let holder = NonZeroU32::MIN;
    let binding = client.control.binding();
    assert!(!client.control.lend(holder));
    drop(binding);
    assert!(client.control.lend(holder));
}

#[test]
fn rings_that_get_offsets_are_not_lent_any_more() {
    let core = core();
    let (mut client, mut other) = (Client::new(&core), Client::new(&core));
    client.register("vale0:a{1").unwrap();
    let holder = NonZeroU32::MIN;
    assert!(client.control.lend(holder));
    let offsets = Offsets {
        nro_max_offset: 64,
        ..Offsets::default()
    };
    let option = other.memory.option(NETMAP_REQ_OPT_OFFSETS, &offsets, 0);
    let request = all();
    other
        .ask_with(NETMAP_REQ_REGISTER, "vale0:a}1", &request, option)
        .unwrap();
    let registration = client.control.registration().unwrap();
    assert!(!registration.is_lent_to(holder));
    assert!(!client.control.lend(holder));
}

#[test]
fn shared_blocks_that_cannot_be() {
    let core = core();
    let ask = |body: RegisterBody, change: &dyn Fn(&mut SharedBlock)| {
        let mut client = Client::new(&core);
        let (_, mut block) = block(&mut client, 2);
        change(&mut block);
        let option = client.memory.option(NETMAP_REQ_OPT_CSB, &block, 0);
        let result = register(&mut client, &body, option).err();
        assert_eq!(client.control.registration().is_some(), result.is_none());
        (result, client.memory.status(option))
    };
    assert_eq!(
        ask(all(), &|_| ()),
        (Some(Errno::EINVAL), EINVAL),
        "not exclusive"
    );
    assert_eq!(
        ask(exclusive(), &|b| b.csb_atok += 8),
        (Some(Errno::EINVAL), EINVAL)
    );
    assert_eq!(
        ask(exclusive(), &|b| b.csb_ktoa += 32),
        (Some(Errno::EINVAL), EINVAL)
    );
    let fault = (Some(Errno::EFAULT), Errno::EFAULT as u32);
    assert_eq!(ask(exclusive(), &|b| b.csb_atok = 0), fault);
    assert_eq!(ask(exclusive(), &|b| b.csb_ktoa = u64::MAX - 63), fault);
    let end = BASE + SIZE as u64 - 64;
    assert_eq!(ask(exclusive(), &|b| b.csb_ktoa = end), fault, "half of it");
    assert_eq!(core.enumerate(0, 0), None);
}

#[test]
fn a_block_after_the_registration() {
    let core = core();
    let mut client = Client::new(&core);
    let enable = |client: &mut Client, options| {
        let nothing = [0u8; 0];
        client
            .ask_with(NETMAP_REQ_CSB_ENABLE, "", &nothing, options)
            .map(|_| ())
    };
    assert_eq!(enable(&mut client, 0), Err(Errno::EINVAL));
    let (option, _) = block(&mut client, 2);
    assert_eq!(enable(&mut client, option), Ok(()), "no rings, no block");
    register(&mut client, &exclusive(), 0).unwrap();
    assert_eq!(client.control.sync(Direction::Tx), Ok(()));
    assert_eq!(enable(&mut client, option), Ok(()));
    assert_eq!(client.control.sync(Direction::Tx), Err(Errno::EBUSY));
}
