//! netmap's own tests of its control interface, and its functional scripts.

use std::process::Command;
use std::{env, fs};

use bed::{Error, Result, Test};

use crate::scene::{SOON, Scene};
use crate::upstream::{path, run};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("ctrl_api_test", api),
        Test::new("functional_scripts", || functional("functional")),
        Test::new("functional_scripts_with_the_older_interface", || {
            functional("functional-legacy")
        }),
        Test::new("vale_ctl_lists_attaches_and_detaches", vale_ctl),
    ]
}

/// Those of them that cannot pass, and why.
const KNOWN: [(&str, &str); 1] = [(
    "nmreq_parsing",
    "it is about libnetmap alone, which since 765f0979 takes two names that the test wants refused",
)];

/// Each of its tests in a process of its own, so that one that fails hides no
/// other.
#[cfg(target_os = "linux")]
fn api() -> Result<()> {
    if let Err(missing) = bed::equipment::tap() {
        return Err(Error::missing(missing.to_string()));
    }
    let interface = format!("nmt{}", std::process::id());
    let scene = Scene::with_keys(&format!(",interface={interface}"))?;
    let program = path("ctrl-api-test")?;
    let ask = |arguments: &str| {
        // It takes the interface away when it ends.
        let mut ip = Command::new("ip");
        let made = ip.args(["tuntap", "add", "mode", "tap", "name", &interface]);
        assert!(made.status()?.success());
        // Some look at errno after perror(3), which the C library changes when
        // standard error cannot be read.
        let mut command = Command::new("sh");
        let text = format!(
            "{} -i {interface} {arguments} 2<>errors; cat errors; rm errors",
            program.display()
        );
        let mut process = scene.start_as("ctrl-api-test", command.args(["-c", &text]))?;
        process.wait(SOON)?;
        Ok::<_, Error>(process.output.since(0))
    };
    let listed = run(&scene, "ctrl-api-test", &["-l"])?.1;
    let names: Vec<&str> = listed
        .iter()
        .filter_map(|line| line.strip_prefix('#')?.split_once(": "))
        .map(|(_, name)| name)
        .collect();
    assert!(names.len() >= 47, "{listed:?}");
    let (mut passed, mut failed) = (0, Vec::new());
    for (nth, name) in (1..).zip(&names) {
        let said = ask(&format!("-j {nth}"))?;
        if said.contains(&format!("==> Test #{nth} [{name}] successful")) {
            passed += 1;
        } else if let Some((_, why)) = KNOWN.iter().find(|(known, _)| known == name) {
            println!("{name} cannot pass: {why}");
        } else {
            failed.push(format!("#{nth} {name}: {}", said.join(" | ")));
        }
    }
    println!("{passed} of {} passed", names.len());
    match failed.as_slice() {
        [] => scene.end(),
        failed => Err(Error::new(format!(
            "{} failed:\n{}",
            failed.len(),
            failed.join("\n")
        ))),
    }
}

/// Its tests want an interface that this system's programs make otherwise.
#[cfg(not(target_os = "linux"))]
fn api() -> Result<()> {
    let _ = KNOWN;
    Err(Error::missing("ctrl-api-test: Linux only"))
}

/// netmap's functional scripts, each with a server of descriptors of its own.
fn functional(program: &str) -> Result<()> {
    let scene = Scene::new()?;
    let scripts = path("tests")?;
    let library = path("test_lib")?;
    let mut system = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect::<Vec<_>>();
    let mut directories = vec![library.parent().unwrap().to_owned()];
    for name in [program, "fd_server", "vale-ctl"] {
        directories.push(path(name)?.parent().unwrap().to_owned());
    }
    directories.append(&mut system);
    let search = env::join_paths(directories).map_err(|error| Error::new(error.to_string()))?;
    let mut all: Vec<_> = fs::read_dir(&scripts)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    all.sort();
    let (mut passed, mut failed) = (0, Vec::new());
    for script in all {
        let name = script.file_name().unwrap().to_string_lossy().into_owned();
        if name.contains("veth") {
            // Switched off upstream: it needs interfaces of the host.
            continue;
        }
        let sh = |text: String| {
            let mut command = Command::new("bash");
            command.arg("-c").arg(text).env("PATH", &search);
            command.env("FUNCTIONAL", program);
            let mut process = scene.start_as(&name, &mut command)?;
            let status = process.wait(SOON)?;
            Ok::<_, Error>((status.success(), process.output.since(0)))
        };
        sh(format!("{program} -c; {program} -o"))?;
        let (good, said) = sh(format!("bash {} 2>&1", script.display()))?;
        sh(format!("{program} -c"))?;
        if good {
            passed += 1;
        } else {
            failed.push(format!("{name}: {}", said.join(" | ")));
        }
    }
    println!("{passed} passed");
    match failed.as_slice() {
        [] => scene.end(),
        failed => Err(Error::new(format!(
            "{passed} passed; {}",
            failed.join("\n")
        ))),
    }
}

/// What it is called: FreeBSD has it in its own system.
const VALE_CTL: &str = if cfg!(target_os = "freebsd") {
    "valectl"
} else {
    "vale-ctl"
};

fn vale_ctl() -> Result<()> {
    let scene = Scene::new()?;
    let ctl = |arguments: &[&str]| {
        let (status, said) = run(&scene, VALE_CTL, arguments)?;
        Ok::<_, Error>((status.success(), said.join("\n")))
    };
    assert!(ctl(&["-n", "per0"])?.0);
    let (attached, said) = ctl(&["-a", "vale3:per0"])?;
    assert!(attached, "{said}");
    let (_, listed) = ctl(&[])?;
    assert!(listed.contains("vale3:per0"), "{listed}");
    assert!(!ctl(&["-a", "vale3:per0"])?.0, "attached twice");
    assert!(ctl(&["-d", "vale3:per0"])?.0);
    let (_, listed) = ctl(&[])?;
    assert!(!listed.contains("per0"), "{listed}");
    assert!(ctl(&["-r", "per0"])?.0);
    assert!(!ctl(&["-r", "per0"])?.0, "removed twice");
    scene.end()
}
