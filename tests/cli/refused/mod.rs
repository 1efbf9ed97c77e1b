//! Wrong command lines: each ends with status 64, prints nothing on standard
//! output, and one line on standard error that names the option, as it was
//! written, and the cure.

mod devices;
mod lines;
mod netgraph;

use crate::vtnetd::{EX_USAGE, run, text};

const MTU: &str = "write a number from 46 to 65535";
const BACKENDS: &str = "write one of: none, tapN, vmnetN, valeSWITCH:PORT, netmap:IF, netgraph";
const ONE_SOCKET: &str = "leave one of them out";
const WITHOUT: &str = "use a name without '.', ':'";
const ONCE: &str = "leave all but one out";

fn check(args: &[&str], option: &str, cure: &str) {
    let output = run(args);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(EX_USAGE), "{args:?}: {said}");
    assert_eq!(text(&output.stdout), "", "{args:?}");
    assert!(
        said.ends_with('\n') && said.lines().count() == 1,
        "{args:?}: {said}"
    );
    // "vtnetd: -s STRING: OPTION: PROBLEM; CURE": the string names every option,
    // so only what follows it counts, unless the string itself is to blame.
    let whole = said.strip_prefix("vtnetd: ").unwrap_or_default();
    let behind = args
        .windows(2)
        .find_map(|words| whole.strip_prefix(&format!("{} {}: ", words[0], words[1])))
        .filter(|behind| behind.starts_with(option))
        .unwrap_or(whole);
    assert!(
        behind.starts_with(option),
        "{args:?} does not name {option}: {said}"
    );
    let cured = behind
        .split_once("; ")
        .is_some_and(|(_, it)| it.contains(cure));
    assert!(cured, "{args:?} does not say {cure}: {said}");
}
