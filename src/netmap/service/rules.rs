//! Who may do what: the rules of the service, and the account of each user.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use nix::unistd::{Gid, Group, Uid, User};

use super::peer::Peer;
use crate::netmap::authority::{Account, Authority, Grant, Limits, Rights};

/// To whom a rule applies, by names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// A user, by name or number.
    User(String),
    /// Everybody in a group, by name or number.
    Group(String),
    /// Everybody who may connect.
    Anyone,
}

/// One rule, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// To whom it applies.
    pub who: Who,
    /// What they may do, and where.
    pub grant: Grant,
}

/// A rule about somebody who does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// No such user.
    #[error("-N: allow={0}: no such user; make it, or name another")]
    NoUser(String),
    /// No such group.
    #[error("-N: allow=%{0}: no such group; make it, or name another")]
    NoGroup(String),
}

/// To whom a rule applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    User(u32),
    Group(u32),
    Anyone,
}

/// The rules, and who has what.
#[derive(Debug, Default)]
pub struct Rules {
    rules: Vec<(Subject, Grant)>,
    limits: Limits,
    /// The user that serves; with root, the one who may do everything.
    own: u32,
    accounts: HashMap<u32, Weak<Account>>,
}

impl Rules {
    /// Looks the names up in the system's databases: to be called before the
    /// process is sandboxed.
    ///
    /// # Errors
    /// A name that is not there.
    pub fn resolve(rules: &[Rule], limits: Limits) -> Result<Self, RuleError> {
        let resolve = |rule: &Rule| {
            let subject = match &rule.who {
                Who::User(name) => Subject::User(user(name)?),
                Who::Group(name) => Subject::Group(group(name)?),
                Who::Anyone => Subject::Anyone,
            };
            Ok((subject, rule.grant.clone()))
        };
        Ok(Self {
            rules: rules.iter().map(resolve).collect::<Result<_, _>>()?,
            limits,
            ..Self::default()
        })
    }

    /// The same for a service that user `own` runs.
    pub(super) fn of(self, own: u32) -> Self {
        Self { own, ..self }
    }

    /// What `peer` may, and its user's account; `None`: nothing.
    pub(super) fn authority(&mut self, peer: &Peer) -> Option<(Authority, Arc<Account>)> {
        let everything = peer.uid == 0 || peer.uid == self.own;
        let applies = |subject: &Subject| match subject {
            Subject::User(uid) => *uid == peer.uid,
            Subject::Group(gid) => peer.gids.contains(gid),
            Subject::Anyone => true,
        };
        let rules = self.rules.iter().filter(|(subject, _)| applies(subject));
        let grants: Vec<Grant> = rules.map(|(_, grant)| grant.clone()).collect();
        if !everything && grants.is_empty() {
            return None;
        }
        let account = self.account(peer.uid);
        let authority = Authority::client(Arc::clone(&account), everything, grants);
        Some((authority, account))
    }

    fn account(&mut self, uid: u32) -> Arc<Account> {
        if let Some(account) = self.accounts.get(&uid).and_then(Weak::upgrade) {
            return account;
        }
        self.accounts
            .retain(|_, account| account.strong_count() > 0);
        let account = Arc::new(Account::new(uid, self.limits));
        self.accounts.insert(uid, Arc::downgrade(&account));
        account
    }
}

fn user(name: &str) -> Result<u32, RuleError> {
    let found = User::from_name(name).ok().flatten().map(|user| user.uid);
    let number = || name.parse().ok().map(Uid::from_raw);
    found
        .or_else(number)
        .map(Uid::as_raw)
        .ok_or_else(|| RuleError::NoUser(name.to_owned()))
}

fn group(name: &str) -> Result<u32, RuleError> {
    let found = Group::from_name(name).ok().flatten();
    let number = || name.parse().ok().map(Gid::from_raw);
    found
        .map(|group| group.gid)
        .or_else(number)
        .map(Gid::as_raw)
        .ok_or_else(|| RuleError::NoGroup(name.to_owned()))
}

/// Reads `WHO:RIGHT[+RIGHT...][:SWITCH]`.
impl std::str::FromStr for Rule {
    type Err = RuleSyntax;

    fn from_str(text: &str) -> Result<Self, RuleSyntax> {
        if !text.contains(':') {
            return Err(RuleSyntax::Who);
        }
        let mut parts = text.split(':');
        let who = match parts.next().unwrap_or_default() {
            "*" => Who::Anyone,
            "" | "%" => return Err(RuleSyntax::Who),
            name => match name.strip_prefix('%') {
                Some(group) => Who::Group(group.to_owned()),
                None => Who::User(name.to_owned()),
            },
        };
        let mut rights = Rights::default();
        for name in parts.next().ok_or(RuleSyntax::Right)?.split('+') {
            let known = Rights::NAMES.iter().find(|(known, _)| *known == name);
            let (_, right) = known.ok_or(RuleSyntax::Right)?;
            rights = rights.with(*right);
        }
        let switch = match parts.next() {
            None | Some("*") => None,
            Some(name) => {
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
                if !name.starts_with("vale") || !name.chars().all(plain) {
                    return Err(RuleSyntax::Switch);
                }
                Some(name.to_owned())
            }
        };
        match parts.next() {
            None => Ok(Self {
                who,
                grant: Grant { rights, switch },
            }),
            Some(_) => Err(RuleSyntax::Switch),
        }
    }
}

/// What is wrong with a rule: what to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleSyntax {
    /// Nobody is named.
    #[error("write a user, %GROUP or * first, as in alice:attach:vale0")]
    Who,
    /// No such right.
    #[error("write attach, monitor, bwrap, create, share, all, or some of them with '+'")]
    Right,
    /// No switch.
    #[error("write a switch last, as in alice:attach:vale0, or none")]
    Switch,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &[&str]) -> Rules {
        let rules: Vec<Rule> = text.iter().map(|rule| rule.parse().unwrap()).collect();
        Rules::resolve(&rules, Limits::default()).unwrap().of(50)
    }

    fn peer(uid: u32, gids: &[u32]) -> Peer {
        Peer {
            uid,
            gids: gids.to_vec(),
        }
    }

    #[test]
    fn who_serves_and_root_may_everything_and_others_nothing() {
        let mut rules = rules(&[]);
        for uid in [0, 50] {
            let (authority, _) = rules.authority(&peer(uid, &[])).unwrap();
            assert!(authority.may(Rights::BWRAP, None));
        }
        assert!(rules.authority(&peer(51, &[0, 50])).is_none());
    }

    #[test]
    fn rules_add_up() {
        let mut rules = rules(&["7:attach+monitor:vale0", "%8:create", "*:attach:vale1"]);
        let may = |rules: &mut Rules, peer: &Peer| {
            let (authority, _) = rules.authority(peer).unwrap();
            [
                authority.may(Rights::ATTACH, Some("vale0")),
                authority.may(Rights::MONITOR, Some("vale0")),
                authority.may(Rights::ATTACH, Some("vale1")),
                authority.may(Rights::CREATE, Some("vale1")),
            ]
        };
        assert_eq!(may(&mut rules, &peer(7, &[])), [true, true, true, false]);
        assert_eq!(may(&mut rules, &peer(7, &[8])), [true; 4]);
        assert_eq!(may(&mut rules, &peer(9, &[])), [false, false, true, false]);
    }

    #[test]
    fn a_user_has_one_account_as_long_as_it_has_something() {
        let mut rules = rules(&[]);
        let (_, one) = rules.authority(&peer(0, &[])).unwrap();
        let (_, other) = rules.authority(&peer(0, &[1])).unwrap();
        assert!(Arc::ptr_eq(&one, &other));
        let (_, third) = rules.authority(&peer(50, &[])).unwrap();
        assert!(!Arc::ptr_eq(&one, &third));
    }

    #[test]
    fn what_is_no_rule() {
        for (text, want) in [
            ("", RuleSyntax::Who),
            (":attach", RuleSyntax::Who),
            ("%:attach", RuleSyntax::Who),
            ("a", RuleSyntax::Who),
            ("attach", RuleSyntax::Who),
            ("a:", RuleSyntax::Right),
            ("a:attach+", RuleSyntax::Right),
            ("a:read", RuleSyntax::Right),
            ("a:attach:eth0", RuleSyntax::Switch),
            ("a:attach:vale0/x", RuleSyntax::Switch),
            ("a:attach:vale0:b", RuleSyntax::Switch),
        ] {
            assert_eq!(text.parse::<Rule>(), Err(want), "{text}");
        }
        let nobody = Rule {
            who: Who::User("no such user".to_owned()),
            grant: Grant {
                rights: Rights::ALL,
                switch: None,
            },
        };
        assert!(Rules::resolve(&[nobody], Limits::default()).is_err());
    }
}
