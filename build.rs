//! What has to be made before the crate is compiled for FreeBSD: Rust's view of
//! the headers in `wrapper.h`, and the C shim for what is inline there. For
//! other systems nothing is made, and neither libclang nor a C compiler is
//! needed.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

const WRAPPER: &str = "wrapper.h";
const SHIM: &str = "src/ffi/shim.c";
/// What `wrapper.h` puts before the names that it gives a value.
const NUMBER: &str = "vtnetd_number_";

/// Structures that the back ends and the opener fill or read.
const TYPES: &[&str] = &[
    "netmap_(if|ring|slot)",
    "nmreq_(header|register|port_hdr)",
    "nm_desc",
    "ifreq|ifgroupreq|ifg_req",
    "ng_mesg|ngm_connect|nodeinfo",
];

const FUNCTIONS: &[&str] = &["vtnetd_.*", "Ng(MkSockNode|SendMsg|RecvMsg)"];

/// Numbers; of an enum that one of them is in, all come. What capsicum(4) has
/// is the business of the crate of that name.
const CONSTANTS: &[&str] = &[
    "vtnetd_number_.*",
    "NETMAP_(API|REQ_REGISTER|REQ_PORT_HDR_(GET|SET))",
    "NR_(ACCEPT_VNET_HDR|NO_TX_POLL|REG_.*)",
    "IFF_PPROMISC|TAPMRU",
    "NG_(HOOK|NODE|PATH)SIZ",
    "NGF_RESP|NGM_(GENERIC|SOCKET)_COOKIE",
    "NGM_(CONNECT|NODEINFO|SHUTDOWN|SOCK_CMD_NOLINGER)",
];

/// Headers, by the beginnings of their names, and the package of FreeBSD's
/// base system that has them; the first that fits counts.
const PACKAGES: &[(&str, &str)] = &[
    ("netgraph.h", "FreeBSD-utilities-dev (src: lib/libnetgraph)"),
    ("", "FreeBSD-clibs-dev (src: include and sys)"),
];

#[derive(Debug)]
enum Error {
    /// libclang cannot be loaded.
    NoLibclang,
    /// A header is not there.
    NoHeader(String),
    /// Something else is wrong with the headers.
    Headers(String),
    /// The generated file cannot be written.
    Write(PathBuf, std::io::Error),
    /// The C compiler is missing or fails.
    Shim(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLibclang => write!(
                f,
                "libclang.so: not found; install it (FreeBSD: pkg install llvm; Debian: apt-get install libclang-dev) \
                 or name its directory in LIBCLANG_PATH",
            ),
            Self::NoHeader(name) => {
                let package = PACKAGES
                    .iter()
                    .find(|(beginning, _)| name.starts_with(beginning))
                    .map_or("", |(_, package)| package);
                write!(
                    f,
                    "<{name}>: not found; it is in FreeBSD's base system, in the package {package}; \
                     name another directory of headers in BINDGEN_EXTRA_CLANG_ARGS",
                )
            }
            Self::Headers(why) => write!(f, "{WRAPPER}: {why}"),
            Self::Write(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Shim(why) => write!(
                f,
                "{SHIM}: {why}; cc is in the package FreeBSD-clang (pkg install llvm), CC names another compiler",
            ),
        }
    }
}

/// Takes off what `wrapper.h` puts before names.
#[derive(Debug)]
struct Names;

impl bindgen::callbacks::ParseCallbacks for Names {
    fn item_name(&self, item: bindgen::callbacks::ItemInfo<'_>) -> Option<String> {
        item.name.strip_prefix(NUMBER).map(str::to_owned)
    }
}

fn main() -> ExitCode {
    // Without a word, any changed file would have this run again.
    for file in ["build.rs", WRAPPER, SHIM, "src/ffi/shim.h"] {
        println!("cargo::rerun-if-changed={file}");
    }
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("freebsd") {
        return ExitCode::SUCCESS;
    }
    // bindgen and cc say themselves which other variables they read.
    println!("cargo::rerun-if-env-changed=LIBCLANG_PATH");
    println!("cargo::rustc-link-lib=netgraph");
    match bind().and_then(|()| compile()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

fn bind() -> Result<(), Error> {
    // bindgen would panic where this returns.
    clang_sys::load().map_err(|_| Error::NoLibclang)?;
    let mut builder = bindgen::Builder::default()
        .header(WRAPPER)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .use_core()
        .derive_default(true)
        .layout_tests(true)
        .generate_comments(false)
        .prepend_enum_name(false)
        // The C library's own types are the libc crate's business.
        .allowlist_recursively(true)
        .parse_callbacks(Box::new(
            bindgen::CargoCallbacks::new().rerun_on_header_files(false),
        ))
        .parse_callbacks(Box::new(Names));
    for name in TYPES {
        builder = builder.allowlist_type(name);
    }
    for name in FUNCTIONS {
        builder = builder.allowlist_function(name);
    }
    for name in CONSTANTS {
        builder = builder.allowlist_var(name);
    }
    let bindings = builder.generate().map_err(|error| match error {
        bindgen::BindgenError::ClangDiagnostic(text) => diagnosed(&text),
        other => Error::Headers(one_line(&other.to_string())),
    })?;
    let path = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("freebsd.rs");
    bindings
        .write_to_file(&path)
        .map_err(|error| Error::Write(path, error))
}

/// clang's word for a header that is not there: `fatal error: 'x.h' file not
/// found`.
fn diagnosed(text: &str) -> Error {
    match text.split_once("' file not found") {
        Some((before, _)) => {
            let name = before.rsplit('\'').next().unwrap_or_default();
            Error::NoHeader(name.to_owned())
        }
        None => Error::Headers(one_line(text)),
    }
}

fn compile() -> Result<(), Error> {
    cc::Build::new()
        .file(SHIM)
        .warnings(true)
        .extra_warnings(true)
        .warnings_into_errors(true)
        // netmap_user.h has them in what we do not call.
        .flag_if_supported("-Wno-unused-function")
        .flag_if_supported("-Wno-sign-compare")
        .flag_if_supported("-Wno-unused-parameter")
        .try_compile("vtnetd_shim")
        .map_err(|error| Error::Shim(one_line(&error.to_string())))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
