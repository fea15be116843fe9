//! Gradients of composed operations reach every linear layer of every family.

use super::{golden, load, names_of, open, run};
use crate::models::network_of;
use crate::network::{Batch, Ops, State, Weights};
use candle_core::{Tensor, Var};

/// Weights in which the named ones can be differentiated by.
fn with_vars(mut weights: Weights, names: &[String]) -> (Weights, Vec<Var>) {
    let mut vars = Vec::new();
    for name in names {
        let var = Var::from_tensor(weights.get(name).unwrap()).unwrap();
        weights.put(name, var.as_tensor().clone(), None);
        vars.push(var);
    }
    (weights, vars)
}

fn largest(x: &Tensor) -> f32 {
    let x = x.abs().unwrap().flatten_all().unwrap();
    x.max(0).unwrap().to_scalar::<f32>().unwrap()
}

#[test]
fn they_reach_every_linear_from_the_head() {
    for case in golden()["cases"].as_array().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        let model = open(case, folder.path());
        let network = network_of(&model).unwrap();
        let network = network.as_ref();
        let last = network.sizes().blocks - 1;
        let batch = Batch::new(&[&[5, 6, 7, 8, 9, 10], &[11, 12, 13]]);
        let composed = Ops::Composed;
        let embedding = load(&model, network, &network.embed_tensors());
        let mut state = State::between(network.embed(&run(&batch, &embedding, composed)).unwrap());
        let (linears, rest) = names_of(network, last);
        let (weights, vars) = with_vars(load(&model, network, &[linears.clone(), rest].concat()), &linears);
        for at in 0..=network.cuts(last).len() {
            state = network
                .advance(last, at, state, &run(&batch, &weights, composed))
                .unwrap();
        }
        let head = load(&model, network, &network.head_tensors());
        let out = network
            .head(&state.hidden, &run(&batch, &head, composed))
            .unwrap();
        let first = out.narrow(1, 0, 2).unwrap().sqr().unwrap().sum_all().unwrap();
        let gradients = first.backward().unwrap();
        for (name, var) in linears.iter().zip(&vars) {
            // An expert that no token visits has none.
            let gradient = gradients.get(var.as_tensor()).map(largest);
            let fine = gradient.is_some_and(|g| g.is_finite() && g > 0.0);
            assert!(fine || name.contains("experts."), "{name}: {gradient:?}");
        }
    }
}
