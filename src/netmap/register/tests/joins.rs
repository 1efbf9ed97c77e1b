//! Persistent ports on two switches.

use nix::errno::Errno;

use super::kinds::{receive, send};
use super::*;
use crate::netmap::authority::{Account, Authority, Grant, Limits, Resource, Rights};
use crate::netmap::register::joins::MOST;

fn errno<T>(result: Result<T, RegisterError>) -> Option<Errno> {
    result.err().map(|error| error.errno())
}

fn attach(core: &Netmap, name: &str) -> Result<u8, RegisterError> {
    core.attach_interface(&Request::new(name))
}

/// A core with persistent ports.
fn with(names: &[&str]) -> Arc<Netmap> {
    let core = core();
    for name in names {
        core.new_interface(&Request::new(name)).unwrap();
    }
    core
}

#[test]
fn a_port_on_two_switches_is_nobodys() {
    let core = with(&["per0"]);
    attach(&core, "valeA:per0").unwrap();
    let other = core.register(&Request::new("valeB:x")).unwrap();
    assert_eq!(attach(&core, "valeB:per0").unwrap(), 1);
    let busy = Some(Errno::EBUSY);
    for name in ["per0", "valeA:per0", "valeB:per0"] {
        let bound = core.register(&Request::new(name));
        assert!(matches!(bound, Err(RegisterError::Joins { .. })), "{name}");
        assert_eq!(errno(bound), busy);
        // It can be asked after.
        core.facts(&Request::new(name)).unwrap();
    }
    for name in ["valeA:per0", "valeB:per0", "valeC:per0"] {
        assert_eq!(errno(attach(&core, name)), busy, "{name}");
    }
    assert_eq!(errno(core.delete_interface("per0")), busy);
    assert_eq!(
        errno(core.new_interface(&Request::new("per0"))),
        Some(Errno::EEXIST)
    );
    let first = core.detach_interface("valeA:per0");
    assert!(matches!(&first, Err(RegisterError::Joins { second, .. }) if second == "valeB:per0"));
    assert_eq!(
        errno(core.set_polling("valeB:per0", None)),
        Some(Errno::EOPNOTSUPP)
    );
    assert_eq!(core.detach_interface("valeB:per0").unwrap(), 1);
    assert_eq!(
        errno(core.detach_interface("valeB:per0")),
        Some(Errno::ENXIO)
    );
    // It has its rings again, on its first switch.
    let client = core.register(&Request::new("valeA:per0")).unwrap();
    assert_eq!(errno(attach(&core, "valeB:per0")), busy, "it is bound");
    drop(client);
    assert_eq!(core.detach_interface("valeA:per0").unwrap(), 0);
    core.delete_interface("per0").unwrap();
    drop(other);
    assert!(is_empty(&core));
    assert_eq!(core.switches.all().len(), 0);
}

#[test]
fn a_port_is_attached_whole_or_not_at_all() {
    let core = with(&["per0"]);
    attach(&core, "valeA:per0").unwrap();
    let taken = core.switches.get("valeB");
    let id = taken.attach("per0", None, Arc::new(Elsewhere)).unwrap();
    for (mode, ring, want) in [
        (RingMode::Host, 0, Errno::EINVAL),
        (RingMode::One(0), 0, Errno::EINVAL),
        (RingMode::All, 1, Errno::EINVAL),
        // A guest has the name.
        (RingMode::All, 0, Errno::EBUSY),
    ] {
        let request = request("valeB:per0", |r| (r.mode, r.ring) = (mode, ring));
        assert_eq!(
            errno(core.attach_interface(&request)),
            Some(want),
            "{mode:?}"
        );
        drop(core.register(&Request::new("per0")).unwrap());
    }
    taken.detach(id);
    core.switches.release(taken);
    assert_eq!(core.switches.all().len(), 1);
    let both = request("valeB:per0", |r| r.mode = RingMode::AllAndHost);
    assert_eq!(core.attach_interface(&both).unwrap(), 0);
}

#[test]
fn switches_are_joined_once_and_not_too_many() {
    let names: Vec<String> = (0..MOST).map(|nth| format!("per{nth}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let core = with(&names);
    let join = |name: &str, first: usize, second: usize| {
        attach(&core, &format!("vale{first}:{name}")).unwrap();
        attach(&core, &format!("vale{second}:{name}"))
    };
    let (last, chain) = names.split_last().unwrap();
    for (nth, name) in chain.iter().enumerate() {
        join(name, nth, nth + 1).unwrap();
    }
    // All of them, from one end to the other, and back.
    for (first, second) in [(0, 1), (1, 0), (0, MOST - 1), (MOST - 1, 3)] {
        let round = join(last, first, second);
        assert!(matches!(round, Err(RegisterError::Loop { .. })));
        assert_eq!(errno(round), Some(Errno::ELOOP));
        core.detach_interface(&format!("vale{first}:{last}"))
            .unwrap();
    }
    for (first, second) in [(MOST, 0), (7, MOST)] {
        assert_eq!(errno(join(last, first, second)), Some(Errno::EMLINK));
        core.detach_interface(&format!("vale{first}:{last}"))
            .unwrap();
    }
    // Whoever parts with one has room for another.
    core.detach_interface("vale1:per0").unwrap();
    join(last, 7, MOST).unwrap();
}

#[test]
fn monitors_see_what_passes() {
    let core = with(&["per0"]);
    attach(&core, "valeA:per0").unwrap();
    attach(&core, "valeB:per0").unwrap();
    let a = core.register(&Request::new("valeA:a")).unwrap();
    let b = core.register(&Request::new("valeB:b")).unwrap();
    let monitor = |name: &str, flags| core.register(&request(name, |r| r.flags = flags));
    let zero_copy = monitor("valeA:per0", nmreq::NR_ZCOPY_MON);
    assert_eq!(errno(zero_copy), Some(Errno::EOPNOTSUPP));
    let into = monitor("valeA:per0", nmreq::NR_MONITOR_RX).unwrap();
    let out = monitor("valeB:per0", nmreq::NR_MONITOR_TX).unwrap();
    let wrong = monitor("valeB:per0", nmreq::NR_MONITOR_RX).unwrap();
    send(&a, 60);
    assert_eq!(receive(&b), [(60, 1 << 8)]);
    for (one, want) in [(&into, 1), (&out, 1), (&wrong, 0)] {
        assert_eq!(receive(one).len(), want);
    }
    // A monitor that is left has nothing to see.
    core.detach_interface("valeB:per0").unwrap();
    assert!(out.rxsync().is_err());
    assert!(into.rxsync().is_ok());
}

#[test]
fn who_joins_switches_may_create_on_both_and_pays_for_both() {
    let core = core();
    let limits = Limits {
        ports: 2,
        ..Limits::default()
    };
    let account = Arc::new(Account::new(7, limits));
    let client = |switches: &[&str]| {
        let grant = |switch: &&str| Grant {
            rights: Rights::CREATE,
            switch: Some((*switch).to_owned()),
        };
        let grants = switches.iter().map(grant).collect();
        Authority::client(Arc::clone(&account), false, grants)
    };
    let attach = |name: &str, authority: Authority| {
        core.attach_interface(&request(name, |r| r.authority = authority))
    };
    let both = client(&["valeA", "valeB"]);
    for name in ["per0", "per1"] {
        let made = core.new_interface(&request(name, |r| r.authority = both.clone()));
        made.unwrap();
    }
    attach("valeA:per0", both.clone()).unwrap();
    let second = attach("valeB:per0", client(&["valeB"]));
    assert!(matches!(second, Err(RegisterError::Forbidden { name, .. }) if name == "valeA:per0"));
    let second = attach("valeB:per0", both.clone());
    assert_eq!(errno(second), Some(Errno::ENOMEM), "two ports are two");
    core.delete_interface("per1").unwrap();
    attach("valeB:per0", both).unwrap();
    assert_eq!(account.has(Resource::Ports), 2);
    core.detach_interface("valeB:per0").unwrap();
    assert_eq!(account.has(Resource::Ports), 1);
}
