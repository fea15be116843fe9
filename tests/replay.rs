//! What the fuzz targets do, on their seeds and on what is left of them after a few cuts and changed bytes: quick enough
//! for every run of the tests. `tests/fuzz/run.sh` looks for longer; an input that it fails on becomes a seed.

#![expect(
    clippy::expect_used,
    reason = "a test stops at the first surprise, in helpers too"
)]

#[path = "fuzz/files.rs"]
mod files;
#[path = "fuzz/server.rs"]
mod server;

use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Changed copies of each seed.
const COPIES: u64 = 40;
/// Nothing this small may take this long, on a busy machine and unoptimised.
const PATIENCE: Duration = Duration::from_secs(20);

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/seeds")
        .join(target);
    let mut seeds: Vec<(String, Vec<u8>)> = std::fs::read_dir(&folder)
        .expect("seeds")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read(path).expect("readable"))
        })
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "{target}");
    seeds
}

/// Cut short, a few bytes changed, or a piece of it twice.
fn changed(seed: &[u8], chance: &mut StdRng) -> Vec<u8> {
    let mut copy = seed.to_vec();
    let at = |chance: &mut StdRng, length: usize| chance.random_range(0..length.max(1));
    match chance.random_range(0..3) {
        0 => copy.truncate(at(chance, seed.len())),
        1 => {
            for _ in 0..chance.random_range(1..6) {
                let place = at(chance, copy.len());
                if let Some(byte) = copy.get_mut(place) {
                    *byte = *[0, 1, 0x7f, 0x80, 0xff, b'"', b'9', b'-']
                        .get(at(chance, 8))
                        .expect("one of eight");
                }
            }
        }
        _ => {
            let (begin, end) = (at(chance, seed.len()), at(chance, seed.len()));
            copy.extend_from_slice(seed.get(begin.min(end)..begin.max(end)).expect("inside"));
        }
    }
    copy
}

fn replay(target: &str, run: fn(&[u8])) {
    for (name, seed) in seeds(target) {
        let mut chance = StdRng::seed_from_u64(7);
        for number in 0..=COPIES {
            let input = if number == 0 {
                seed.clone()
            } else {
                changed(&seed, &mut chance)
            };
            let begun = Instant::now();
            run(&input);
            assert!(
                begun.elapsed() < PATIENCE,
                "{target}/{name}, copy {number}: {:?}",
                begun.elapsed()
            );
        }
    }
}

macro_rules! targets {
    ($($module:ident: $($target:ident)*;)*) => {
        $($(#[test]
        fn $target() {
            replay(stringify!($target), $module::$target);
        })*)*

        #[test]
        fn every_target_is_replayed() {
            let listed = include_str!("fuzz/targets.rs").matches("    (\"").count();
            assert_eq!(listed, [$($(stringify!($target)),*),*].len());
        }
    };
}

targets! {
    files: arrays config gguf imatrix imatrix_dat index jsonl npy recipe recipe_plan safetensors tokenizer txt;
    server: cursor headers http json key range;
}
