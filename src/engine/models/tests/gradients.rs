//! Gradients reach every linear layer of every family, and both forms of operations give the same.

use super::{golden, load, names_of, open, run};
use crate::checkpoint::Checkpoint;
use crate::models::network_of;
use crate::network::{Batch, Network, Ops, State, Weights};
use candle_core::{Tensor, Var};

/// Weights in which the named ones can be differentiated by.
fn with_vars(mut weights: Weights, names: &[String]) -> (Weights, Vec<Var>) {
    let mut vars = Vec::new();
    for name in names {
        let var = Var::from_tensor(weights.get(name).unwrap()).unwrap();
        weights.put(name, var.as_tensor(), None).unwrap();
        vars.push(var);
    }
    (weights, vars)
}

fn largest(x: &Tensor) -> f32 {
    let x = x.abs().unwrap().flatten_all().unwrap();
    x.max(0).unwrap().to_scalar::<f32>().unwrap()
}

/// Gradients of what the head answers by the linears of the last block; none for an expert that no token visits.
fn gradients_of(model: &Checkpoint, network: &dyn Network, ops: Ops) -> Vec<(String, Option<Tensor>)> {
    let last = network.sizes().blocks - 1;
    let batch = Batch::new(&[&[5, 6, 7, 8, 9, 10], &[11, 12, 13]]);
    let embedding = load(model, network, &network.embed_tensors());
    let mut state = State::between(network.embed(&run(&batch, &embedding, ops)).unwrap());
    let (linears, rest) = names_of(network, last);
    let (weights, vars) = with_vars(load(model, network, &[linears.clone(), rest].concat()), &linears);
    for at in 0..=network.cuts(last).len() {
        state = network
            .advance(last, at, state, &run(&batch, &weights, ops))
            .unwrap();
    }
    let head = load(model, network, &network.head_tensors());
    let out = network.head(&state.hidden, &run(&batch, &head, ops)).unwrap();
    let first = out.narrow(1, 0, 2).unwrap().sqr().unwrap().sum_all().unwrap();
    let gradients = first.backward().unwrap();
    let of = |(name, var): (String, &Var)| (name, gradients.get(var.as_tensor()).cloned());
    linears.into_iter().zip(&vars).map(of).collect()
}

#[test]
fn they_reach_every_linear_from_the_head() {
    for case in golden()["cases"].as_array().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        let model = open(case, folder.path());
        let network = network_of(&model).unwrap();
        let composed = gradients_of(&model, network.as_ref(), Ops::Composed);
        let fused = gradients_of(&model, network.as_ref(), Ops::Fused);
        for ((name, composed), (_, fused)) in composed.into_iter().zip(fused) {
            let (Some(composed), Some(fused)) = (composed, fused) else {
                assert!(name.contains("experts."), "{name}");
                continue;
            };
            let size = largest(&composed);
            assert!(size.is_finite() && size > 0.0, "{name}: {size}");
            let gap = largest(&(composed - fused).unwrap());
            assert!(gap < 1e-3 * size, "{name}: {gap} of {size}");
        }
    }
}
