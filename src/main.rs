//! vtnetd(8): reads the command line, has the opener open what it names, gives
//! up all privileges, and serves until a signal says that it is enough.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;

use vtnetd::backend::{self, host::Host};
use vtnetd::cli::{self, Command, Config, DeviceSpec, SocketSpec};
use vtnetd::device::{Device, DeviceOptions, mac};
use vtnetd::frontend::vhost_user::EndpointSpec;
use vtnetd::netmap::mem::RegionConfig;
use vtnetd::netmap::register::Netmap;
use vtnetd::netmap::service::{Service, rules::Rules};
use vtnetd::netmap::vale::Switches;
use vtnetd::process::{
    Control, Exit, Failure, close_others, confine_and_start_threads, inherited, log,
    raise_open_files,
};
use vtnetd::sandbox::User;
use vtnetd::sandbox::opener::Opener;
use vtnetd::worker::Workers;

fn main() -> ExitCode {
    let result = match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(config)) => serve(&config),
        Ok(Command::Help) => print(&cli::usage()),
        Ok(Command::Version) => print(concat!("vtnetd ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Command::PrintCapabilities) => print(cli::CAPABILITIES),
        Err(error) => Err(Failure::new(Exit::Usage, &error)),
    };
    let status = result.map_or_else(
        |failure| {
            log::say(format_args!("vtnetd: {failure}"));
            failure.exit.into()
        },
        |()| ExitCode::SUCCESS,
    );
    log::flush();
    status
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
    let inherited = take_inherited(&config.devices)?;
    // SAFETY: until here nothing was opened, or it was closed again.
    if let Err(errno) = unsafe { close_others(inherited.iter().flatten()) } {
        tracing::warn!("inherited descriptors that nobody named stay open: {errno}");
    }
    if let Err(errno) = raise_open_files() {
        tracing::warn!("the limit of open files stays what it is: {errno}");
    }
    // Some of that is to be seen in the file system only.
    let privileged: Vec<bool> = config.devices.iter().map(has_host_side).collect();
    let user = config.user.as_deref().map(User::find).transpose()?;
    let service = config.service.as_ref();
    let rules = service.map(|spec| Rules::resolve(&spec.rules, spec.limits));
    let rules = rules.transpose()?;
    let (opener, inherited) = Opener::start(config, user.as_ref(), inherited)?;
    if config.pid_file.is_some() {
        opener.claim_pid_file()?;
    }
    let mut control = Control::new()?;
    control.watch_opener(opener.end()?)?;
    let switches = Arc::new(Switches::default());

    let threads = confine_and_start_threads(config, user.as_ref(), &opener)?;
    let workers = threads.workers;
    // From here on only the opener opens anything.

    for (index, (spec, socket)) in config.devices.iter().zip(inherited).enumerate() {
        let endpoint = endpoint(spec, index, socket, &opener)?;
        let host = privileged[index].then(|| opener.host(index));
        let device = device(spec, host, &switches, &workers)?;
        control.add(device, endpoint)?;
    }
    if let (Some(rules), Some(strays)) = (rules, threads.strays) {
        let mut core = Netmap::new(Arc::clone(&switches), RegionConfig::global());
        if let Some(interfaces) = threads.interfaces {
            core = core.with_devices(interfaces);
        }
        let socket = opener.listen_service()?;
        let service = Service::new(Arc::new(core), Arc::clone(&workers), strays, socket, rules);
        control.set_service(service.map_err(Failure::os("netmap service"))?)?;
    }
    if config.pid_file.is_some() {
        opener.publish_pid_file()?;
    }
    tracing::info!("ready");
    control.run(&switches, &workers)
}

/// The inherited socket of each device that has one.
fn take_inherited(devices: &[DeviceSpec]) -> Result<Vec<Option<OwnedFd>>, Failure> {
    let taken = devices.iter().map(|spec| match spec.socket {
        SocketSpec::Fd(number) => Ok(Some(inherited(number)?)),
        SocketSpec::Listen(_) | SocketSpec::Connect(_) => Ok(None),
    });
    taken.collect()
}

/// Where the front end of the device comes from.
fn endpoint(
    spec: &DeviceSpec,
    index: usize,
    inherited: Option<OwnedFd>,
    opener: &Opener,
) -> Result<EndpointSpec, Failure> {
    Ok(match (inherited, &spec.socket) {
        (Some(fd), _) => EndpointSpec::Fd(fd),
        (None, SocketSpec::Connect(path)) => {
            EndpointSpec::Connect(opener.connector(index, path.clone()))
        }
        (None, _) => EndpointSpec::Listen(opener.listen(index)?),
    })
}

fn has_host_side(spec: &DeviceSpec) -> bool {
    backend::has_host_side(&spec.backend.spec(spec.queues))
}

fn device(
    spec: &DeviceSpec,
    host: Option<Arc<dyn Host>>,
    switches: &Switches,
    workers: &Workers,
) -> Result<Arc<Device>, Failure> {
    let backend = spec.backend.spec(spec.queues);
    let backend = backend::build(&backend, host, switches)?;
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
