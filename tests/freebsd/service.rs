//! rc.d/vtnetd, run by the system's own rc.subr(8).

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bed::{Error, Result, Scratch, Test};

const SCRIPT: &str = include_str!("../../rc.d/vtnetd");

pub fn tests() -> Vec<Test> {
    let needs = || -> Result<()> {
        for path in ["/etc/rc.subr", "/usr/sbin/daemon"] {
            if !Path::new(path).exists() {
                return Err(Error::missing(format!("there is no {path} here")));
            }
        }
        Ok(())
    };
    vec![
        Test::new("service::serves_its_devices_and_ends", serves).needing(needs()),
        Test::new("service::serves_other_programs_alone", alone).needing(needs()),
        Test::new("service::says_why_it_does_not_start", refuses).needing(needs()),
    ]
}

/// The script as it is installed, for the program that is tested, and a
/// directory for what it makes.
struct Service {
    scratch: Scratch,
    script: PathBuf,
}

impl Service {
    fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        let program = bed::program(env!("CARGO_BIN_EXE_vtnetd"));
        let text = SCRIPT.replace("%%PREFIX%%/sbin/vtnetd", &program.display().to_string());
        let script = scratch.path("vtnetd");
        fs::write(&script, text)?;
        Ok(Self { scratch, script })
    }

    fn run(&self, what: &str, variables: &[(&str, &str)]) -> Result<Output> {
        let mut command = Command::new("/bin/sh");
        command
            .arg(&self.script)
            .arg(what)
            .env("vtnetd_sockets", self.scratch.path("sockets"))
            .env("vtnetd_pidfile", self.scratch.path("pid"))
            .envs(variables.iter().copied());
        Ok(command.output()?)
    }

    fn done(&self, what: &str, variables: &[(&str, &str)]) -> Result<String> {
        let output = self.run(what, variables)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        let why = String::from_utf8_lossy(&output.stderr);
        Err(Error::new(format!(
            "{what}: {}: {said}{why}",
            output.status
        )))
    }
}

fn serves() -> Result<()> {
    let service = Service::new()?;
    let variables = [
        ("vtnetd_devices", "vm1 vm2"),
        ("vtnetd_device_vm2", "vale1:other,mtu=9000"),
    ];
    let listed = service.done("onelist", &variables)?;
    if !listed.contains("vm1: virtio-net,vale0:vm1,socket=") {
        return Err(Error::new(format!("listed: {listed}")));
    }
    service.done("onestart", &variables)?;
    // Whatever fails below, it is not left running.
    let checked = service.done("onestatus", &variables).and_then(|status| {
        for name in ["vm1.sock", "vm2.sock"] {
            UnixStream::connect(service.scratch.path("sockets").join(name))?;
        }
        let wrong = [("vtnetd_devices", "vm-1")];
        if service.run("onerestart", &wrong)?.status.success()
            || service.done("onestatus", &variables)? != status
        {
            return Err(Error::new("what cannot start again was stopped"));
        }
        service.done("onerestart", &variables)?;
        service.done("onereport", &variables)
    });
    let stopped = service.done("onestop", &variables);
    checked?;
    stopped?;
    if service.scratch.path("pid").exists()
        || service.run("onestatus", &variables)?.status.success()
    {
        return Err(Error::new("it is still there after its end"));
    }
    Ok(())
}

/// No device, but a netmap service.
fn alone() -> Result<()> {
    let service = Service::new()?;
    let socket = service.scratch.path("netmap");
    let flags = format!("-N {}", socket.display());
    let variables = [("vtnetd_flags", flags.as_str())];
    service.done("onestart", &variables)?;
    let there = socket.exists();
    service.done("onestop", &variables)?;
    if there {
        return Ok(());
    }
    Err(Error::new("it does not listen"))
}

fn refuses() -> Result<()> {
    let service = Service::new()?;
    for (variables, why) in [
        (vec![("vtnetd_devices", "")], "vtnetd_devices is empty"),
        (
            vec![("vtnetd_devices", "vm-1")],
            "only letters, digits and _",
        ),
        (
            vec![
                ("vtnetd_devices", "a"),
                ("vtnetd_device_a", "vale0:a,bad='"),
            ],
            "has a single quote",
        ),
    ] {
        let output = service.run("onestart", &variables)?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() || !said.contains(why) {
            return Err(Error::new(format!(
                "{variables:?}: {}: {said}",
                output.status
            )));
        }
    }
    Ok(())
}
