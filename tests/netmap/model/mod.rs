//! Random requests, syncs and ring contents, valid and hostile, on the core and
//! on a simple model of it: no step may tell them apart.
//!
//! | module | job |
//! | --- | --- |
//! | [`steps`] | what can happen |
//! | [`likely`] | how likely it is |
//! | [`world`] | does it on both sides, with [`client`], [`register`], [`asks`] |
//! | [`compare`] | compares them |
//! | [`real`] | the core, as a client sees it |
//! | [`state`] | the model: what there is |
//! | [`ports`] | whom a name means, and who may bind what |
//! | [`requests`] | the other requests, and poll(2) |
//! | [`ring`] | what a sync does |
//! | [`switch`], [`forward`] | who gets a frame |
//! | [`region`] | memory |
//!
//! The model knows nothing of threads, locks and leases: everything happens at
//! once. What exists is what somebody needs (`sweep`), not what is counted.
//!
//! A run is a number of steps from a fresh core to its end, when nothing may be
//! left. `VTNETD_MODEL_STEPS` says how many steps there are in all, and
//! `VTNETD_MODEL_SEED` where to begin: the seed of a run that fails is printed
//! with the fewest steps that fail the same way.

mod asks;
mod client;
mod compare;
mod forward;
mod likely;
mod ports;
mod real;
mod region;
mod register;
mod requests;
mod ring;
mod state;
mod steps;
mod switch;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::collection::vec;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use likely::step;
use steps::Step;
use world::World;

/// Most steps of one run.
const RUN: usize = 1000;
/// Everything is compared after so many steps, not what they touched alone.
const OFTEN: usize = 32;

fn number(variable: &str, default: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.map_or(default, |text| text.parse().unwrap())
}

/// The steps of one run.
fn steps(seed: u64) -> Vec<Step> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    vec(step(), RUN).new_tree(&mut runner).unwrap().current()
}

/// Does all steps, and compares everything after so many; which step differs,
/// and how.
fn run(steps: &[Step], often: usize) -> Result<(), (usize, String)> {
    let mut at = 0;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new();
        for step in steps {
            world.apply(step)?;
            at += 1;
            if at % often == 0 {
                world.compare_all()?;
            }
        }
        world.end()
    }));
    let outcome = outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!("panic: {}", text.unwrap_or_default()))
    });
    outcome.map_err(|error| (at, error))
}

/// Leaves steps away as long as it still fails: many at once first, then fewer.
fn shrink(mut steps: Vec<Step>, failure: (usize, String)) -> (Vec<Step>, String) {
    let (mut at, mut error) = run(&steps, 1).err().unwrap_or(failure);
    let mut chunk = steps.len();
    while chunk > 0 {
        let mut from = 0;
        while from < steps.len() {
            steps.truncate(at + 1);
            let mut fewer = steps.clone();
            fewer.drain(from.min(fewer.len())..(from + chunk).min(fewer.len()));
            match run(&fewer, 1) {
                Err(failure) if fewer.len() < steps.len() => {
                    (steps, (at, error)) = (fewer, failure);
                }
                _ => from += chunk,
            }
        }
        chunk /= 2;
    }
    (steps, error)
}

#[test]
fn no_step_tells_the_core_and_its_model_apart() {
    let all = number("VTNETD_MODEL_STEPS", 200_000);
    let first = number("VTNETD_MODEL_SEED", 1);
    for seed in first..first + all.div_ceil(RUN as u64) {
        let steps = steps(seed);
        if let Err(failure) = run(&steps, OFTEN) {
            let (fewest, error) = shrink(steps, failure);
            let fewest: Vec<String> = fewest.iter().map(|step| format!("{step:?}")).collect();
            panic!("{}\nVTNETD_MODEL_SEED={seed}: {error}", fewest.join("\n"));
        }
    }
}
