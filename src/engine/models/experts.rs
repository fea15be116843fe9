//! Mixtures of experts: routing tokens, and adding up what the experts answer.
//!
//! Owns: top-k routing as Mixtral and Qwen `MoE` do it. Must not know: attention, configurations.
//! Invariant: experts are visited in order and tokens within an expert too, so sums do not depend on threads.

use crate::error::Result;
use crate::kernels::nn::elementwise::Activation;
use crate::network::{Cut, Feed, Reader, Route, Run, State};
use candle_core::Tensor;

/// The shared expert that every token visits (Qwen2-MoE).
#[derive(Clone, Debug)]
pub(super) struct Shared {
    /// Gate, up and down.
    pub parts: [String; 3],
    /// Weight of its sigmoid share.
    pub share: String,
}

/// A mixture.
#[derive(Clone, Debug)]
pub(super) struct Experts {
    /// The router's weight, `[experts, hidden]`.
    pub router: String,
    /// Gate, up and down of each expert.
    pub parts: Vec<[String; 3]>,
    /// Experts a token visits.
    pub top_k: usize,
    /// Whether the chosen shares are scaled to add up to 1.
    pub normalised: bool,
    /// The shared expert.
    pub shared: Option<Shared>,
}

impl Experts {
    /// Weights that are applied between cuts and never quantized.
    pub(super) fn routers(&self) -> Vec<String> {
        let share = self.shared.as_ref().map(|s| s.share.clone());
        std::iter::once(self.router.clone()).chain(share).collect()
    }

    /// Both cuts; `norm` feeds the first, and what an `up` feeds `fed` says.
    pub(super) fn cuts(&self, norm: Feed, fed: &dyn Fn(&str) -> Feed) -> Vec<Cut> {
        let reader = |tensor: &String, input| Reader {
            tensor: tensor.clone(),
            input,
        };
        let (mut into, mut out) = (Cut::default(), Cut::default());
        for (e, [gate, up, down]) in self.parts.iter().enumerate() {
            into.readers.extend([reader(gate, e + 1), reader(up, e + 1)]);
            out.readers.push(reader(down, e));
        }
        if let Some(Shared {
            parts: [gate, up, down],
            ..
        }) = &self.shared
        {
            into.readers.extend([reader(gate, 0), reader(up, 0)]);
            out.readers.push(reader(down, self.parts.len()));
        }
        let ups = self.parts.iter().chain(self.shared.as_ref().map(|s| &s.parts));
        out.feeds.extend(ups.enumerate().map(|(input, [_, up, _])| Feed {
            inputs: vec![input],
            ..fed(up)
        }));
        // The router and what only some tokens read are the same channels.
        into.feeds.push(Feed {
            inputs: (0..=self.parts.len()).collect(),
            others: self.routers(),
            ..norm
        });
        vec![into, out]
    }

    /// The tokens of each expert. Input 0 is every token, input 1 + e what expert e reads.
    pub(super) fn route(&self, hidden: Tensor, x: &Tensor, run: &Run<'_>) -> Result<State> {
        let logits = run.weights.linear(run.ops, &self.router, x)?.to_vec2::<f32>()?;
        let mut routes = vec![Route::default(); self.parts.len()];
        for (row, logits) in logits.iter().enumerate() {
            for (expert, share) in self.shares(logits, run.all_experts) {
                routes[expert].rows.push(row as u32);
                routes[expert].shares.push(share);
            }
        }
        let mut inputs = vec![x.clone()];
        for route in &routes {
            inputs.push(x.index_select(&rows_of(route, x)?, 0)?);
        }
        if let Some(shared) = &self.shared {
            let gate = run.weights.linear(run.ops, &shared.share, x)?.flatten_all()?;
            let sigmoid = |v: f32| 1.0 / (1.0 + (-v).exp());
            let shares: Vec<f32> = gate.to_vec1::<f32>()?.into_iter().map(sigmoid).collect();
            let rows = (0..shares.len() as u32).collect();
            routes.push(Route { rows, shares });
        }
        Ok(State {
            hidden,
            inputs,
            routes,
            whole: 1,
        })
    }

    /// Experts of one token with their shares, by index. With `all`, those that it does not visit have a share of 0.
    fn shares(&self, logits: &[f32], all: bool) -> Vec<(usize, f32)> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f32> = logits.iter().map(|l| (l - max).exp()).collect();
        let total: f32 = weights.iter().sum();
        let mut order: Vec<usize> = (0..weights.len()).collect();
        order.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]).then(a.cmp(b)));
        let chosen = &order[..self.top_k.min(order.len())];
        let visited: f32 = chosen.iter().map(|e| weights[*e]).sum();
        let base = if self.normalised { visited } else { total };
        let share = |e: usize| {
            if chosen.contains(&e) {
                weights[e] / base
            } else {
                0.0
            }
        };
        (0..weights.len())
            .filter(|e| all || chosen.contains(e))
            .map(|e| (e, share(e)))
            .collect()
    }

    pub(super) fn middle(&self, state: State, activation: Activation, run: &Run<'_>) -> Result<State> {
        let mut inputs = Vec::new();
        for (parts, x) in self.parts.iter().zip(&state.inputs[1..]) {
            inputs.push(between(parts, x, activation, run)?);
        }
        if let Some(shared) = &self.shared {
            inputs.push(between(&shared.parts, &state.inputs[0], activation, run)?);
        }
        Ok(State {
            inputs,
            whole: 0,
            ..state
        })
    }

    pub(super) fn gather(&self, state: State, run: &Run<'_>) -> Result<State> {
        let downs = self.parts.iter().chain(self.shared.as_ref().map(|s| &s.parts));
        let mut hidden = state.hidden;
        for (([_, _, down], x), route) in downs.zip(&state.inputs).zip(&state.routes) {
            if route.rows.is_empty() {
                continue;
            }
            let y = run.weights.linear(run.ops, down, x)?;
            let shares = Tensor::from_slice(&route.shares, (route.shares.len(), 1), y.device())?;
            let rows = rows_of(route, &y)?;
            hidden = hidden.index_add(&rows, &y.broadcast_mul(&shares)?, 0)?;
        }
        Ok(State::between(hidden))
    }
}

fn rows_of(route: &Route, near: &Tensor) -> Result<Tensor> {
    Ok(Tensor::from_slice(&route.rows, route.rows.len(), near.device())?)
}

fn between(parts: &[String; 3], x: &Tensor, activation: Activation, run: &Run<'_>) -> Result<Tensor> {
    let gate = run.weights.linear(run.ops, &parts[0], x)?;
    let up = run.weights.linear(run.ops, &parts[1], x)?;
    run.ops.gated(gate, &up, activation)
}
