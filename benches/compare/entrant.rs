//! Back ends that are measured by turns, each with what tables call it.

use crate::contenders::Server;
use crate::contenders::ovs::LearningBridge;
use crate::contenders::testpmd::NetVhost;
use crate::contenders::vtnetd::{self, OnVale};
use crate::options::Plan;
use crate::report::Subject;

/// A back end that is measured.
pub struct Entrant {
    pub server: Box<dyn Server>,
    pub subject: Subject,
}

/// Back ends, and what tables call them.
pub type Servers = Vec<(String, Box<dyn Server>)>;

/// Those that can be between two guests; with `more` options of vtnetd's, it is
/// there a second time.
pub fn usual(more: Option<&'static [&'static str]>) -> Servers {
    let mut servers: Servers = vec![(vtnetd::NAME.to_owned(), Box::new(OnVale::default()))];
    if let Some(options) = more {
        let name = format!("{} {}", vtnetd::NAME, options.join(" "));
        let server = OnVale {
            options,
            ..OnVale::default()
        };
        servers.push((name, Box::new(server)));
    }
    let others: [Box<dyn Server>; 2] = [Box::new(NetVhost::default()), Box::new(LearningBridge)];
    servers.extend(others.map(|server| (server.name().to_owned(), server)));
    servers
}

/// Who of them is asked for and is there, to be driven by `front_end`. Of the
/// others one line says what is missing.
pub fn enter(plan: &Plan, servers: Servers, front_end: &'static str) -> Vec<Entrant> {
    let mut entrants = Vec::new();
    for (name, server) in servers {
        if !plan.wants(server.name()) {
            continue;
        }
        match server.equipment().and_then(|()| server.version()) {
            Ok(version) => {
                let command_line = String::new();
                let subject = Subject {
                    name,
                    version,
                    command_line,
                    front_end,
                };
                entrants.push(Entrant { server, subject });
            }
            Err(missing) => bed::skipped(missing.while_doing(name)),
        }
    }
    entrants
}
