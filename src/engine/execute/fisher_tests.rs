//! What gradients say of the divergence, against the divergence itself.

use super::imatrix_tests::{llama, planned};
use super::*;
use crate::calibrate::{Descent, Pace, Source, Stash};
use crate::kernels::random::Random;
use crate::models::network_of;
use crate::network::{Batch, Network, State, Weights, read_all, with_values};
use crate::observe::Silent;
use crate::weight::Fisher;
use candle_core::{Device, Tensor};
use std::collections::HashMap;
use std::collections::HashSet;

struct Unhurried;

impl Pace for Unhurried {
    fn at(&self, _part: f64) {}
    fn should_stop(&self) -> bool {
        false
    }
}

const SEQUENCES: [[u32; 12]; 3] = [
    [0, 7, 14, 21, 28, 3, 10, 17, 24, 31, 6, 13],
    [5, 12, 19, 26, 1, 8, 15, 22, 29, 4, 11, 18],
    [9, 9, 30, 2, 2, 16, 23, 30, 27, 20, 25, 0],
];

fn load(network: &dyn Network, source: &dyn Source, names: &[String]) -> Weights {
    let mut weights = Compute::cpu().weights();
    for name in names {
        source
            .load(name, network.stored_transposed(name), &mut weights)
            .unwrap();
    }
    weights
}

/// Log-probabilities of every token's successor, with one tensor replaced.
fn answers(network: &dyn Network, source: &dyn Source, other: Option<(&str, &Tensor)>) -> Vec<Vec<f64>> {
    let put = |mut weights: Weights| {
        if let Some((name, tensor)) = other.filter(|(name, _)| weights.maybe(name).is_some()) {
            weights.replace(name, tensor).unwrap();
        }
        weights
    };
    let compute = Compute::cpu();
    let mut rows = Vec::new();
    for ids in &SEQUENCES {
        let batch = Batch::new(&[ids]);
        let weights = put(load(network, source, &network.embed_tensors()));
        let mut hidden = network.embed(&compute.run(&batch, &weights)).unwrap();
        for block in 0..network.sizes().blocks {
            let mut names = network.block_tensors(block);
            let cuts = network.cuts(block);
            names.extend(
                cuts.iter()
                    .flat_map(|c| c.readers.iter().map(|r| r.tensor.clone())),
            );
            let weights = put(load(network, source, &names));
            let mut state = State::between(hidden);
            for at in 0..=cuts.len() {
                state = network
                    .advance(block, at, state, &compute.run(&batch, &weights))
                    .unwrap();
            }
            hidden = state.hidden;
        }
        let weights = put(load(network, source, &network.head_tensors()));
        let logits = network.head(&hidden, &compute.run(&batch, &weights)).unwrap();
        let vocab = logits.dims()[1];
        with_values(&logits, |values| {
            for row in values.chunks(vocab) {
                let sum: f64 = row.iter().map(|v| f64::from(*v).exp()).sum();
                rows.push(row.iter().map(|v| f64::from(*v) - sum.ln()).collect());
            }
        })
        .unwrap();
    }
    rows
}

fn divergence(p: &[Vec<f64>], q: &[Vec<f64>]) -> f64 {
    let row = |(p, q): (&Vec<f64>, &Vec<f64>)| p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
    p.iter().zip(q).map(row).sum::<f64>() / p.len() as f64
}

/// Mean over labels drawn with several seeds.
fn fisher(network: &dyn Network, source: &dyn Source, name: &str, scratch: &Path) -> Fisher {
    const SEEDS: u64 = 48;
    let sequences: Vec<Vec<u32>> = SEQUENCES.iter().map(|ids| ids.to_vec()).collect();
    let mut all: HashMap<String, Fisher> = HashMap::new();
    for seed in 0..SEEDS {
        let descent = Descent {
            network,
            source,
            pace: &Unhurried,
            compute: Compute::cpu(),
            sequences: &sequences,
            all_experts: true,
            each: false,
            on_data: false,
            seed,
        };
        let wanted = HashSet::from([name]);
        descent
            .run(&wanted, Stash::new(scratch, 1 << 14), &mut |name, fisher| {
                let sum = all.entry(name.to_owned()).or_default();
                sum.rows.resize(fisher.rows.len(), 0.0);
                sum.cols.resize(fisher.cols.len(), 0.0);
                let add = |sum: &mut Vec<f32>, more: Vec<f32>| {
                    sum.iter_mut().zip(more).for_each(|(s, v)| *s += v / SEEDS as f32);
                };
                add(&mut sum.rows, fisher.rows);
                add(&mut sum.cols, fisher.cols);
                Ok(())
            })
            .unwrap();
    }
    all.remove(name).unwrap()
}

/// Small changes without a pattern, in every part of the model that has weights of its own: the divergence they cause is
/// what the gradients said.
#[test]
fn a_small_change_costs_what_the_gradients_say() {
    let folder = tempfile::tempdir().unwrap();
    let model = llama(folder.path());
    let network = network_of(&model).unwrap();
    let network = network.as_ref();
    let datasets = Datasets::new();
    let plan = planned(
        &json!({"preset": "BF16", "formats": ["safetensors"]}),
        &model,
        &datasets,
    )
    .unwrap();
    let made = Made::new(&plan, &model, folder.path());
    let source = made.before(0, &Silent);
    let original = answers(network, &source, None);
    for name in [
        "lm_head.weight",
        "model.layers.1.mlp.down_proj.weight",
        "model.layers.1.self_attn.q_proj.weight",
        "model.layers.0.self_attn.v_proj.weight",
        "model.layers.0.mlp.gate_proj.weight",
        "model.embed_tokens.weight",
    ] {
        let fisher = fisher(network, &source, name, folder.path());
        let info = model.tensors.iter().find(|t| t.name == name).unwrap();
        let values = read_all(&model.rows(info).unwrap()).unwrap();
        let mut random = Random::new(11);
        let (mut said, mut seen) = (0.0, 0.0);
        for _ in 0..40 {
            let step = 0.002f32;
            let signs: Vec<f32> = values
                .iter()
                .map(|_| if random.below(2) == 0 { -step } else { step })
                .collect();
            let changed: Vec<f32> = values.iter().zip(&signs).map(|(v, s)| v + s).collect();
            let tensor = Tensor::from_vec(changed, info.shape.as_slice(), &Device::Cpu).unwrap();
            seen += divergence(&original, &answers(network, &source, Some((name, &tensor))));
            said += fisher.loss(0..fisher.rows.len(), &signs);
        }
        let ratio = seen / said;
        assert!((0.75..1.33).contains(&ratio), "{name}: {seen} seen, {said} said");
    }
}

/// What the data's own tokens cost changes with a weight as its gradient says: squares are kept sequence by sequence.
#[test]
fn gradients_on_data_are_those_of_its_loss() {
    let folder = tempfile::tempdir().unwrap();
    let model = llama(folder.path());
    let network = network_of(&model).unwrap();
    let network = network.as_ref();
    let recipe = json!({"preset": "BF16", "formats": ["safetensors"]});
    let plan = planned(&recipe, &model, &Datasets::new()).unwrap();
    let made = Made::new(&plan, &model, folder.path());
    let source = made.before(0, &Silent);
    let name = "model.layers.1.mlp.down_proj.weight";
    let sequences: Vec<Vec<u32>> = SEQUENCES.iter().map(|ids| ids.to_vec()).collect();
    let descent = Descent {
        network,
        source: &source,
        pace: &Unhurried,
        compute: Compute::cpu(),
        sequences: &sequences,
        all_experts: true,
        each: true,
        on_data: true,
        seed: 0,
    };
    let mut each = Vec::new();
    descent
        .run(
            &HashSet::from([name]),
            Stash::new(folder.path(), 1 << 14),
            &mut |_, fisher| {
                each = fisher.each.unwrap();
                Ok(())
            },
        )
        .unwrap();
    let info = model.tensors.iter().find(|t| t.name == name).unwrap();
    let values = read_all(&model.rows(info).unwrap()).unwrap();
    // The loss of each sequence.
    let losses = |values: Vec<f32>| -> Vec<f64> {
        let tensor = Tensor::from_vec(values, info.shape.as_slice(), &Device::Cpu).unwrap();
        let rows = answers(network, &source, Some((name, &tensor)));
        let of = |(rows, ids): (&[Vec<f64>], &[u32; 12])| {
            let next = rows.iter().zip(&ids[1..]);
            next.map(|(row, id)| -row[*id as usize]).sum()
        };
        rows.chunks(12).zip(&SEQUENCES).map(of).collect()
    };
    let largest = (0..each.len())
        .max_by(|a, b| each[*a].total_cmp(&each[*b]))
        .unwrap();
    for at in [largest, 3, 57] {
        let moved = |by: f32| {
            let mut values = values.clone();
            values[at] += by;
            losses(values)
        };
        let slopes = moved(0.02)
            .into_iter()
            .zip(moved(-0.02))
            .map(|(up, down)| (up - down) / 0.04);
        let squares: f64 = slopes.map(|slope| slope * slope).sum::<f64>() / 36.0;
        let said = f64::from(each[at]);
        assert!(
            (said / squares - 1.0).abs() < 0.1,
            "{at}: {said} said, {squares} seen"
        );
    }
}
