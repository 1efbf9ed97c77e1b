//! Linux guests under qemu.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::equipment::{GuestImage, QEMU, pinned};
use crate::{Error, Process, Result, Scratch};

/// How long a guest may take to boot, in software and beside other work.
const BOOT: Duration = Duration::from_secs(120);
/// How long a command may take in a guest.
const COMMAND: Duration = Duration::from_secs(180);
/// What begins the last line of an answer (see `tests/bed/init`).
const END_OF_ANSWER: char = '\x1e';

/// Memory that another process can be given: QEMU's name for it.
const MEMORY: &str = if cfg!(target_os = "linux") {
    "memory-backend-memfd"
} else {
    "memory-backend-shm"
};

/// What a guest is like.
#[derive(Clone, Debug)]
pub struct GuestOptions {
    /// What it is called in errors.
    pub name: String,
    /// vtnetd's socket.
    pub socket: PathBuf,
    /// MAC address that qemu gives to the card.
    pub mac: String,
    /// Address and prefix length, such as `10.0.0.1/24`, or nothing.
    pub address: String,
    /// Further options of qemu's `virtio-net-pci`, such as `host_mtu=9000`.
    pub device: String,
    /// Pairs of queues.
    pub queues: u16,
    /// MiB of memory, of which files may fill nine tenths.
    pub memory: u32,
    /// The processors of this machine that it runs on (see
    /// [`equipment::pinned`](crate::equipment::pinned)); `None`: all.
    pub cpus: Option<String>,
}

impl GuestOptions {
    /// Guest `number`, with address 10.0.0.`number`, on `socket`.
    pub fn numbered(number: u8, socket: PathBuf) -> Self {
        Self {
            name: format!("guest {number}"),
            socket,
            mac: format!("52:54:00:00:00:{number:02x}"),
            address: format!("10.0.0.{number}/24"),
            device: String::new(),
            queues: 1,
            memory: 512,
            cpus: None,
        }
    }

    fn command(&self, image: &GuestImage, console: &str) -> Command {
        let mut device = format!("virtio-net-pci,netdev=net,mac={},romfile=", self.mac);
        // QEMU 7.2 crashes in its own way of handling MSI-X for vhost-user
        // without KVM; with no vectors it uses the old interrupt line.
        device.push_str(",vectors=0");
        let mut netdev = "vhost-user,id=net,chardev=vhost".to_owned();
        if self.queues > 1 {
            netdev.push_str(&format!(",queues={}", self.queues));
            device.push_str(",mq=on");
        }
        if !self.device.is_empty() {
            device.push_str(&format!(",{}", self.device));
        }
        // Where other work delays the emulated timer, the kernel would take it
        // for broken.
        let append = format!(
            "console=ttyS0 quiet panic=-1 no_timer_check ipv6.disable=1 address={}",
            self.address
        );
        let mut command = pinned(QEMU, self.cpus.as_deref());
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-machine", "pc", "-accel", "tcg"])
            .args(["-m", &self.memory.to_string()])
            .args(["-smp", &self.queues.to_string()])
            .arg("-object")
            .arg(format!("{MEMORY},id=memory,size={}M,share=on", self.memory))
            .args(["-numa", "node,memdev=memory"])
            .arg("-kernel")
            .arg(&image.kernel)
            .arg("-initrd")
            .arg(&image.initramfs)
            .args(["-append", &append])
            .args(["-serial", &format!("file:{console}")])
            .args(["-chardev", "stdio,id=commands,signal=off"])
            .args(["-serial", "chardev:commands"])
            .arg("-chardev")
            .arg(format!("socket,id=vhost,path={}", self.socket.display()))
            .args(["-netdev", &netdev, "-device", &device]);
        command
    }
}

/// A guest: a qemu process, and a shell in it.
pub struct Guest {
    process: Process,
    options: GuestOptions,
    console: PathBuf,
    /// The first line of its output that belongs to no answer yet.
    next: usize,
}

impl Guest {
    /// Starts a guest; [`Guest::wait_until_up`] says when it can be used.
    ///
    /// # Errors
    /// qemu cannot be started.
    pub fn start(image: &GuestImage, options: GuestOptions, scratch: &Scratch) -> Result<Self> {
        let console = scratch.path(&format!("{}.console", options.name));
        let mut command = options.command(image, &console.to_string_lossy());
        Ok(Self {
            process: Process::start(&options.name, &mut command)?,
            options,
            console,
            next: 0,
        })
    }

    /// Starts several guests at once, and waits for all.
    ///
    /// # Errors
    /// One of them does not come up.
    pub fn boot<const N: usize>(
        image: &GuestImage,
        options: [GuestOptions; N],
        scratch: &Scratch,
    ) -> Result<[Self; N]> {
        let mut guests = Vec::with_capacity(N);
        for options in options {
            guests.push(Self::start(image, options, scratch)?);
        }
        for guest in &mut guests {
            guest.wait_until_up()?;
        }
        guests
            .try_into()
            .map_err(|_| Error::new("not as many guests as there are options"))
    }

    /// Waits until it takes commands: after its start, and after it was told
    /// to boot again.
    ///
    /// # Errors
    /// qemu ended, or it takes too long.
    pub fn wait_until_up(&mut self) -> Result<()> {
        let ready = self
            .process
            .output
            .wait_for(self.next, BOOT, |line| line == "ready")
            .map_err(|error| self.explain(error, "booting"))?;
        self.next = ready + 1;
        Ok(())
    }

    /// Boots it again, and waits until it is up.
    ///
    /// # Errors
    /// It does not come up.
    pub fn reboot(&mut self) -> Result<()> {
        self.process.write_line("reboot -f")?;
        self.wait_until_up()
    }

    /// Runs a shell command in it, and returns what the command printed.
    ///
    /// # Errors
    /// The command failed, or takes too long.
    pub fn run(&mut self, command: &str) -> Result<String> {
        self.run_within(command, COMMAND)
    }

    /// Runs a shell command that may take as long as `within`.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn run_within(&mut self, command: &str, within: Duration) -> Result<String> {
        self.process.write_line(command)?;
        let end = self
            .process
            .output
            .wait_for(self.next, within, |line| line.contains(END_OF_ANSWER))
            .map_err(|error| self.explain(error, command))?;
        let lines = self.process.output.since(self.next);
        let mut lines = lines.iter().take(end + 1 - self.next);
        self.next = end + 1;
        // The last line of the output may have had no end of its own.
        let (rest, status) = lines
            .next_back()
            .and_then(|last| last.split_once(END_OF_ANSWER))
            .unwrap_or_default();
        let mut output = String::new();
        for line in lines {
            output.push_str(line);
            output.push('\n');
        }
        output.push_str(rest);
        if status != "0" {
            let name = &self.options.name;
            return Err(Error::new(format!(
                "{name}: {command}: status {status}: {output}"
            )));
        }
        Ok(output)
    }

    /// Waits until qemu says something with `text` in it on standard error.
    ///
    /// # Errors
    /// It ended, or says nothing of the kind.
    pub fn wait_for_error(&self, text: &str) -> Result<()> {
        self.process
            .errors
            .wait_for(0, BOOT, |line| line.contains(text))
            .map_err(|error| self.explain(error, &format!("waiting for '{text}'")))?;
        Ok(())
    }

    /// Kills qemu, as a machine that crashes does.
    ///
    /// # Errors
    /// None that a started process gives.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()
    }

    /// Its address, without the prefix length.
    pub fn address(&self) -> &str {
        let address = &self.options.address;
        address.split('/').next().unwrap_or(address)
    }

    /// The process ID of its qemu.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    fn explain(&self, error: Error, doing: &str) -> Error {
        let console = fs::read_to_string(&self.console).unwrap_or_default();
        let lines: Vec<&str> = console.lines().collect();
        let tail = lines.len().saturating_sub(20);
        let mut text = self.process.explain(error, doing).to_string();
        for line in lines.iter().skip(tail) {
            text.push_str(&format!("\n    console: {line}"));
        }
        Error::new(text)
    }
}

/// What a transfer was like.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// How much was transferred.
    pub bytes: u64,
    /// How long it took, without making and checking the data.
    pub time: Duration,
    /// SHA-256 of what was sent, and of what arrived.
    pub sha256: String,
}

impl Transfer {
    /// Bits a second.
    pub fn rate(&self) -> f64 {
        // Rounded beyond 2^53 bytes, which no test transfers.
        #[expect(clippy::cast_precision_loss, reason = "a rate for people to read")]
        let bits = self.bytes as f64 * 8.0;
        bits / self.time.as_secs_f64()
    }
}

/// Sends `mebibytes` of random data from one guest to another over TCP and
/// compares the SHA-256 of what was sent with that of what arrived.
///
/// # Errors
/// They differ, or one of the guests does not do its part.
pub fn transfer(from: &mut Guest, to: &mut Guest, mebibytes: u32) -> Result<Transfer> {
    let sum = |text: String| {
        text.split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let sent = sum(from.run(&format!(
        "dd if=/dev/urandom of=/tmp/served/data bs=1M count={mebibytes} 2> /dev/null; \
         sha256sum /tmp/served/data"
    ))?);
    // An HTTP server has been there since the guest was up (see tests/bed/init).
    let start = Instant::now();
    to.run(&format!(
        "wget -q -O /tmp/received http://{}/data",
        from.address()
    ))?;
    let time = start.elapsed();
    let received = sum(to.run("sha256sum /tmp/received && rm /tmp/received")?);
    from.run("rm /tmp/served/data")?;
    if sent.len() != 64 || sent != received {
        return Err(Error::new(format!(
            "{mebibytes} MiB from {} to {}: SHA-256 {sent} was sent, {received} arrived",
            from.options.name, to.options.name
        )));
    }
    Ok(Transfer {
        bytes: u64::from(mebibytes) << 20,
        time,
        sha256: sent,
    })
}
