//! Where the programs under test are.

use std::env;
use std::path::{Path, PathBuf};

/// The program that was built as `built`, which is what
/// `env!("CARGO_BIN_EXE_…")` says: the one of that name in the directory that
/// `VTNETD_BIN` names, or else beside the test's own executable, for on the
/// machine that runs a test nothing may have been built; or else `built`.
pub fn program(built: &str) -> PathBuf {
    let built = Path::new(built);
    let Some(name) = built.file_name() else {
        return built.to_owned();
    };
    if let Some(directory) = env::var_os("VTNETD_BIN") {
        return Path::new(&directory).join(name);
    }
    let here = env::current_exe().ok();
    let beside = here.map(|test| test.with_file_name(name));
    beside
        .filter(|program| program.is_file())
        .unwrap_or_else(|| built.to_owned())
}
