//! `-u`: the user that the sandboxed process runs as.

use std::io;

use nix::errno::Errno;
use nix::unistd::{
    Gid, Uid, getegid, geteuid, getgid, getgroups, getuid, setegid, seteuid, setgid, setgroups,
    setuid,
};

use super::SandboxError;

/// A user that the process can become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    name: String,
    uid: Uid,
    gid: Gid,
}

impl User {
    /// Looks `name` up in the system's user database.
    ///
    /// # Errors
    /// There is no such user.
    pub fn find(name: &str) -> Result<Self, SandboxError> {
        let found = nix::unistd::User::from_name(name).ok().flatten();
        let found = found.ok_or_else(|| SandboxError::NoUser(name.to_owned()))?;
        Ok(Self {
            name: name.to_owned(),
            uid: found.uid,
            gid: found.gid,
        })
    }

    /// As it was looked up.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its number.
    pub(super) fn uid(&self) -> Uid {
        self.uid
    }

    /// Its login group.
    pub(super) fn group(&self) -> Gid {
        self.gid
    }

    /// Does `work` as this user, of its login group only, and is who it was
    /// before afterwards. To be called before there are threads.
    ///
    /// # Errors
    /// `EPERM`: the process is not root's. If it cannot go back, it is left
    /// with less than it had, never with more.
    pub(super) fn act<T>(&self, work: impl FnOnce() -> T) -> Result<T, Errno> {
        let (uid, gid, groups) = (geteuid(), getegid(), getgroups()?);
        let done = setgroups(&[self.gid])
            .and_then(|()| setegid(self.gid))
            .and_then(|()| seteuid(self.uid))
            .map(|()| work());
        // The other way round: who is not root may not change groups.
        seteuid(uid)?;
        setegid(gid)?;
        if done.is_ok() || getgroups()? != groups {
            setgroups(&groups)?;
        }
        done
    }

    /// Becomes this user for good, of its login group only. To be called before
    /// there are threads.
    ///
    /// # Errors
    /// The process may not, or could become root again afterwards.
    pub fn become_it(&self) -> Result<(), SandboxError> {
        let refused = |error: nix::Error| SandboxError::Switch(self.name.clone(), error.into());
        // The order counts: who is not root any more may not change groups.
        setgroups(&[self.gid]).map_err(refused)?;
        setgid(self.gid).map_err(refused)?;
        setuid(self.uid).map_err(refused)?;

        let users = [getuid(), geteuid()].iter().all(|uid| *uid == self.uid);
        let groups = [getgid(), getegid()].iter().all(|gid| *gid == self.gid)
            && getgroups()
                .map_err(refused)?
                .iter()
                .all(|gid| *gid == self.gid);
        if !users || !groups {
            let error = io::Error::other("the system kept some of the former ones");
            return Err(SandboxError::Switch(self.name.clone(), error));
        }
        if self.uid.is_root() || setuid(Uid::from_raw(0)).is_ok() {
            return Err(SandboxError::StillRoot(self.name.clone()));
        }
        Ok(())
    }
}
