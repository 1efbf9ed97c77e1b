//! Interfaces that are made, found, destroyed and made again.

use std::process::Command;

use bed::freebsd::{Bpf, Interface, module, run};
use bed::{Error, Process, Result, Test};
use vtnetd::backend;
use vtnetd::driver::net::{NetDriver, NetOptions};
use vtnetd::netmap::vale::Switches;

use super::carry::received;
use super::{interfaces, served};
use crate::drive::{SOON, Served, frame, rounds};

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for kind in ["tap", "vmnet"] {
        let mut add = |name: &str, body: fn(&str) -> Result<()>| {
            tests.push(Test::new(format!("{kind}::{name}"), move || body(kind)));
        };
        add("a_new_interface_is_made_and_goes_with_us", made);
        add("an_interface_that_is_there_stays_as_it_is", found);
        add("what_we_made_is_made_again", made_again);
        add("anothers_interface_is_waited_for", waited_for);
        add("two_hundred_starts_leave_nothing", starts);
        add("many_devices_leave_nothing", devices);
    }
    tests.push(Test::new("tap::errors_name_the_thing_and_the_cure", errors));
    tests
}

fn is_up(name: &str) -> Result<bool> {
    let shown = run(&format!("ifconfig {name}"))?;
    let flags = shown.split(['<', '>']).nth(1).unwrap_or_default();
    Ok(flags.split(',').any(|flag| flag == "UP"))
}

fn made(kind: &str) -> Result<()> {
    module("if_tuntap")?;
    let before = interfaces()?;
    let served = Served::start(&[kind, kind, &format!("{kind}70")])?;
    let made: Vec<_> = interfaces()?
        .into_iter()
        .filter(|name| !before.contains(name))
        .collect();
    assert_eq!(made.len(), 3, "{made:?}");
    for name in &made {
        assert!(name.starts_with(kind) && is_up(name)?, "{name}");
    }
    served.vtnetd.stop()?;
    assert_eq!(interfaces()?, before);
    Ok(())
}

/// Frames go both ways.
fn carries(guest: &mut NetDriver, name: &str, number: usize) -> Result<()> {
    let mut host = Bpf::new(name)?;
    let there = frame(300, number);
    guest.pair(0).tx.send(&there).unwrap();
    loop {
        let seen = host.recv(SOON)?;
        let seen = seen.ok_or_else(|| Error::new("nothing came to the host"))?;
        if seen == there {
            break;
        }
    }
    let back = frame(400, number);
    host.send(&back)?;
    assert!(received(guest.pair(0), SOON) == Some(back), "to the guest");
    Ok(())
}

fn found(kind: &str) -> Result<()> {
    module("if_tuntap")?;
    let interface = Interface::create(kind)?;
    let name = interface.name();
    interface.set("down")?;
    let served = Served::start(&[name])?;
    assert!(!is_up(name)?);
    let mut guest = served.drive(0, &NetOptions::default())?;
    let lost = frame(100, 0);
    guest.pair(0).tx.send(&lost).unwrap();
    guest.pair(0).tx.drain().unwrap();
    interface.set("up")?;
    carries(&mut guest, name, 1)?;
    drop(guest);
    let mut served = served;
    assert_eq!(
        served
            .vtnetd
            .counters()?
            .sum(&format!("{name} tx"), "dropped"),
        1
    );
    served.vtnetd.stop()?;
    // A vmnet stays up when it is closed.
    assert_eq!(is_up(name)?, kind == "vmnet");
    Ok(())
}

/// Waits for ifconfig to have destroyed `name`, which takes our consent.
fn destroy(name: &str) -> Result<()> {
    let mut command = Command::new("ifconfig");
    let mut ifconfig = Process::start("ifconfig", command.args([name, "destroy"]))?;
    let status = ifconfig.wait(SOON)?;
    if status.success() {
        return Ok(());
    }
    Err(ifconfig.explain(Error::new(status.to_string()), "destroy"))
}

fn made_again(kind: &str) -> Result<()> {
    let name = format!("{kind}70");
    let mut served = served(&[&name], 1500)?;
    let mut guest = served.drive(0, &NetOptions::default())?;
    carries(&mut guest, &name, 0)?;
    for round in 1..4 {
        destroy(&name)?;
        served.vtnetd.wait_for_log("gone from the host")?;
        served.vtnetd.wait_for_log("back on the host")?;
        assert!(is_up(&name)?);
        carries(&mut guest, &name, round)?;
    }
    drop(guest);
    served.vtnetd.stop()?;
    assert!(!interfaces()?.contains(&name));
    Ok(())
}

fn waited_for(kind: &str) -> Result<()> {
    module("if_tuntap")?;
    let name = format!("{kind}72");
    run(&format!("ifconfig {name} create up"))?;
    let mut served = Served::start(&[&name])?;
    let mut guest = served.drive(0, &NetOptions::default())?;
    carries(&mut guest, &name, 0)?;
    for round in 1..4 {
        destroy(&name)?;
        served.vtnetd.wait_for_log("gone from the host")?;
        let cure = format!("make it again: ifconfig {name} create");
        served.vtnetd.wait_for_log(&cure)?;
        assert!(!interfaces()?.contains(&name));
        run(&format!("ifconfig {name} create up"))?;
        served.vtnetd.wait_for_log("back on the host")?;
        carries(&mut guest, &name, round)?;
    }
    drop(guest);
    served.vtnetd.stop()?;
    assert!(interfaces()?.contains(&name));
    run(&format!("ifconfig {name} destroy"))?;
    Ok(())
}

fn starts(kind: &str) -> Result<()> {
    module("if_tuntap")?;
    let before = interfaces()?;
    let named = format!("{kind}70");
    for round in 0..rounds(200) {
        let mut served = Served::start(&[if round % 2 == 0 { kind } else { &named }])?;
        if round % 3 == 0 {
            // Without being asked to end.
            drop(served);
        } else {
            served.vtnetd.counters()?;
            served.vtnetd.stop()?;
        }
    }
    // The opener of a process that was killed ends a moment later.
    let until = std::time::Instant::now() + SOON;
    while interfaces()? != before {
        assert!(std::time::Instant::now() < until, "{:?}", interfaces()?);
    }
    Ok(())
}

/// So many as VTNETD_ROUNDS says: 10 000 take some minutes where the machine is
/// an emulated one.
fn devices(kind: &str) -> Result<()> {
    module("if_tuntap")?;
    let before = interfaces()?;
    let open = bed::Census::of(std::process::id())?.descriptors;
    let switches = Switches::default();
    for round in 0..rounds(300) {
        let spec = backend::Spec::new(kind, 1);
        drop(
            backend::open(&spec, &switches)
                .map_err(|error| Error::new(format!("round {round}: {error}")))?,
        );
    }
    assert_eq!(interfaces()?, before);
    assert_eq!(bed::Census::of(std::process::id())?.descriptors, open);
    Ok(())
}

fn errors() -> Result<()> {
    module("if_tuntap")?;
    let refused = |name: &str| {
        let spec = backend::Spec::new(name, 1);
        match backend::open(&spec, &Switches::default()) {
            Ok(_) => panic!("{name} was opened"),
            Err(error) => error.to_string(),
        }
    };
    let _served = served(&["tap70"], 1500)?;
    let busy = refused("tap70");
    assert!(
        busy.starts_with("tap70: ") && busy.contains("another process has it"),
        "{busy}"
    );
    let before = interfaces()?;
    run("ifconfig tap73 create name tapother")?;
    let renamed = refused("tap73");
    run("ifconfig tapother destroy")?;
    assert!(renamed.contains("it was renamed"), "{renamed}");
    run("ifconfig lo74 create name tap74")?;
    let other = refused("tap74");
    run("ifconfig tap74 destroy")?;
    assert!(other.contains("no tap or vmnet interface"), "{other}");
    // To ask for its very name would make it.
    assert!(!run("ls /dev")?.contains("tap74"));
    for name in ["tapnumber", "tap32768", "vmnetnumber"] {
        let none = refused(name);
        let (said, cure) = none.split_once("make it first: ").unwrap_or((&none, ""));
        assert!(said.starts_with(&format!("{name}: there is no")), "{none}");
        assert_eq!(interfaces()?, before);
        run(cure)?;
        let opened = backend::open(&backend::Spec::new(name, 1), &Switches::default());
        drop(opened.map_err(|error| Error::new(format!("{cure}: {error}")))?);
        run(&format!("ifconfig {name} destroy"))?;
    }
    assert_eq!(interfaces()?, before);
    Ok(())
}
