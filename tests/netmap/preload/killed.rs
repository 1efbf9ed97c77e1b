//! Programs that are killed at any moment, while two guests talk over the same
//! switch: the guests lose nothing, and nothing of the programs stays.
//!
//! `VTNETD_KILL_SECONDS` says how long, in place of a few rounds, and
//! `VTNETD_KILL_SEED` where to begin: what the programs do follows from it, and
//! when they are killed.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bed::{Census, Error, Guest, GuestOptions, Process, Result, Scratch, Test, equipment};
use vtnetd::netmap::abi::nmreq::*;

use crate::drivers;
use crate::port::{Port, ask, open, poll};
use crate::scene::{SOON, Scene};
use crate::{CLIENT, start};

pub fn tests() -> Vec<Test> {
    let guests = equipment::guests().map(drop);
    let guests = guests.map_err(|missing| missing.while_doing("guests"));
    vec![
        Test::new("programs_are_killed_beside_drivers", beside_drivers),
        Test::new("programs_are_killed_beside_guests", beside_guests).needing(guests),
    ]
}

/// Programs at a time.
const PROGRAMS: u64 = 3;
/// How often so many are killed, where no time is said.
const ROUNDS: u64 = 200;
/// Longest life of a program, in microseconds.
const LIFE: u64 = 30_000;
/// How much more memory of its own vtnetd may have in the end.
const GROWN: u64 = 8 << 20;

/// The program that is killed.
const VICTIM: &str = "victim";
/// The program that says who is on the switches.
const LISTER: &str = "lister";
/// What is run by name alone.
pub const NAMED: [(&str, fn()); 2] = [(VICTIM, victim), (LISTER, lister)];

/// What a program of these opens, how, and whether it may fill the rings: what
/// comes to the guests' switch must not keep them from their own.
const PORTS: [(&str, u64, bool); 11] = [
    ("vale0:c0", 0, false),
    ("vale0:c1", NR_EXCLUSIVE, false),
    ("vale0:vm1", NR_MONITOR_TX | NR_MONITOR_RX, false),
    ("vale0:vm2", NR_MONITOR_RX, false),
    ("vale1:c0", 0, true),
    ("vale1:c1", 0, true),
    ("vale1:c0", NR_MONITOR_TX | NR_ZCOPY_MON, false),
    ("vale1:c0{1", 0, true),
    ("vale1:c0}1", 0, true),
    ("loose{x", 0, true),
    ("loose}x", 0, true),
];

/// Numbers that follow from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap())
}

/// Opens ports, uses and closes them, until its time has come.
fn victim() {
    let mut random = Random(number("SEED").unwrap());
    let life = Duration::from_micros(random.below(LIFE));
    thread::spawn(move || {
        // The moment is what is random here; nothing is waited for.
        thread::sleep(life);
        // SAFETY: no pointers.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) }
    });
    let own = u8::try_from(random.below(256)).unwrap();
    let mut kept: Vec<Port> = Vec::new();
    loop {
        let pick = usize::try_from(random.below(PORTS.len() as u64)).unwrap();
        let (name, flags, fill) = PORTS[pick];
        // Others of these have it, or have left too little of something.
        let Ok(port) = Port::with(name, flags) else {
            continue;
        };
        let monitor = flags & (NR_MONITOR_TX | NR_MONITOR_RX) != 0;
        let mut frame = [own; 60];
        frame[..12].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 9, own]);
        for nth in 0..random.below(40) {
            match random.below(4) {
                0 if !monitor => {
                    // Once heard of, it sends to itself where it must be quiet.
                    if nth > 0 && !fill {
                        frame.copy_within(6..12, 0);
                    }
                    while port.put(&frame) && fill {}
                    port.txsync();
                }
                1 => while port.take().is_some() {},
                _ => {
                    let wait = i32::try_from(random.below(2)).unwrap();
                    let _ = poll(port.fd, libc::POLLIN | libc::POLLPRI, wait);
                }
            }
        }
        kept.push(port);
        if kept.len() > 5 {
            let place = usize::try_from(random.below(6)).unwrap();
            kept.swap_remove(place);
        }
    }
}

/// Says who is on the switches.
fn lister() {
    let fd = open().unwrap();
    let mut body = ListBody::default();
    while let Ok(header) = ask(fd, NETMAP_REQ_VALE_LIST, "", &mut body) {
        let name: Vec<u8> = header.nr_name.into_iter().take_while(|b| *b != 0).collect();
        println!("{}", String::from_utf8(name).unwrap());
        body.nr_port_idx += 1;
    }
}

/// A vtnetd with two guests' devices and the service, and where their sockets
/// are.
fn stage() -> Result<(Scratch, Scene, [PathBuf; 2])> {
    let scratch = Scratch::new()?;
    let sockets = ["vm1", "vm2"].map(|name| scratch.path(&format!("{name}.sock")));
    let device = |at: usize| {
        let socket = sockets[at].display();
        format!("virtio-net,vale0:vm{},socket={socket}", at + 1)
    };
    let scene = Scene::with(&["-s", &device(0), "-s", &device(1)])?;
    Ok((scratch, scene, sockets))
}

/// What vtnetd and its opener hold.
fn census(scene: &Scene) -> Result<Vec<Census>> {
    let id = scene.vtnetd.id();
    let mut all = bed::children(id)?;
    all.insert(0, id);
    all.into_iter().map(Census::of).collect()
}

/// Waits until nobody but the guests is on the switches, and vtnetd holds what
/// it held `before`, if that is known; returns what it holds.
fn settled(scene: &Scene, before: Option<&[Census]>) -> Result<Vec<Census>> {
    let until = Instant::now() + SOON;
    loop {
        let mut lister = start(scene, LISTER)?;
        assert!(lister.wait(SOON)?.success());
        let listed = lister.output.since(0);
        let now = census(scene)?;
        let same = before.is_none_or(|before| before == now);
        if listed == ["vale0:vm1", "vale0:vm2"] && same {
            return Ok(now);
        }
        if Instant::now() > until {
            let error = format!("left on the switches: {listed:?}; {before:#?} became {now:#?}");
            return Err(Error::new(error));
        }
    }
}

/// Starts some programs, and waits until all were killed.
fn round(scene: &Scene, random: &mut Random) -> Result<()> {
    let start = |_| {
        let mut command = Command::new(std::env::current_exe()?);
        command.env("SEED", random.next().to_string());
        scene.start_as(VICTIM, command.env(CLIENT, VICTIM))
    };
    let victims: Vec<Process> = (0..PROGRAMS).map(start).collect::<Result<_>>()?;
    for mut victim in victims {
        let status = victim.wait(SOON)?;
        if status.signal() != Some(libc::SIGKILL) {
            victim.errors.wait_for_end(SOON)?;
            return Err(victim.explain(Error::new(status.to_string()), "until it is killed"));
        }
    }
    Ok(())
}

/// Kills programs while `talk` goes on, which says what it has done when it is
/// told to stop.
fn kill_beside(
    scene: Scene,
    talk: impl FnOnce(&AtomicBool) -> Result<String> + Send,
) -> Result<()> {
    let seed = number("VTNETD_KILL_SEED").unwrap_or(1);
    println!("VTNETD_KILL_SEED={seed}");
    let until = number("VTNETD_KILL_SECONDS").map(|s| Instant::now() + Duration::from_secs(s));
    let mut random = Random(seed);
    // What is made once and stays is made now.
    for _ in 0..3 {
        round(&scene, &mut random)?;
    }
    let before = settled(&scene, None)?;
    let resident = bed::private_resident(scene.vtnetd.id())?;
    let stop = AtomicBool::new(false);
    let (rounds, said) = thread::scope(|scope| {
        let talk = scope.spawn(|| talk(&stop));
        let mut rounds = 0;
        let mut done = Ok(());
        while done.is_ok()
            && !talk.is_finished()
            && until.map_or(rounds < ROUNDS, |until| Instant::now() < until)
        {
            rounds += 1;
            done = round(&scene, &mut random);
        }
        stop.store(true, Ordering::Relaxed);
        let said = talk.join().unwrap_or_else(|_| Err(Error::new("panicked")));
        done.and(said).map(|said| (rounds, said))
    })?;
    settled(&scene, Some(&before))?;
    let grown = bed::private_resident(scene.vtnetd.id())?.saturating_sub(resident);
    println!(
        "{} programs killed; {said}; {} KiB more resident",
        rounds * PROGRAMS,
        grown >> 10
    );
    assert!(grown < GROWN, "{grown} bytes more");
    scene.end()
}

fn beside_drivers() -> Result<()> {
    let (_scratch, scene, sockets) = stage()?;
    kill_beside(scene, |stop| drivers(&sockets, stop))
}

fn drivers(sockets: &[PathBuf; 2], stop: &AtomicBool) -> Result<String> {
    let [mut one, mut other] = [drivers::start(&sockets[0])?, drivers::start(&sockets[1])?];
    let count = drivers::talk(&mut one, &mut other, stop)?;
    Ok(format!("{count} frames there and back"))
}

fn beside_guests() -> Result<()> {
    let (scratch, scene, sockets) = stage()?;
    let [first, second] = sockets;
    let options = [
        GuestOptions::numbered(1, first),
        GuestOptions::numbered(2, second),
    ];
    let mut guests = Guest::boot(&equipment::guests()?, options, &scratch)?;
    kill_beside(scene, |stop| pings_and_files(&mut guests, stop))
}

/// Every ping is answered, and every file arrives as it was.
fn pings_and_files([one, other]: &mut [Guest; 2], stop: &AtomicBool) -> Result<String> {
    const PINGS: u64 = 200;
    const MEBIBYTES: u32 = 4;
    let (mut pings, mut files) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let ping = format!("ping -A -q -c {PINGS} -W 5 {}", other.address());
        let said = one.run(&ping)?;
        if !said.contains(" 0% packet loss") {
            return Err(Error::new(said));
        }
        pings += PINGS;
        bed::transfer(one, other, MEBIBYTES)?;
        bed::transfer(other, one, MEBIBYTES)?;
        files += 2;
    }
    Ok(format!(
        "{pings} pings answered, {files} files of {MEBIBYTES} MiB whole"
    ))
}
