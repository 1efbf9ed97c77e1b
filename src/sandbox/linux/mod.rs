//! Linux: Landlock(7), seccomp(2), and no capabilities(7).
//!
//! Landlock without a single rule takes the file system, TCP ports, abstract
//! sockets and signals to others. The [`filter`] takes the system calls that we
//! do not make, so that a hole in one of the two is not one in the sandbox.

mod filter;

use caps::CapSet;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus,
    Scope,
};

use super::{SandboxError, Use};

/// The oldest Landlock that is worth the name; what later ones can forbid is
/// forbidden where they are.
const LEAST: ABI = ABI::V1;
const LATEST: ABI = ABI::V7;

/// Takes capabilities and the file system from this thread and those that it
/// starts. Landlock itself sees to it that no new privileges can be had.
pub(super) fn confine() -> Result<(), SandboxError> {
    landlock()?;
    let sets = [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ];
    for set in sets {
        caps::clear(None, set).map_err(|error| SandboxError::Capabilities(error.to_string()))?;
    }
    Ok(())
}

fn landlock() -> Result<(), SandboxError> {
    let refused = |error: landlock::RulesetError| SandboxError::Landlock(error.to_string());
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(LEAST))
        .map_err(|_| SandboxError::NoLandlock)?
        .set_compatibility(CompatLevel::BestEffort);
    let status = ruleset
        .handle_access(AccessFs::from_all(LATEST))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(LATEST)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(LATEST)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(refused)?;
    if status.ruleset == RulesetStatus::NotEnforced || !status.no_new_privs {
        return Err(SandboxError::NoLandlock);
    }
    Ok(())
}

/// Puts the filters on all threads.
pub(super) fn seal(use_of: Use) -> Result<(), SandboxError> {
    filter::apply(use_of).map_err(|error| SandboxError::Seccomp(error.to_string()))
}
