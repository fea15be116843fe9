//! Fuzz targets for everything that reads what a stranger sent. One program: `FUZZ_TARGET` names the target.
//!
//! A target finds a panic, an overflow, an allocation out of all proportion, or an input that takes too long. What it
//! makes of a good input is not its business; tests look at that. `run.sh` builds and runs them.

#![no_main]

mod files;
mod memory;
mod server;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

/// A target and what it does with one input.
type Target = (&'static str, fn(&[u8]));

const TARGETS: &[Target] = &[
    ("arrays", files::arrays),
    ("config", files::config),
    ("gguf", files::gguf),
    ("imatrix", files::imatrix),
    ("imatrix_dat", files::imatrix_dat),
    ("index", files::index),
    ("jsonl", files::jsonl),
    ("npy", files::npy),
    ("recipe", files::recipe),
    ("recipe_plan", files::recipe_plan),
    ("safetensors", files::safetensors),
    ("tokenizer", files::tokenizer),
    ("txt", files::txt),
    ("cursor", server::cursor),
    ("headers", server::headers),
    ("http", server::http),
    ("json", server::json),
    ("key", server::key),
    ("range", server::range),
];

static CHOSEN: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    match TARGETS.iter().find(|(known, _)| *known == name) {
        Some((_, run)) => *run,
        None => {
            let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            eprintln!("FUZZ_TARGET must be one of: {}", names.join(" "));
            std::process::exit(2);
        }
    }
});

fuzz_target!(|data: &[u8]| {
    let run = *CHOSEN;
    memory::bounded(|| run(data));
});
