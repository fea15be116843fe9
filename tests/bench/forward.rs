//! The forward pass: logits of every token of a text, on the model in `MODEL`, for pairing with another engine
//! (`tests/interop/bench_forward.py` does). Run with
//! `MODEL=DIR TEXT=FILE cargo bench --bench forward`; `WINDOWS=40` and `LENGTH=1024` change the work.
//!
//! Prints one JSON line: seconds, tokens a second, GFLOP/s of the matrix products, and the perplexity that shows that
//! the work was done.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench reports to people and stops at the first surprise"
)]

#[path = "../support/walk.rs"]
mod walk;

use std::path::Path;
use std::time::Instant;

use modelpress_engine::calibrate::{Choice, Source, Stash, Walk, sequences};
use modelpress_engine::dataset::Dataset;
use modelpress_engine::models::network_of;
use modelpress_engine::network::{Compute, Network};
use modelpress_engine::{SourceFile, inspect};
use walk::{Plain, Through};

/// Tokens whose logits are in memory together.
const ROWS: usize = 256;

fn setting(name: &str, default: usize) -> usize {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn path(name: &str) -> String {
    std::env::var(name).expect("MODEL and TEXT are set")
}

/// Logits of every token; the summed loss of the first sequence.
fn head(network: &dyn Network, walk: &Walk<'_>, source: &Plain<'_>, first: &[u32]) -> f64 {
    let compute = Compute::cpu();
    let mut weights = compute.weights();
    for name in network.head_tensors() {
        let transposed = network.stored_transposed(&name);
        source.load(&name, transposed, &mut weights).expect("loads");
    }
    let mut loss = 0.0;
    for index in 0..walk.batches() {
        let (batch, hidden) = walk.hidden(index).expect("states");
        let run = compute.run(batch, &weights);
        for from in (0..batch.tokens()).step_by(ROWS) {
            let rows = ROWS.min(batch.tokens() - from);
            let hidden = hidden
                .narrow(0, from, rows)
                .expect("rows")
                .contiguous()
                .expect("rows");
            let logits = network.head(&hidden, &run).expect("a head");
            if index == 0 {
                for row in (0..rows).filter(|row| from + row + 1 < first.len()) {
                    let values: Vec<f32> = logits.get(row).and_then(|r| r.to_vec1()).expect("values");
                    let sum: f64 = values.iter().map(|v| f64::from(*v).exp()).sum();
                    loss += sum.ln() - f64::from(values[first[from + row + 1] as usize]);
                }
            }
        }
    }
    loss
}

fn main() {
    let model = SourceFile::from_path(Path::new(&path("MODEL"))).expect("files");
    let model = inspect(&model).expect("a model");
    let text = SourceFile::from_path(Path::new(&path("TEXT"))).expect("a file");
    let text = Dataset::open(&text).expect("a text");
    let network = network_of(&model).expect("runs");
    let network = network.as_ref();
    let choice = Choice {
        num_samples: setting("WINDOWS", 40),
        max_seq_length: setting("LENGTH", 1024),
        shuffle: false,
        seed: 0,
        whole_rows: false,
    };
    let ids = sequences(&model, &text, choice, network.sizes().vocab)
        .expect("windows")
        .ids;
    let tokens: usize = ids.iter().map(Vec::len).sum();
    let scratch = tempfile::tempdir().expect("a folder");
    let source = Plain(&model);
    let begun = Instant::now();
    let stash = Stash::new(scratch.path(), 1 << 31);
    let mut walk = Walk::start(network, &source, &Through, &ids, Compute::cpu(), stash).expect("embeds");
    for block in 0..walk.blocks() {
        walk.block(block, &mut Through).expect("a block");
    }
    let body = begun.elapsed().as_secs_f64();
    let loss = head(network, &walk, &source, &ids[0]);
    let seconds = begun.elapsed().as_secs_f64();
    let matrices = model.tensors.iter().filter(|t| t.shape.len() == 2);
    let weights: usize = matrices.map(|t| t.shape.iter().product::<usize>()).sum();
    let perplexity = (loss / (ids[0].len() - 1) as f64).exp();
    println!(
        "{{\"windows\": {}, \"tokens\": {tokens}, \"seconds\": {seconds:.2}, \"body_seconds\": {body:.2}, \
         \"gflops\": {:.1}, \"perplexity\": {perplexity:.4}}}",
        ids.len(),
        2e-9 * (weights * tokens) as f64 / seconds,
    );
}
