//! Every technique on every family that runs: a model that computes something, or a reason when it is planned.

use super::laws::specimen;
use super::*;
use crate::models::tests::golden;
use crate::techniques::TECHNIQUES;
use std::collections::BTreeMap;

/// Which techniques say no to how many of the 28 models, by code; all others run. Those that change a structure need one that
/// their architecture can write down: heads of BERT and GPT-2 are as wide as the model is, experts are Mixtral's.
const REFUSED: &[(&str, &str, usize)] = &[
    ("autoround", "group_size_does_not_divide", 1),
    ("autoround", "stored_transposed", 3),
    ("awq", "group_size_does_not_divide", 1),
    ("awq", "no_feeders", 8),
    ("awq", "stored_transposed", 3),
    ("cp", "no_targets", 28),
    ("depthwise_separable", "no_targets", 28),
    ("gptq", "group_size_does_not_divide", 1),
    ("gptq", "stored_transposed", 3),
    ("gqa", "bad_groups", 1),
    ("gqa", "no_such_structure", 11),
    ("hadamard", "no_rotatable_residual", 11),
    ("hqq", "group_size_does_not_divide", 1),
    ("kv_cache", "format_cannot_hold", 17),
    ("kv_cache", "no_kv_cache", 11),
    ("lqer", "stored_transposed", 3),
    ("moefication", "no_such_structure", 21),
    ("prune_blocks", "mixed_structure", 2),
    ("prune_experts", "no_such_structure", 25),
    ("prune_heads", "no_such_structure", 11),
    ("prune_heads", "nothing_to_cut", 1),
    ("prune_hidden", "no_such_structure", 11),
    ("prune_neurons", "mixed_structure", 2),
    ("rtn", "group_size_does_not_divide", 1),
    ("share_blocks", "mixed_structure", 1),
    ("smoothquant", "no_feeders", 8),
    ("spatial_svd", "no_targets", 28),
    ("static_activations", "no_quantized_activations", 3),
    ("tensor_train", "no_targets", 28),
    ("tucker", "no_targets", 28),
    ("upcycle", "no_such_structure", 21),
    ("whitened_svd", "stored_transposed", 3),
];

/// Families that a technique refused with a code.
type Refused = BTreeMap<(&'static str, &'static str), Vec<String>>;

fn try_on(case: &Value, refused: &mut Refused) {
    let family = case["name"].as_str().unwrap();
    let small = Small::of(case, |_, _| {});
    let data = small.data(&rows(14));
    for technique in TECHNIQUES {
        let name = technique.name();
        let recipe = specimen(name).recipe(name, "safetensors", &small);
        match small.plan(&recipe, &data) {
            Ok(_) => {
                let (made, outcome) = small.made(&recipe, &data, "safetensors");
                assert!(outcome.report.warnings.len() < 9, "{name} on {family}");
                let logits = logits(&made, case);
                assert!(logits.iter().all(|x| x.is_finite()), "{name} on {family}");
                assert!(!logits.is_empty(), "{name} on {family}");
            }
            Err(refusals) => {
                let code = refusals[0].code;
                println!(
                    "{name} on {family}: {code} {} {}",
                    refusals[0].pointer, refusals[0].detail
                );
                refused.entry((name, code)).or_default().push(family.to_owned());
            }
        }
    }
}

#[test]
fn every_technique_runs_on_every_family_or_says_why_not() {
    let mut refused = Refused::new();
    for case in golden()["cases"].as_array().unwrap() {
        try_on(case, &mut refused);
    }
    for ((technique, code), families) in &refused {
        println!("{technique} {code}: {}", families.join(" "));
    }
    let found = refused
        .iter()
        .map(|(what, families)| (what.0, what.1, families.len()));
    assert_eq!(found.collect::<Vec<_>>(), REFUSED);
}
