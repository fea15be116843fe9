//! What the head of a model makes of sequences.

use modelpress_engine::Checkpoint;
use modelpress_engine::calibrate::{Source, Stash, Walk};
use modelpress_engine::models::network_of;
use modelpress_engine::network::Compute;

use crate::walk::{Plain, Through};

/// One row a sequence, or one a token.
pub(super) fn answers(model: &Checkpoint, sequences: &[Vec<u32>]) -> Vec<Vec<f32>> {
    let network = network_of(model).expect("runs");
    let network = network.as_ref();
    let scratch = tempfile::tempdir().expect("a folder");
    let (source, stash) = (Plain(model), Stash::new(scratch.path(), 1 << 30));
    let compute = Compute::cpu();
    let mut walk =
        Walk::start(network, &source, &Through, sequences, compute.clone(), stash).expect("embeds");
    for block in 0..walk.blocks() {
        walk.block(block, &mut Through).expect("a block");
    }
    let mut weights = compute.weights();
    for name in network.head_tensors() {
        let transposed = network.stored_transposed(&name);
        source.load(&name, transposed, &mut weights).expect("the head");
    }
    let mut rows = Vec::new();
    for batch in 0..walk.batches() {
        let (batch, hidden) = walk.hidden(batch).expect("states");
        let run = compute.run(batch, &weights);
        let answer = network.head(&hidden, &run).expect("a head").to_vec2::<f32>();
        rows.extend(answer.expect("rows"));
    }
    rows
}
