//! `MoEfication`: the neurons of a dense model's feed-forward layers as experts, and a router that knows which are needed.
//!
//! Owns: its options, sharing neurons out, fitting routers. Must not know: training.
//! Invariant: every neuron is in one expert, experts are equally large; where every expert is visited the mixture computes
//! what the dense model did, but for the shares' rounding.

use super::mixture::{check_visited, dense_feeds, not_a_llama, outlined};
use super::options::{self, Options, Planned};
use super::{BlockStage, Blocks, Decision, Maker, Old, Reshapes, Technique, Work, structure};
use crate::calibrate::{Here, Visitor};
use crate::error::{Error, Result};
use crate::kernels::gptq::{ActOrder, Curvature};
use crate::kernels::linalg::{Gram, Precision, matmul_nt};
use crate::kernels::random::Random;
use crate::models::structure::{FeedForward, as_mixtral, feed_forwards};
use crate::network::{Cut, Sizes, State, with_values};
use crate::plan::{Context, Origin, Outline, OutlinedTensor, StagePlan, Taken, TensorPlan};
use crate::recipe::Refusal;
use crate::weight::Weight;
use serde_json::{Value, json};
use std::collections::HashMap;

/// The technique.
pub(super) struct Moefication;

/// How large a router's logits are in the mean: small, so that the chosen experts' shares are nearly equal.
const LOGIT: f64 = 0.02;
/// Rounds in which neurons are shared out.
const ROUNDS: usize = 20;
/// Of the Hessian's mean diagonal, in the routers' fit.
const DAMP: f64 = 0.01;

impl Technique for Moefication {
    fn name(&self) -> &'static str {
        "moefication"
    }

    fn summary(&self) -> &'static str {
        "The neurons of a dense llama's feed-forward layers, clustered by what makes them fire, become the experts of a \
         Mixtral of the same size, of which each token visits a few; routers are fitted to which experts answer most. Zhang \
         et al. 2022."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/moefication.md")
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {
            "num_experts": {"type": "integer", "minimum": 2, "maximum": 256, "default": 8, "examples": [8],
                "description": "Experts in each block; divides the number of neurons."},
            "num_experts_per_tok": {"type": "integer", "minimum": 1, "maximum": 256, "default": 6, "examples": [6],
                "description": "Experts that a token visits."}}})
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let (experts, visited) = (
            options.number("num_experts"),
            options.number("num_experts_per_tok"),
        );
        let config = structure::config(context)?;
        let feeds = dense_feeds(context)?;
        check_visited(context, experts, visited)?;
        let inner = feeds[0].inner;
        if !inner.is_multiple_of(experts) {
            let detail = format!("{inner} neurons cannot be shared out evenly among {experts} experts");
            let pointer = options::pointer(context, "num_experts");
            return Err(vec![Refusal::new(pointer, "experts_do_not_divide", detail)]);
        }
        let config =
            as_mixtral(config, experts, visited, inner / experts).ok_or_else(|| not_a_llama(context))?;
        let out_of = |name: &str| {
            feeds
                .iter()
                .find(|f| f.out == name || f.into.iter().any(|i| i == name))
        };
        let origin = |expert: usize, tensor: &OutlinedTensor| {
            let Origin::Tensor { which, .. } = &tensor.origin else {
                return Origin::Made;
            };
            let feed = out_of(&tensor.name);
            match feed {
                Some(feed) if feed.out != tensor.name => Origin::Tensor {
                    which: which.clone(),
                    rows: Taken::Listed {
                        list: list(feed, expert),
                        each: 1,
                    },
                    cols: Taken::All,
                },
                // Shares add up to one, and every visited expert is to count in full.
                _ => Origin::Made,
            }
        };
        let tensors = outlined(context, &feeds, experts, inner / experts, &origin);
        Ok(Decision {
            outline: Some(Outline {
                config,
                tensors,
                shared: None,
            }),
            ..Decision::default()
        })
    }

    fn work(&self) -> Work {
        Work::Reshapes(&Moefication)
    }
}

fn list(feed: &FeedForward, expert: usize) -> String {
    format!("expert-{}-{expert}", feed.layer)
}

fn router_list(layer: usize) -> String {
    format!("router-{layer}")
}

impl Reshapes for Moefication {
    fn by_blocks(&self) -> Option<&'static dyn Blocks> {
        Some(&Moefication)
    }

    fn make(&self, stage: &StagePlan, tensor: &OutlinedTensor, old: &Old<'_>) -> Result<Vec<f32>> {
        let broken = || Error::internal(format!("nothing makes {}", tensor.name));
        let (block, rest) = tensor.name.split_once(".block_sparse_moe.").ok_or_else(broken)?;
        let layer = block
            .rsplit('.')
            .next()
            .and_then(|n| n.parse::<usize>().ok())
            .ok_or_else(broken)?;
        if rest == "gate.weight" {
            let bits = (old.list)(&router_list(layer))?;
            return Ok(bits.into_iter().map(f32::from_bits).collect());
        }
        let expert = rest
            .split('.')
            .nth(1)
            .and_then(|n| n.parse::<usize>().ok())
            .ok_or_else(broken)?;
        let visited = Options::of(&stage.options, self.schema()).number("num_experts_per_tok") as f32;
        let down = (old.tensor)(&format!("{block}.mlp.down_proj.weight"))?;
        let neurons = (old.list)(&format!("expert-{layer}-{expert}"))?;
        let inner = down.len() / tensor.shape[0].max(1);
        let rows = down.chunks(inner.max(1));
        Ok(rows
            .flat_map(|row| neurons.iter().map(|n| visited * row[*n as usize]))
            .collect())
    }
}

impl Blocks for Moefication {
    fn visitor<'a>(&self, stage: BlockStage<'a>) -> Box<dyn Maker + 'a> {
        let experts = Options::of(&stage.stage.options, self.schema()).number("num_experts");
        let feeds = feed_forwards(&structure::parts(stage.tensors));
        Box::new(Sharer {
            stage,
            experts,
            feeds: feeds.into_iter().map(|feed| (feed.out.clone(), feed)).collect(),
            input: Vec::new(),
            own: None,
            lists: Vec::new(),
        })
    }

    /// A block's gate and output weights, a Gram matrix of what they read, its factor, and a batch of it.
    fn working_bytes(
        &self,
        _options: &Value,
        _tensors: &[&TensorPlan],
        sizes: &Sizes,
        longest: usize,
    ) -> u64 {
        let hidden = sizes.hidden;
        let tokens = crate::calibrate::batch_tokens(sizes.widest, longest);
        (4 * (3 * hidden * sizes.widest + 8 * hidden * hidden + tokens * (hidden + sizes.widest))) as u64
    }
}

/// What is known of one block.
struct Own {
    /// Neurons of each expert.
    neurons: Vec<Vec<u32>>,
    /// ‖column‖² of the output weights, by neuron.
    outs: Vec<f64>,
    gram: Gram,
    tokens: usize,
    /// `Xᵀ · how much each expert adds`, `[experts, hidden]`.
    cross: Vec<f64>,
}

struct Sharer<'a> {
    stage: BlockStage<'a>,
    experts: usize,
    feeds: HashMap<String, FeedForward>,
    /// What the gates of the batch at hand read.
    input: Vec<f32>,
    own: Option<Own>,
    lists: Vec<(String, Vec<u32>)>,
}

impl Sharer<'_> {
    fn values(&self, name: &str) -> Result<Vec<f32>> {
        let at = self.stage.tensors.iter().position(|t| t.name == name);
        (self.stage.before)(at.ok_or_else(|| Error::internal(format!("no tensor {name}")))?)
    }

    fn begin(&self, feed: &FeedForward, hidden: usize) -> Result<Own> {
        let gate = self.values(&feed.into[0])?;
        let down = self.values(&feed.out)?;
        let inner = gate.len() / hidden.max(1);
        let seed = self.stage.seed ^ feed.layer as u64;
        Ok(Own {
            neurons: shared_out(&gate, hidden, self.experts, seed),
            outs: crate::kernels::prune::columns::column_squares(&down, inner),
            gram: Gram::new(hidden),
            tokens: 0,
            cross: vec![0.0; self.experts * hidden],
        })
    }

    fn add(&mut self, feed: &FeedForward, fired: &[f32], hidden: usize) -> Result<()> {
        if self.own.is_none() {
            self.own = Some(self.begin(feed, hidden)?);
        }
        let Some(own) = &mut self.own else { return Ok(()) };
        let inner = own.outs.len();
        own.gram.add(&self.input, Precision::Split);
        own.tokens += self.input.len() / hidden.max(1);
        for (x, fired) in self.input.chunks_exact(hidden).zip(fired.chunks_exact(inner)) {
            for (neurons, cross) in own.neurons.iter().zip(own.cross.chunks_mut(hidden)) {
                let energy: f64 = neurons
                    .iter()
                    .map(|n| f64::from(fired[*n as usize]).powi(2) * own.outs[*n as usize])
                    .sum();
                let size = energy.sqrt();
                cross
                    .iter_mut()
                    .zip(x)
                    .for_each(|(sum, x)| *sum += size * f64::from(*x));
            }
        }
        Ok(())
    }

    /// Routers by least squares on how much each expert adds, as bits.
    fn router(&self, own: Own, hidden: usize) -> Result<Vec<u32>> {
        let stop = || self.stage.observer.should_stop();
        let (gram, tokens) = (own.gram.into_full(), own.tokens as f64);
        let curvature = Curvature::new(&gram, hidden, DAMP, ActOrder::None, true, &stop)?;
        let cross: Vec<f32> = own.cross.iter().map(|v| *v as f32).collect();
        let Some(factor) = curvature.factor() else {
            return Ok(cross.iter().map(|v| v.to_bits()).collect());
        };
        let mut half = vec![0.0; cross.len()];
        matmul_nt(&cross, factor, hidden, &mut half, Precision::Full);
        let turned: Vec<f32> = (0..hidden * hidden)
            .map(|at| factor[at % hidden * hidden + at / hidden])
            .collect();
        let mut router = vec![0.0; cross.len()];
        matmul_nt(&half, &turned, hidden, &mut router, Precision::Full);
        // What all experts have in common decides nothing.
        for col in 0..hidden {
            let mean = (0..self.experts).map(|e| router[e * hidden + col]).sum::<f32>() / self.experts as f32;
            (0..self.experts).for_each(|e| router[e * hidden + col] -= mean);
        }
        let mean = (0..hidden).map(|i| f64::from(gram[i * hidden + i])).sum::<f64>();
        let square: f64 =
            router.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / router.len().max(1) as f64;
        let size = (square * mean / tokens.max(1.0)).sqrt();
        let scale = if size > 0.0 { (LOGIT / size) as f32 } else { 1.0 };
        Ok(router.iter().map(|v| (scale * v).to_bits()).collect())
    }
}

/// Neurons in equally large clusters of alike gate weights: k-means whose clusters have a size, by the best fit first.
fn shared_out(gate: &[f32], hidden: usize, experts: usize, seed: u64) -> Vec<Vec<u32>> {
    let rows: Vec<Vec<f32>> = gate.chunks_exact(hidden.max(1)).map(unit).collect();
    let size = rows.len() / experts.max(1);
    let mut random = Random::new(seed);
    let mut centres: Vec<Vec<f32>> = (0..experts)
        .map(|_| rows[random.below(rows.len() as u64) as usize].clone())
        .collect();
    let mut home = vec![0usize; rows.len()];
    for _ in 0..ROUNDS {
        let mut likes = vec![0.0; rows.len() * experts];
        let (flat, all): (Vec<f32>, Vec<f32>) = (rows.concat(), centres.concat());
        matmul_nt(&flat, &all, hidden, &mut likes, Precision::Full);
        let now = balanced(&likes, experts, size);
        let is_same = now == home;
        home = now;
        for (e, centre) in centres.iter_mut().enumerate() {
            let mut sum = vec![0f32; hidden];
            let own = rows.iter().zip(&home).filter(|(_, h)| **h == e);
            own.for_each(|(row, _)| sum.iter_mut().zip(row).for_each(|(s, v)| *s += v));
            *centre = unit(&sum);
        }
        if is_same {
            break;
        }
    }
    let of = |e: usize| {
        (0u32..)
            .zip(&home)
            .filter(|(_, h)| **h == e)
            .map(|(n, _)| n)
            .collect()
    };
    (0..experts).map(of).collect()
}

fn unit(row: &[f32]) -> Vec<f32> {
    let size = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt() as f32;
    row.iter()
        .map(|v| if size > 0.0 { v / size } else { 0.0 })
        .collect()
}

/// Gives every row one of the experts, each no more than `size` rows, those first whose choice matters most.
fn balanced(likes: &[f32], experts: usize, size: usize) -> Vec<usize> {
    let rows = likes.len() / experts.max(1);
    let stakes = |row: usize| {
        let own = &likes[row * experts..(row + 1) * experts];
        let best = own.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        best - own.iter().sum::<f32>() / experts as f32
    };
    let mut order: Vec<usize> = (0..rows).collect();
    order.sort_by(|a, b| stakes(*b).total_cmp(&stakes(*a)).then(a.cmp(b)));
    let mut room = vec![size.max(1); experts];
    let mut home = vec![0; rows];
    for row in order {
        let own = &likes[row * experts..(row + 1) * experts];
        let free = (0..experts).filter(|e| room[*e] > 0);
        let best = free
            .max_by(|a, b| own[*a].total_cmp(&own[*b]).then(b.cmp(a)))
            .unwrap_or(0);
        home[row] = best;
        room[best] = room[best].saturating_sub(1);
    }
    home
}

impl Visitor for Sharer<'_> {
    fn replaces(&self) -> bool {
        false
    }

    fn see(&mut self, _at: usize, cut: &Cut, state: &State) -> Result<()> {
        let reads = |name: &str| cut.readers.iter().find(|r| r.tensor == name).map(|r| r.input);
        if self.feeds.values().any(|feed| reads(&feed.into[0]).is_some()) {
            self.input = with_values(state.input()?, <[f32]>::to_vec)?;
            return Ok(());
        }
        let feed = self
            .feeds
            .values()
            .find(|feed| reads(&feed.out).is_some())
            .cloned();
        if let Some(feed) = feed {
            let hidden = state.hidden.dim(1)?;
            let fired = with_values(state.input()?, <[f32]>::to_vec)?;
            self.add(&feed, &fired, hidden)?;
        }
        Ok(())
    }

    fn settle(&mut self, here: &mut Here<'_>) -> Result<()> {
        let mut feeds = here.cut.readers.iter().filter_map(|r| self.feeds.get(&r.tensor));
        let Some(feed) = feeds.next().cloned() else {
            return Ok(());
        };
        let Some(own) = self.own.take() else {
            return Ok(());
        };
        let hidden = own.cross.len() / self.experts.max(1);
        for (expert, neurons) in own.neurons.iter().enumerate() {
            self.lists.push((list(&feed, expert), neurons.clone()));
        }
        let router = self.router(own, hidden)?;
        self.lists.push((router_list(feed.layer), router));
        Ok(())
    }
}

impl Maker for Sharer<'_> {
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
    fn neurons_that_fire_alike_are_in_one_expert() {
        // Two directions, neurons in turn.
        let gate: Vec<f32> = (0..16)
            .flat_map(|n| {
                if n % 2 == 0 {
                    [1.0, 0.01 * n as f32]
                } else {
                    [0.01 * n as f32, 1.0]
                }
            })
            .collect();
        let experts = shared_out(&gate, 2, 2, 3);
        assert_eq!(experts.iter().map(Vec::len).collect::<Vec<_>>(), [8, 8]);
        assert!(
            experts.iter().all(|own| own.iter().all(|n| n % 2 == own[0] % 2)),
            "{experts:?}"
        );
    }

    #[test]
    fn experts_are_equally_large_whatever_neurons_like() {
        let likes = [1.0f32, 0.0].repeat(10);
        let home = balanced(&likes, 2, 5);
        assert_eq!(home.iter().filter(|h| **h == 0).count(), 5);
    }
}
