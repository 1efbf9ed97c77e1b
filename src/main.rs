//! vtnetd(8): reads the command line, opens what it names, and serves until a
//! signal says that it is enough.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use vtnetd::backend;
use vtnetd::cli::{self, Command, Config, DeviceSpec, SocketSpec};
use vtnetd::device::{Device, DeviceOptions, mac};
use vtnetd::frontend::vhost_user::EndpointSpec;
use vtnetd::netmap::vale::Switches;
use vtnetd::process::{Control, Exit, Failure, PidFile, inherited, log};
use vtnetd::worker::Workers;

fn main() -> ExitCode {
    let result = match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(config)) => serve(&config),
        Ok(Command::Help) => print(&cli::usage()),
        Ok(Command::Version) => print(concat!("vtnetd ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Command::PrintCapabilities) => print(cli::CAPABILITIES),
        Err(error) => Err(Failure::new(Exit::Usage, &error)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("vtnetd: {failure}");
            failure.exit.into()
        }
    }
}

fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout();
    let printed = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    printed.map_err(Failure::os("standard output"))
}

fn serve(config: &Config) -> Result<(), Failure> {
    log::start(config.verbose, config.debug);
    // First of all, or something of our own could be taken for inherited.
    let endpoints: Vec<_> = config
        .devices
        .iter()
        .map(endpoint)
        .collect::<Result<_, _>>()?;
    let pid_file = config.pid_file.as_deref().map(PidFile::claim).transpose()?;
    let mut control = Control::new()?;
    let switches = Switches::default();
    let workers = start_workers(&config.devices)?;

    for (spec, endpoint) in config.devices.iter().zip(endpoints) {
        let device = open(spec, &switches, &workers)?;
        control.add(device, endpoint)?;
    }
    if let Some(pid_file) = &pid_file {
        pid_file.publish()?;
    }
    tracing::info!("ready");
    control.run(&switches)
}

/// Where the front end of a device comes from.
fn endpoint(spec: &DeviceSpec) -> Result<EndpointSpec, Failure> {
    Ok(match &spec.socket {
        SocketSpec::Listen(path) => EndpointSpec::Listen(path.clone()),
        SocketSpec::Connect(path) => EndpointSpec::Connect(path.clone()),
        SocketSpec::Fd(number) => EndpointSpec::Fd(inherited(*number)?),
    })
}

fn start_workers(devices: &[DeviceSpec]) -> Result<Workers, Failure> {
    let pairs = devices
        .iter()
        .map(|device| usize::from(device.queues))
        .sum();
    Workers::start(Workers::default_count(pairs)).map_err(Failure::os("worker threads"))
}

fn open(spec: &DeviceSpec, switches: &Switches, workers: &Workers) -> Result<Arc<Device>, Failure> {
    let backend = backend::open(&spec.backend.spec(spec.queues), switches)?;
    let made_up = || mac::generate(spec.slot, spec.func, &spec.owner());
    let options = DeviceOptions {
        name: spec.label(),
        mac: spec.mac.unwrap_or_else(made_up),
        mtu: spec.mtu,
        pairs: spec.queues,
        link: true,
    };
    Ok(Device::new(options, backend, workers)?)
}
