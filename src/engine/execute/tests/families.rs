//! Every technique on every family that runs: a model that computes something, or a reason when it is planned.

use super::laws::specimen;
use super::*;
use crate::models::tests::golden;
use crate::techniques::TECHNIQUES;
use std::collections::BTreeMap;

/// What a technique that fits no tensor of a family, or none of its structure, may say.
const REASONS: &[&str] = &[];

/// Codes of refusals, by technique, with the families that got them.
type Refused = BTreeMap<String, Vec<String>>;

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
                println!("{name} on {family}: {code} {} {}", refusals[0].pointer, refusals[0].detail);
                let of = refused.entry(format!("{name} {code}")).or_default();
                of.push(family.to_owned());
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
    for (what, families) in &refused {
        println!("{what}: {}", families.join(" "));
    }
    let codes = refused.keys().map(|what| what.split_once(' ').unwrap().1);
    for code in codes {
        assert!(REASONS.contains(&code), "{code}");
    }
}
