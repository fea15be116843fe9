//! Mixtures with fewer experts.
//!
//! Owns: its options, what an expert is worth, merging. Must not know: how tokens are routed.
//! Invariant: as many experts stay in every block; what stays is what it was unless others are merged into it.

use super::options::{Options, Planned};
use super::structure::{self, best};
use super::{BlockStage, Blocks, Decision, Maker, Old, Reshapes, Technique, Work};
use crate::calibrate::{Here, Visitor};
use crate::error::{Error, Result};
use crate::kernels::linalg::{Precision, matmul_nt};
use crate::models::structure::{Mixture, mixtures, visited, with_experts};
use crate::network::{Cut, Route, Sizes, State, with_values};
use crate::plan::{Context, Origin, Outline, OutlinedTensor, StagePlan, Taken, TensorPlan, Which};
use crate::recipe::Refusal;
use crate::weight::Weight;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

/// The technique.
pub(super) struct PruneExperts;

impl Technique for PruneExperts {
    fn name(&self) -> &'static str {
        "prune_experts"
    }

    fn summary(&self) -> &'static str {
        "Mixtures with fewer experts, the same number in every block: those go that routers send least to, or that add \
         least to what comes out; or they are merged into those that stay. Lu et al. 2024; Li et al. 2024 (merging); Lasby \
         et al. 2025 (REAP)."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/prune_experts.md")
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {
            "ratio": {"type": "number", "minimum": 0.0, "maximum": 0.99, "default": 0.25, "examples": [0.25],
                "description": "Share of the experts that goes."},
            "keep": {"type": "integer", "minimum": 1, "maximum": 65_536, "examples": [6],
                "description": "Experts that stay in each block, instead of a ratio."},
            "importance": {"type": "string", "enum": ["reap", "frequency"], "default": "reap", "examples": ["reap"],
                "description": "What an expert is worth: the mean size of what it adds for the tokens that visit it, its share counted (reap), or how many tokens visit it (frequency)."},
            "merge": {"type": "boolean", "default": false, "examples": [true],
                "description": "Merge each expert that goes into the one that stays whose router weights are most alike, weighed by their tokens."}}})
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let config = structure::config(context)?;
        let mixtures = mixtures(&structure::parts(context.tensors));
        let refuse = |code: &'static str, detail: String| {
            Err(vec![Refusal::new(context.technique_pointer(), code, detail)])
        };
        let Some(count) = mixtures.first().map(|m| m.count) else {
            let detail =
                "the model has no mixtures of numbered experts: mixtral, qwen2_moe and qwen3_moe have"
                    .to_owned();
            return refuse("no_such_structure", detail);
        };
        if mixtures.iter().any(|m| m.count != count) {
            return refuse(
                "mixed_structure",
                "blocks have different numbers of experts".to_owned(),
            );
        }
        let keep = structure::kept(context, &options, count, 1)?;
        let visits = visited(config).unwrap_or(1);
        if keep < visits {
            let detail = format!("{keep} experts would stay, and every token visits {visits}");
            return refuse("too_few_experts", detail);
        }
        let parts = mixtures
            .iter()
            .flat_map(|m| (0..m.count).flat_map(|e| names(m, e)));
        let parts: Vec<String> = parts.collect();
        structure::check_plain(context, parts.iter().map(String::as_str))?;
        let tensors = outlined(context, &mixtures, keep, options.flag("merge"));
        Ok(Decision {
            outline: Some(Outline {
                config: with_experts(config, keep),
                tensors,
                shared: None,
            }),
            ..Decision::default()
        })
    }

    fn work(&self) -> Work {
        Work::Reshapes(&PruneExperts)
    }
}

fn names(mixture: &Mixture, expert: usize) -> [String; 3] {
    mixture
        .parts
        .clone()
        .map(|pattern| pattern.replace("{}", &expert.to_string()))
}

fn list(layer: usize) -> String {
    format!("experts-{layer}")
}

/// Into which of those that stay each expert goes, and bits of its share.
fn homes(layer: usize) -> String {
    format!("homes-{layer}")
}

fn outlined(context: &Context<'_>, mixtures: &[Mixture], keep: usize, merges: bool) -> Vec<OutlinedTensor> {
    let mut tensors = Vec::new();
    for tensor in context.tensors {
        let mut outlined = structure::whole(tensor);
        let router = mixtures.iter().find(|m| m.router == tensor.name);
        if let (Some(mixture), Origin::Tensor { rows, .. }) = (router, &mut outlined.origin) {
            *rows = Taken::Listed {
                list: list(mixture.layer),
                each: 1,
            };
            outlined.shape[0] = keep;
        }
        let expert = mixtures.iter().find_map(|m| {
            let places = (0..m.count).map(|e| (e, names(m, e)));
            let mut found =
                places.filter_map(|(e, names)| names.iter().position(|n| *n == tensor.name).map(|p| (e, p)));
            found.next().map(|(expert, part)| (m, expert, part))
        });
        match expert {
            None => tensors.push(outlined),
            // The first experts' names stand for those that stay.
            Some((mixture, at, part)) if at < keep => {
                if merges {
                    outlined.origin = Origin::Made;
                } else if let Origin::Tensor { which, .. } = &mut outlined.origin {
                    let pattern = mixture.parts[part].clone();
                    *which = Which::Item {
                        pattern,
                        list: list(mixture.layer),
                        at,
                    };
                }
                tensors.push(outlined);
            }
            Some(_) => {}
        }
    }
    tensors
}

impl Reshapes for PruneExperts {
    fn by_blocks(&self) -> Option<&'static dyn Blocks> {
        Some(&PruneExperts)
    }

    /// An expert with those merged into it.
    fn make(&self, _stage: &StagePlan, tensor: &OutlinedTensor, old: &Old<'_>) -> Result<Vec<f32>> {
        let broken = || Error::internal(format!("nothing makes {}", tensor.name));
        let (before, rest) = tensor.name.split_once(".experts.").ok_or_else(broken)?;
        let (number, part) = rest.split_once('.').ok_or_else(broken)?;
        let at: usize = number.parse().map_err(|_not_a_number| broken())?;
        let layer = before
            .split('.')
            .find_map(|word| word.parse::<usize>().ok())
            .ok_or_else(broken)?;
        let homes = (old.list)(&homes(layer))?;
        let mut sum = vec![0f32; tensor.shape.iter().product()];
        for (expert, home) in homes.chunks_exact(2).enumerate() {
            if home[0] as usize != at {
                continue;
            }
            let share = f32::from_bits(home[1]);
            let values = (old.tensor)(&format!("{before}.experts.{expert}.{part}"))?;
            sum.iter_mut().zip(values).for_each(|(sum, v)| *sum += share * v);
        }
        Ok(sum)
    }
}

impl Blocks for PruneExperts {
    fn visitor<'a>(&self, stage: BlockStage<'a>) -> Box<dyn Maker + 'a> {
        let options = Options::of(&stage.stage.options, self.schema());
        let mixtures = mixtures(&structure::parts(stage.tensors));
        let kept = |m: &Mixture| {
            let outline = stage.stage.outline.as_ref()?;
            outline
                .tensors
                .iter()
                .find(|t| t.name == m.router)?
                .shape
                .first()
                .copied()
        };
        let keep = mixtures.iter().find_map(kept).unwrap_or(0);
        Box::new(Counter {
            stage,
            by_reap: options.text("importance") == "reap",
            merges: options.flag("merge"),
            keep,
            seen: mixtures
                .iter()
                .map(|m| (m.layer, vec![Seen::default(); m.count]))
                .collect(),
            mixtures,
            routes: Vec::new(),
            outs: HashMap::new(),
            lists: Vec::new(),
        })
    }

    /// One expert's output weights, and what it answers for one batch.
    fn working_bytes(&self, _options: &Value, tensors: &[&TensorPlan], sizes: &Sizes, longest: usize) -> u64 {
        let weights: u64 = tensors.iter().map(|t| 4 * t.elements() as u64).max().unwrap_or(0);
        let widest = (sizes.widest * sizes.hidden * 4) as u64;
        weights.max(widest)
            + 4 * (crate::calibrate::batch_tokens(sizes.widest, longest) * sizes.hidden) as u64
    }
}

/// What was seen of an expert.
#[derive(Clone, Copy, Default)]
struct Seen {
    tokens: u64,
    /// Σ share · ‖answer‖.
    added: f64,
}

struct Counter<'a> {
    stage: BlockStage<'a>,
    by_reap: bool,
    merges: bool,
    keep: usize,
    mixtures: Vec<Mixture>,
    seen: BTreeMap<usize, Vec<Seen>>,
    /// Of the batch at hand.
    routes: Vec<Route>,
    /// Output weights of the block at hand.
    outs: HashMap<String, Vec<f32>>,
    lists: Vec<(String, Vec<u32>)>,
}

impl Counter<'_> {
    fn weight(&self, name: &str) -> Result<Vec<f32>> {
        let at = self.stage.tensors.iter().position(|t| t.name == name);
        (self.stage.before)(at.ok_or_else(|| Error::internal(format!("no tensor {name}")))?)
    }

    /// Σ share · ‖answer‖ of an expert for a batch.
    fn answers(&mut self, name: &str, input: &candle_core::Tensor, route: &Route) -> Result<f64> {
        if !self.outs.contains_key(name) {
            let weight = self.weight(name)?;
            self.outs.insert(name.to_owned(), weight);
        }
        let (tokens, inner) = input.dims2()?;
        let out = &self.outs[name];
        let hidden = out.len() / inner.max(1);
        let mut answers = vec![0.0; tokens * hidden];
        with_values(input, |x| {
            matmul_nt(x, out, inner, &mut answers, Precision::Split);
        })?;
        let sizes = answers.chunks(hidden.max(1)).zip(&route.shares);
        Ok(sizes
            .map(|(answer, share)| {
                let square: f64 = answer.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
                f64::from(*share) * square.sqrt()
            })
            .sum())
    }

    fn choose(&self, mixture: &Mixture) -> Result<Vec<(String, Vec<u32>)>> {
        let seen = self.seen.get(&mixture.layer).map_or(&[][..], Vec::as_slice);
        let worth: Vec<f64> = seen
            .iter()
            .map(|s| {
                if self.by_reap {
                    s.added / s.tokens.max(1) as f64
                } else {
                    s.tokens as f64
                }
            })
            .collect();
        let kept = best(&worth, self.keep);
        let mut lists = Vec::new();
        if self.merges {
            let router = self.weight(&mixture.router)?;
            lists.push((homes(mixture.layer), merged(&router, seen, &kept)));
        }
        lists.push((list(mixture.layer), kept));
        Ok(lists)
    }
}

/// For each expert which of those that stay it goes into, and the bits of its share in it.
fn merged(router: &[f32], seen: &[Seen], kept: &[u32]) -> Vec<u32> {
    let cols = router.len() / seen.len().max(1);
    let row = |e: usize| &router[e * cols..(e + 1) * cols];
    let home = |e: usize| {
        let own = kept.iter().position(|k| *k as usize == e);
        own.unwrap_or_else(|| {
            let alike = |k: &u32| {
                let (a, b) = (row(e), row(*k as usize));
                let dot = |a: &[f32], b: &[f32]| {
                    a.iter()
                        .zip(b)
                        .map(|(a, b)| f64::from(*a) * f64::from(*b))
                        .sum::<f64>()
                };
                dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
            };
            let best = kept
                .iter()
                .enumerate()
                .max_by(|(i, a), (j, b)| alike(a).total_cmp(&alike(b)).then(j.cmp(i)));
            best.map_or(0, |(at, _)| at)
        })
    };
    let homes: Vec<usize> = (0..seen.len()).map(home).collect();
    // An expert that nobody visited counts a little all the same: alone it is itself.
    let weight = |e: usize| seen[e].tokens as f64 + 1e-6;
    let total = |home: usize| {
        (0..seen.len())
            .filter(|e| homes[*e] == home)
            .map(weight)
            .sum::<f64>()
    };
    let shares = homes.iter().enumerate();
    shares
        .flat_map(|(e, home)| [*home as u32, ((weight(e) / total(*home)) as f32).to_bits()])
        .collect()
}

impl Visitor for Counter<'_> {
    fn replaces(&self) -> bool {
        false
    }

    fn see(&mut self, _at: usize, cut: &Cut, state: &State) -> Result<()> {
        if !state.routes.is_empty() {
            self.routes.clone_from(&state.routes);
        }
        let routes = std::mem::take(&mut self.routes);
        for mixture in self.mixtures.clone() {
            for (expert, route) in routes.iter().enumerate().take(mixture.count) {
                let name = mixture.parts[2].replace("{}", &expert.to_string());
                let Some(reader) = cut.readers.iter().find(|r| r.tensor == name) else {
                    continue;
                };
                let tokens = route.shares.iter().filter(|share| **share > 0.0).count() as u64;
                let added = if self.by_reap {
                    self.answers(&name, &state.inputs[reader.input], route)?
                } else {
                    0.0
                };
                if let Some(seen) = self.seen.get_mut(&mixture.layer).and_then(|s| s.get_mut(expert)) {
                    seen.tokens += tokens;
                    seen.added += added;
                }
            }
        }
        self.routes = routes;
        Ok(())
    }

    fn settle(&mut self, here: &mut Here<'_>) -> Result<()> {
        for mixture in self.mixtures.clone() {
            let last = mixture.parts[2].replace("{}", "0");
            if here.cut.readers.iter().any(|r| r.tensor == last) {
                let lists = self.choose(&mixture)?;
                self.lists.extend(lists);
                self.outs.clear();
            }
        }
        Ok(())
    }
}

impl Maker for Counter<'_> {
    fn made(&mut self) -> Vec<(usize, Weight)> {
        Vec::new()
    }

    fn listed(&mut self) -> Vec<(String, Vec<u32>)> {
        std::mem::take(&mut self.lists)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experts_that_go_join_those_most_alike_by_their_tokens() {
        let router = [1.0, 0.0, 0.0, 1.0, 0.1, 1.0];
        let seen = [10, 30, 10].map(|tokens| Seen { tokens, added: 0.0 });
        let homes = merged(&router, &seen, &[0, 1]);
        let shares: Vec<(u32, f32)> = homes.chunks(2).map(|h| (h[0], f32::from_bits(h[1]))).collect();
        assert_eq!(shares[0], (0, 1.0));
        assert!(shares[1].0 == 1 && (shares[1].1 - 0.75).abs() < 1e-5);
        assert!(shares[2].0 == 1 && (shares[2].1 - 0.25).abs() < 1e-5);
    }
}
