//! Who asks for something, what it may do, and how much it may have.
//!
//! The isolation unit is a memory region, for who has one can write all of it:
//! each has an owner, and only who may share it with that owner binds anything
//! in it. Ports, monitors and persistent ports on a switch take a right on that
//! switch.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What can be allowed, each on one switch or everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights(u8);

impl Rights {
    /// Ports of one's own, and pipes below them.
    pub const ATTACH: Self = Self(1);
    /// Monitors of others' ports.
    pub const MONITOR: Self = Self(2);
    /// Interfaces of the host.
    pub const BWRAP: Self = Self(4);
    /// Persistent ports.
    pub const CREATE: Self = Self(8);
    /// Regions of others: pipes to them, zero-copy monitors, their ids.
    pub const SHARE: Self = Self(16);
    /// All of it.
    pub const ALL: Self = Self(31);

    /// Each with its name.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("attach", Self::ATTACH),
        ("monitor", Self::MONITOR),
        ("bwrap", Self::BWRAP),
        ("create", Self::CREATE),
        ("share", Self::SHARE),
        ("all", Self::ALL),
    ];

    /// Both.
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::NAMES.iter().rev().find(|(_, one)| self.has(*one));
        f.write_str(named.map_or("nothing", |(name, _)| name))
    }
}

/// Some rights, on one switch or everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What is allowed.
    pub rights: Rights,
    /// On which switch; `None`: everywhere.
    pub switch: Option<String>,
}

/// How much the clients of one user may have together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open descriptors.
    pub connections: u64,
    /// Ports of switches that were made for them.
    pub ports: u64,
    /// Bytes of memory regions.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            ports: 64,
            memory: 4 << 30,
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Open descriptors.
    Connections,
    /// Channels of these.
    Channels,
    /// Ports of switches.
    Ports,
    /// Bytes of memory regions.
    Memory,
    /// Descriptors that nobody has asked for, until they are closed.
    Strays,
}

/// Channels that there may be for each connection that there may be.
const CHANNELS: u64 = 4;

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connections => "open descriptors",
            Self::Channels => "channels",
            Self::Ports => "ports",
            Self::Memory => "bytes of memory regions",
            Self::Strays => "descriptors to be closed",
        })
    }
}

/// A user has as much as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("clients of user {uid} may have {limit} {what} together; raise the service's limit")]
pub struct LimitError {
    /// The user.
    pub uid: u32,
    /// Of what.
    pub what: Resource,
    /// How many.
    pub limit: u64,
}

/// What the clients of one user have.
#[derive(Debug)]
pub struct Account {
    uid: u32,
    limits: Limits,
    used: Mutex<[u64; 5]>,
}

impl Account {
    /// Of a user who has nothing yet.
    pub fn new(uid: u32, limits: Limits) -> Self {
        Self {
            uid,
            limits,
            used: Mutex::default(),
        }
    }

    fn used(&self) -> MutexGuard<'_, [u64; 5]> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The user.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// How much of something the user has.
    pub fn has(&self, what: Resource) -> u64 {
        self.used().get(what as usize).copied().unwrap_or_default()
    }

    fn limit(&self, what: Resource) -> u64 {
        match what {
            Resource::Connections => self.limits.connections,
            Resource::Channels => self.limits.connections.saturating_mul(CHANNELS),
            Resource::Ports => self.limits.ports,
            Resource::Memory => self.limits.memory,
            // They are there already.
            Resource::Strays => u64::MAX,
        }
    }

    /// Takes `amount` of something, until what is returned is dropped.
    ///
    /// # Errors
    /// It would be more than the user may have.
    pub fn charge(self: &Arc<Self>, what: Resource, amount: u64) -> Result<Charge, LimitError> {
        let limit = self.limit(what);
        let mut used = self.used();
        let used = used.get_mut(what as usize);
        let after = used.as_ref().and_then(|used| used.checked_add(amount));
        match (used, after) {
            (Some(used), Some(after)) if after <= limit => *used = after,
            _ => {
                return Err(LimitError {
                    uid: self.uid,
                    what,
                    limit,
                });
            }
        }
        Ok(Charge {
            account: Arc::clone(self),
            what,
            amount,
        })
    }
}

/// Something that a user has until this is dropped.
#[derive(Debug)]
pub struct Charge {
    account: Arc<Account>,
    what: Resource,
    amount: u64,
}

impl Charge {
    /// On which account it is.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Whose it is.
    pub fn uid(&self) -> u32 {
        self.account.uid
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(used) = self.account.used().get_mut(self.what as usize) {
            *used = used.saturating_sub(self.amount);
        }
    }
}

/// Who asks. The default is this process itself, which may do everything and
/// has no limits.
#[derive(Clone, Debug, Default)]
pub struct Authority(Option<Arc<Client>>);

#[derive(Debug)]
struct Client {
    account: Arc<Account>,
    /// It is root's, or of the user that serves.
    everything: bool,
    grants: Vec<Grant>,
}

impl Authority {
    /// A client on the account of its user. With `everything`, it has every
    /// right, whatever its grants are.
    pub fn client(account: Arc<Account>, everything: bool, grants: Vec<Grant>) -> Self {
        Self(Some(Arc::new(Client {
            account,
            everything,
            grants,
        })))
    }

    /// May do this on `switch`; `None`: where there is no switch, for which a
    /// right that holds everywhere is needed.
    pub fn may(&self, right: Rights, switch: Option<&str>) -> bool {
        let Some(client) = &self.0 else {
            return true;
        };
        let holds = |grant: &Grant| match (&grant.switch, switch) {
            (None, _) => true,
            (Some(of), Some(switch)) => of == switch,
            (Some(_), None) => false,
        };
        let mut rights = client.grants.iter().filter(|grant| holds(grant));
        client.everything || rights.any(|grant| grant.rights.has_any(right))
    }

    /// May do this on some switch at least.
    pub fn may_somewhere(&self, right: Rights) -> bool {
        let grants = |client: &Arc<Client>| {
            let mut rights = client.grants.iter().map(|grant| grant.rights);
            client.everything || rights.any(|rights| rights.has_any(right))
        };
        self.0.as_ref().is_none_or(grants)
    }

    /// May use what belongs to the clients of user `owner`, or to the service
    /// itself, through a port of `switch`.
    pub fn may_share(&self, owner: Option<u32>, switch: Option<&str>) -> bool {
        let own = self.0.as_ref().map(|client| client.account.uid);
        own == owner && owner.is_some() || self.may(Rights::SHARE, switch)
    }

    /// Takes `amount` of something on the client's account; nothing for this
    /// process itself.
    ///
    /// # Errors
    /// It would be more than the user may have.
    pub fn charge(&self, what: Resource, amount: u64) -> Result<Option<Charge>, LimitError> {
        let charge = |client: &Arc<Client>| client.account.charge(what, amount);
        self.0.as_ref().map(charge).transpose()
    }
}

/// The same client, or both this process.
impl PartialEq for Authority {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        }
    }
}

impl Eq for Authority {}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(uid: u32, grants: &[(Rights, Option<&str>)]) -> Authority {
        let account = Arc::new(Account::new(uid, Limits::default()));
        let grants = grants.iter().map(|(rights, switch)| Grant {
            rights: *rights,
            switch: switch.map(str::to_owned),
        });
        Authority::client(account, false, grants.collect())
    }

    #[test]
    fn rights_are_those_of_the_switch() {
        let some = client(
            7,
            &[
                (Rights::ATTACH.with(Rights::MONITOR), Some("vale0")),
                (Rights::CREATE, None),
            ],
        );
        for (right, switch, want) in [
            (Rights::ATTACH, Some("vale0"), true),
            (Rights::MONITOR, Some("vale0"), true),
            (Rights::ATTACH, Some("vale1"), false),
            (Rights::ATTACH, None, false),
            (Rights::CREATE, Some("vale1"), true),
            (Rights::CREATE, None, true),
            (Rights::BWRAP, Some("vale0"), false),
            (Rights::BWRAP.with(Rights::CREATE), Some("vale1"), true),
        ] {
            assert_eq!(some.may(right, switch), want, "{right} {switch:?}");
            assert!(Authority::default().may(right, switch));
        }
        let account = Arc::new(Account::new(0, Limits::default()));
        assert!(Authority::client(account, true, vec![]).may(Rights::BWRAP, None));
    }

    #[test]
    fn memory_is_shared_among_one_user() {
        let one = client(7, &[(Rights::SHARE, Some("vale1"))]);
        assert!(one.may_share(Some(7), None));
        assert!(!one.may_share(Some(8), Some("vale0")));
        assert!(!one.may_share(None, Some("vale0")));
        assert!(one.may_share(Some(8), Some("vale1")));
        assert!(Authority::default().may_share(Some(8), None));
        assert!(Authority::default().may_share(None, None));
    }

    #[test]
    fn what_is_given_back_can_be_had_again() {
        let limits = Limits {
            memory: 100,
            ..Limits::default()
        };
        let account = Arc::new(Account::new(7, limits));
        let most = account.charge(Resource::Memory, 60).unwrap();
        let error = account.charge(Resource::Memory, 41).unwrap_err();
        assert_eq!((error.uid, error.limit), (7, 100));
        assert!(account.charge(Resource::Memory, u64::MAX).is_err());
        let rest = account.charge(Resource::Memory, 40).unwrap();
        assert_eq!(account.has(Resource::Memory), 100);
        drop(most);
        let again = account.charge(Resource::Memory, 60).unwrap();
        drop((rest, again));
        assert_eq!(account.has(Resource::Memory), 0);
        assert_eq!(account.has(Resource::Ports), 0);
    }
}
