//! The counts that are to be kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use bed::{Error, Result};
use serde::{Deserialize, Serialize};

/// For one frame.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Count {
    /// Instructions of the program's own code.
    pub instructions: f64,
    /// Calls of what is not, such as memcpy(3).
    pub calls: f64,
}

impl Count {
    /// As many digits as are written down.
    fn rounded(self) -> Self {
        let hundredths = |value: f64| (value * 100.0).round() / 100.0;
        Self {
            instructions: hundredths(self.instructions),
            calls: hundredths(self.calls),
        }
    }
}

/// Of each way, by its name.
type Counts = BTreeMap<String, Count>;

/// The file, and this compiler's part of it: each makes other code.
pub struct Baseline {
    all: BTreeMap<String, Counts>,
    compiler: String,
}

impl Baseline {
    /// Reads the file.
    ///
    /// # Errors
    /// It is not there or something else, or there is no compiler.
    pub fn read() -> Result<Self> {
        let path = path();
        let wrong = |error: Error| error.while_doing(path.display());
        let text = fs::read_to_string(&path).map_err(|error| wrong(error.into()))?;
        let all = serde_json::from_str(&text);
        let all = all.map_err(|error| wrong(Error::new(error.to_string())))?;
        let compiler = compiler()?;
        Ok(Self { all, compiler })
    }

    /// This compiler, and what it makes code for.
    pub fn compiler(&self) -> &str {
        &self.compiler
    }

    /// There are counts of this compiler.
    pub fn is_there(&self) -> bool {
        self.all.contains_key(&self.compiler)
    }

    /// What a way is to have.
    pub fn of(&self, way: &str) -> Option<Count> {
        self.all.get(&self.compiler)?.get(way).copied()
    }

    /// What it is to have from now on.
    pub fn set(&mut self, way: &str, count: Count) {
        let counts = self.all.entry(self.compiler.clone()).or_default();
        counts.insert(way.to_owned(), count.rounded());
    }

    /// Writes the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.all);
        let text = text.map_err(|error| Error::new(error.to_string()))?;
        let path = path();
        fs::write(&path, text + "\n")
            .map_err(|error| Error::from(error).while_doing(path.display()))?;
        println!("{}", path.display());
        Ok(())
    }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/instructions/baseline.json")
}

/// The compiler that has made this program, for it is the one that cargo takes
/// here.
fn compiler() -> Result<String> {
    let mut rustc = Command::new("rustc");
    let output = rustc.arg("-vV").current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = output
        .output()
        .map_err(|error| Error::from(error).while_doing("rustc -vV"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let value = |name| text.lines().find_map(|line| line.strip_prefix(name));
    match (value("release: "), value("host: ")) {
        (Some(release), Some(host)) => Ok(format!("{release}, {host}")),
        _ => Err(Error::new("rustc -vV: names no release")),
    }
}
