//! man/vtnetd.8 against `vtnetd -h`, the parser, and mandoc(1).

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::process::Command;

use vtnetd::cli::{self, Command as Asked};
use vtnetd::device::stats::{RxStats, TxStats};
use vtnetd::process::Exit;

use crate::vtnetd::{run, text};

const PAGE: &str = include_str!("../../man/vtnetd.8");

/// The lines of one section.
fn section(name: &str) -> impl Iterator<Item = &'static str> {
    let heading = format!(".Sh {name}");
    PAGE.lines()
        .skip_while(move |line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with(".Sh "))
}

/// What follows each `Fl` of a line of mdoc, with its hyphens.
fn flags(line: &str) -> impl Iterator<Item = String> + '_ {
    let words = || line.split_whitespace();
    words()
        .zip(words().skip(1))
        .filter(|(before, _)| before.trim_start_matches('.') == "Fl")
        .map(|(_, flag)| format!("-{flag}"))
}

/// The first words of the items of a list, by what introduces the list.
fn keys(introduction: &str) -> BTreeSet<String> {
    section("DEVICES")
        .skip_while(|line| *line != introduction)
        .take_while(|line| *line != ".El")
        .filter_map(|line| line.strip_prefix(".It Cm "))
        .filter_map(|item| item.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

fn help() -> String {
    text(&run(&["-h"]).stdout)
}

#[test]
fn every_option_is_in_both() {
    let help = help();
    let printed: BTreeSet<String> = help
        .lines()
        .skip_while(|line| *line != "Options:")
        .take_while(|line| *line != "Device:")
        // "-h, --help    print ...": the option's names are in front.
        .flat_map(|line| {
            line.split([' ', ','])
                .filter(|word| !word.is_empty())
                .take_while(|word| word.starts_with('-'))
        })
        .map(str::to_owned)
        .collect();
    let described: BTreeSet<String> = section("DESCRIPTION")
        .filter(|line| line.starts_with(".It "))
        .flat_map(flags)
        .collect();
    assert!(printed.len() >= 10, "{printed:?}");
    assert_eq!(printed, described);

    // "-dv" stands for two.
    let synopsis: BTreeSet<String> = section("SYNOPSIS")
        .flat_map(flags)
        .flat_map(|flag| match flag.strip_prefix('-') {
            Some(letters) if !letters.starts_with('-') => {
                letters.chars().map(|letter| format!("-{letter}")).collect()
            }
            _ => vec![flag],
        })
        .collect();
    assert_eq!(synopsis, described);
}

#[test]
fn every_key_and_back_end_is_in_both() {
    let help = help();
    let printed: BTreeSet<String> = help
        .lines()
        .skip_while(|line| *line != "Keys:")
        .filter_map(|line| line.trim_start().split_once('='))
        .map(|(key, _)| key.to_owned())
        .collect();
    assert!(printed.len() >= 7, "{printed:?}");
    assert_eq!(printed, keys("The keys are:"));

    let forms = help.lines().skip_while(|line| *line != "Backend:").nth(1);
    let printed: BTreeSet<String> = forms
        .unwrap_or_default()
        .split(',')
        .map(|form| {
            form.trim()
                .chars()
                .take_while(char::is_ascii_lowercase)
                .collect()
        })
        .collect();
    assert!(printed.len() >= 3, "{printed:?}");
    assert_eq!(printed, keys("is one of:"));
}

#[test]
fn exit_statuses_are_those_of_the_program() {
    let described: Vec<u8> = section("EXIT STATUS")
        .filter_map(|line| line.strip_prefix(".It "))
        .map(|status| status.parse().unwrap())
        .collect();
    let ours = [
        Exit::Usage,
        Exit::NoUser,
        Exit::Unavailable,
        Exit::Software,
        Exit::Os,
        Exit::CannotCreate,
        Exit::Permission,
    ];
    let ours: Vec<u8> = [0].into_iter().chain(ours.map(|exit| exit as u8)).collect();
    assert_eq!(described, ours);
}

#[test]
fn every_counter_of_a_queue_is_described() {
    let described: BTreeSet<&str> = section("DIAGNOSTICS")
        .filter_map(|line| line.strip_prefix(".It Cm "))
        .flat_map(|names| names.split([' ', ',']))
        .collect();
    let counted = format!("{} {}", RxStats::default(), TxStats::default());
    for counter in counted.split(' ') {
        let (name, _) = counter.split_once('=').unwrap();
        assert!(described.contains(name), "{name}");
    }
}

#[test]
fn examples_are_understood() {
    let joined: String = section("EXAMPLES")
        .map(|line| {
            line.strip_suffix("\\e")
                .map_or(format!("{line}\n"), str::to_owned)
        })
        .collect();
    let examples: Vec<&str> = joined
        .lines()
        .filter_map(|line| line.strip_prefix("vtnetd "))
        .map(|line| line.trim_end_matches(" &"))
        .collect();
    assert!(examples.len() >= 4, "{joined}");
    for example in examples {
        let parsed = cli::parse(example.split_whitespace());
        assert!(matches!(parsed, Ok(Asked::Run(_))), "{example}: {parsed:?}");
    }
}

#[test]
fn the_message_that_is_shown_is_the_one_that_is_printed() {
    let shown = section("DIAGNOSTICS").find(|line| line.starts_with("vtnetd: "));
    let said = run(&["-s", "virtio-net,none,fd=3,mtu=45"]).stderr;
    assert_eq!(shown.map(|line| format!("{line}\n")), Some(text(&said)));
}

#[test]
fn mandoc_finds_nothing() {
    let lint = Command::new("mandoc")
        .args(["-Tlint", "-Wwarning", "man/vtnetd.8"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    match lint {
        Err(error) if error.kind() == ErrorKind::NotFound => println!("skipped: no mandoc(1)"),
        other => {
            let output = other.unwrap();
            assert!(output.status.success(), "{}", text(&output.stdout));
        }
    }
}
