//! What has to be made before the crate is compiled: nothing on Linux, and on
//! FreeBSD nothing yet. The back ends that talk to FreeBSD's kernel need the
//! headers that `wrapper.h` lists; this is where they will be bound.

fn main() {
    // Without a word, any changed file would have this run again.
    println!("cargo::rerun-if-changed=build.rs");
}
