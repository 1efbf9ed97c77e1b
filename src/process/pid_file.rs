//! The pid file: it is there only while we are ready, and two processes cannot
//! have the same one.
//!
//! The file is locked (flock(2)) for as long as the process lives that wrote it,
//! which is the opener; so a file that was left behind, as by a machine that lost
//! its power, is known by its missing lock and replaced.
//! It is written under another name and then linked to its own, so nobody sees
//! it half written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Why there is no pid file.
#[derive(Debug, thiserror::Error)]
pub enum PidFileError {
    /// A living process has it.
    #[error("{path}: process {pid} has this pid file; stop it, or choose another -p")]
    Held {
        /// The file.
        path: PathBuf,
        /// What it says, as far as it is a number.
        pid: String,
    },
    /// The system refuses it.
    #[error("{0}: the pid file cannot be written: {1}; choose another -p")]
    Io(PathBuf, #[source] io::Error),
}

/// A pid file, removed when it is dropped.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    /// Where it lies until it is published.
    draft: PathBuf,
    file: Flock<File>,
}

impl PidFile {
    /// Makes sure that `path` can be had, and writes the file beside it; it
    /// says that process `pid` has it. The lock on it is the caller's.
    ///
    /// # Errors
    /// Another process has it, or the directory cannot be written.
    pub fn claim(path: &Path, pid: u32) -> Result<Self, PidFileError> {
        let failed = |error| PidFileError::Io(path.to_owned(), error);
        take_away(path)?;
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{pid}"));
        let draft = PathBuf::from(draft);
        // Ours by its name, so what a former process of our number left there
        // may go. It is not written to: it may be a link to another's file.
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&draft)
            .map_err(failed)?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| failed(errno.into()))?;
        let mut claimed = Self {
            path: path.to_owned(),
            draft,
            file,
        };
        writeln!(claimed.file, "{pid}").map_err(failed)?;
        Ok(claimed)
    }

    /// Gives the file its name: from now on it is there.
    ///
    /// # Errors
    /// Another process has taken the name since, or the system refuses it.
    pub fn publish(&self) -> Result<(), PidFileError> {
        loop {
            match fs::hard_link(&self.draft, &self.path) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    take_away(&self.path)?;
                }
                Err(error) => return Err(PidFileError::Io(self.path.clone(), error)),
            }
        }
        // The draft is removed when this is dropped, if it cannot be now.
        let _ = fs::remove_file(&self.draft);
        Ok(())
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        for path in [&self.path, &self.draft] {
            if is_at(&self.file, path) {
                if let Err(error) = fs::remove_file(path) {
                    tracing::warn!("{}: not removed: {error}", path.display());
                }
            }
        }
    }
}

/// `file` is what `path` names.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(there)) = (file.metadata(), fs::symlink_metadata(path)) else {
        return false;
    };
    (ours.dev(), ours.ino()) == (there.dev(), there.ino())
}

/// Removes the file of a process that is gone. Only who has the lock on a file
/// removes it, so no two processes remove one another's.
fn take_away(path: &Path) -> Result<(), PidFileError> {
    let failed = |error| PidFileError::Io(path.to_owned(), error);
    let mut options = OpenOptions::new();
    // Not to hang on a pipe, nor to be led elsewhere.
    options
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed)?,
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    let pid = read_pid(&file);
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) if !is_at(&file, path) => Ok(()),
        // Nor is anything removed that no pid file is.
        Ok(_) if pid.is_none() => Err(failed(io::Error::other("it is no pid file"))),
        Ok(_) => fs::remove_file(path).map_err(failed),
        Err((_, Errno::EWOULDBLOCK)) => Err(PidFileError::Held {
            path: path.to_owned(),
            pid: pid.unwrap_or_else(|| "?".to_owned()),
        }),
        Err((_, errno)) => Err(failed(errno.into())),
    }
}

/// The number in a pid file, if it is one.
fn read_pid(file: &File) -> Option<String> {
    let mut said = String::new();
    // Bounded: it is another's file.
    file.take(20).read_to_string(&mut said).ok()?;
    let pid = said.strip_suffix('\n')?;
    let number = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
    number.then(|| pid.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own for one test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("vtnetd-{test}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let names = fs::read_dir(&self.0).unwrap();
            names
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn claim(path: &Path) -> Result<PidFile, PidFileError> {
        PidFile::claim(path, std::process::id())
    }

    #[test]
    fn it_is_there_from_publish_to_drop() {
        let scratch = Scratch::new("there");
        let path = scratch.0.join("pid");
        let file = claim(&path).unwrap();
        assert!(!path.exists());
        file.publish().unwrap();
        let pid = std::process::id();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{pid}\n"));
        assert_eq!(scratch.names(), ["pid"]);
        drop(file);
        assert!(scratch.names().is_empty());
    }

    #[test]
    fn a_claim_that_is_given_up_leaves_nothing() {
        let scratch = Scratch::new("given-up");
        drop(claim(&scratch.0.join("pid")).unwrap());
        assert!(scratch.names().is_empty());
    }

    /// What lies in the draft's place is replaced, and what it leads to stays.
    #[test]
    fn a_draft_is_a_new_file() {
        let scratch = Scratch::new("draft");
        let precious = scratch.0.join("precious");
        fs::write(&precious, "data").unwrap();
        let draft = scratch.0.join(format!("pid.{}", std::process::id()));
        for symbolic in [false, true] {
            if symbolic {
                std::os::unix::fs::symlink(&precious, &draft).unwrap();
            } else {
                fs::hard_link(&precious, &draft).unwrap();
            }
            drop(claim(&scratch.0.join("pid")).unwrap());
            assert_eq!(fs::read_to_string(&precious).unwrap(), "data");
            assert_eq!(scratch.names(), ["precious"]);
        }
    }

    #[test]
    fn a_living_process_keeps_its_file() {
        let scratch = Scratch::new("held");
        let path = scratch.0.join("pid");
        fs::write(&path, "4711\n").unwrap();
        let other = File::open(&path).unwrap();
        let lock = Flock::lock(other, FlockArg::LockExclusiveNonblock).unwrap();

        let error = claim(&path).unwrap_err();
        assert!(
            error.to_string().contains("process 4711 has this"),
            "{error}"
        );
        assert_eq!(scratch.names(), ["pid"]);

        // It dies, and its file is stale.
        drop(lock);
        claim(&path).unwrap().publish().unwrap();
    }

    #[test]
    fn of_two_that_start_together_one_wins() {
        let scratch = Scratch::new("race");
        let path = scratch.0.join("pid");
        let slow = claim(&path).unwrap();
        fs::write(&path, "4711\n").unwrap();
        let other = File::open(&path).unwrap();
        let _lock = Flock::lock(other, FlockArg::LockExclusiveNonblock).unwrap();
        assert!(matches!(slow.publish(), Err(PidFileError::Held { .. })));
        drop(slow);
        assert_eq!(fs::read_to_string(&path).unwrap(), "4711\n");
    }

    #[test]
    fn what_is_no_pid_file_is_left_alone() {
        let scratch = Scratch::new("odd");
        let precious = scratch.0.join("precious");
        fs::write(&precious, "data").unwrap();
        let link = scratch.0.join("link");
        std::os::unix::fs::symlink("precious", &link).unwrap();
        assert!(claim(&link).is_err());
        assert!(claim(&precious).is_err());
        assert!(claim(&scratch.0).is_err());
        assert!(claim(&scratch.0.join("missing/pid")).is_err());
        assert_eq!(fs::read_to_string(&precious).unwrap(), "data");
    }

    /// Who has put a file of its own there meanwhile keeps it.
    #[test]
    fn only_our_own_file_is_removed() {
        let scratch = Scratch::new("own");
        let path = scratch.0.join("pid");
        let file = claim(&path).unwrap();
        file.publish().unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "other\n").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "other\n");
    }
}
