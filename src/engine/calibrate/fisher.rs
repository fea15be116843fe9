//! How much the model's output depends on each weight: the diagonal of its Fisher information, summed by rows and by
//! columns, from gradients of the loss on labels that the model itself draws.
//!
//! Owns: the way there and back through the blocks, the sums. Must not know: what they are used for.
//! Invariant: one block's weights, their gradients and one sequence are in memory at a time; every sum is taken in a
//! fixed order, so that no number of threads changes a bit.
//!
//! A change `d` of the weights moves the model's output distribution by about `½ Σ F d²` nats of divergence a token,
//! if the changes of different weights have nothing to do with each other (Amari 1998; Kunstner et al. 2019 on why the
//! labels are drawn). `F` is kept as its row and column sums, whose product over the total stands for it (Shazeer and
//! Stern 2018 keep second moments so): two vectors for each matrix.

use super::{Pace, Source, Stash};
use crate::error::{Error, Result};
use crate::kernels::random::Random;
use crate::network::{Batch, Compute, HeadKind, Network, Run, State, Weights, with_values};
use crate::weight::Fisher;
use candle_core::{Tensor, Var};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};

/// Tokens whose logits and gradients are in memory at a time.
pub(crate) const LABEL_ROWS: usize = 128;

/// Stripes of rows that are summed by themselves.
const STRIPES: usize = 16;

/// What the way through the model needs.
pub struct Descent<'a> {
    /// The model's network.
    pub network: &'a dyn Network,
    /// Its weights.
    pub source: &'a dyn Source,
    /// Told how far it is.
    pub pace: &'a dyn Pace,
    /// Where it runs.
    pub compute: Compute,
    /// Token ids of each sequence.
    pub sequences: &'a [Vec<u32>],
    /// Let every token visit every expert.
    pub all_experts: bool,
    /// Of the labels.
    pub seed: u64,
    /// Whether each weight's is kept by itself too.
    pub each: bool,
    /// The loss is that of the tokens which follow in the data, not of labels that are drawn: the empirical Fisher
    /// information. Only models that predict tokens have such.
    pub on_data: bool,
}

/// What the loss is measured against.
enum Labels<'a> {
    /// What is drawn from the model's own answers.
    Drawn(Random),
    /// Tokens of the data; an answer beyond them has none, and counts nothing.
    Data(&'a [u32]),
}

/// Sums of one tensor so far.
#[derive(Default)]
struct Sum {
    rows: Vec<f64>,
    cols: Vec<f64>,
    /// Of each weight by itself, where that is asked for.
    each: Option<Vec<f32>>,
}

impl Sum {
    fn new(each: bool) -> Self {
        Self {
            each: each.then(Vec::new),
            ..Self::default()
        }
    }

    /// Adds the squares of one gradient, `[rows, cols]`.
    fn add(&mut self, gradient: &[f32], cols: usize) {
        let rows = gradient.len() / cols.max(1);
        self.rows.resize(rows, 0.0);
        self.cols.resize(cols, 0.0);
        if gradient.is_empty() {
            return;
        }
        if let Some(each) = &mut self.each {
            each.resize(gradient.len(), 0.0);
            let pairs = each.par_iter_mut().zip(gradient);
            pairs.with_min_len(1 << 14).for_each(|(sum, g)| *sum += g * g);
        }
        let stripe = rows.div_ceil(STRIPES);
        let parts = gradient
            .par_chunks(stripe * cols)
            .zip(self.rows.par_chunks_mut(stripe))
            .map(|(values, rows)| {
                let mut columns = vec![0f64; cols];
                for (row, values) in rows.iter_mut().zip(values.chunks_exact(cols)) {
                    let mut sum = 0.0;
                    for (column, g) in columns.iter_mut().zip(values) {
                        let square = f64::from(*g) * f64::from(*g);
                        sum += square;
                        *column += square;
                    }
                    *row += sum;
                }
                columns
            });
        for columns in parts.collect::<Vec<_>>() {
            self.cols.iter_mut().zip(columns).for_each(|(sum, c)| *sum += c);
        }
    }

    /// Of a mean answer.
    fn finish(mut self, answers: usize) -> Fisher {
        let mean = |sums: &[f64]| sums.iter().map(|s| (s / answers.max(1) as f64) as f32).collect();
        let each = self.each.take().map(|mut each| {
            for sum in &mut each {
                *sum /= answers.max(1) as f32;
            }
            each
        });
        Fisher {
            rows: mean(&self.rows),
            cols: mean(&self.cols),
            each,
        }
    }
}

/// Weights by whose elements the loss is differentiated.
struct Leaves {
    vars: Vec<(String, Var)>,
    /// Whether each element's squares are kept by themselves.
    each: bool,
}

impl Leaves {
    fn of(weights: &mut Weights, names: &[String], wanted: &HashSet<&str>, each: bool) -> Result<Self> {
        let mut vars = Vec::new();
        for name in names.iter().filter(|name| wanted.contains(name.as_str())) {
            let var = Var::from_tensor(weights.get(name)?)?;
            weights.replace(name, var.as_tensor())?;
            vars.push((name.clone(), var));
        }
        Ok(Self { vars, each })
    }
}

/// Gradients: of the inputs, which are handed on, and of the leaves, which are added up.
fn back(
    answer: &Tensor,
    slope: &Tensor,
    input: Option<&Var>,
    leaves: &Leaves,
    sums: &mut HashMap<String, Sum>,
) -> Result<Option<Tensor>> {
    let gradients = (answer * slope)?.sum_all()?.backward()?;
    for (name, var) in &leaves.vars {
        // An expert that none of these tokens visits has none.
        if let Some(gradient) = gradients.get(var.as_tensor()) {
            let cols = gradient.dims().last().copied().unwrap_or(1);
            let sum = sums.entry(name.clone()).or_insert_with(|| Sum::new(leaves.each));
            with_values(&gradient.contiguous()?, |values| sum.add(values, cols))?;
        }
    }
    Ok(match input {
        Some(input) => gradients.get(input.as_tensor()).cloned(),
        None => None,
    })
}

impl Descent<'_> {
    /// Goes through the model and back. `keep` gets each tensor of `wanted` once, when no more comes of it; one that the
    /// loss does not depend on is not among them.
    pub fn run(
        &self,
        wanted: &HashSet<&str>,
        mut stash: Stash,
        keep: &mut dyn FnMut(&str, Fisher) -> Result<()>,
    ) -> Result<()> {
        let batches: Vec<Batch> = self.sequences.iter().map(|ids| Batch::new(&[ids])).collect();
        // What is compared has one answer for each token, or for each sequence.
        let answers: usize = match self.network.head_kind() {
            HeadKind::NextToken => batches.iter().map(Batch::tokens).sum(),
            HeadKind::Classes | HeadKind::Embedding => batches.len(),
        };
        let blocks = self.network.sizes().blocks;
        let slots: Vec<Vec<usize>> = (0..=blocks)
            .map(|_| batches.iter().map(|_| stash.add()).collect())
            .collect();
        self.forward(&batches, &slots, &mut stash)?;
        let mut sums = HashMap::new();
        self.head(&batches, &slots[blocks], &mut stash, wanted, &mut sums)?;
        // Where the head shares its weight with the embedding, more of it is still to come.
        let embedded = self.network.embed_tensors();
        give(
            &mut sums,
            answers,
            |name| !embedded.iter().any(|e| e == name),
            keep,
        )?;
        for block in (0..blocks).rev() {
            self.block(
                block,
                &batches,
                [&slots[block], &slots[block + 1]],
                &mut stash,
                wanted,
                &mut sums,
            )?;
            give(
                &mut sums,
                answers,
                |name| !embedded.iter().any(|e| e == name),
                keep,
            )?;
        }
        self.embedding(&batches, &slots[0], &mut stash, wanted, &mut sums)?;
        give(&mut sums, answers, |_| true, keep)
    }

    fn check(&self, part: f64) -> Result<()> {
        self.pace.at(part);
        if self.pace.should_stop() {
            return Err(Error::cancelled());
        }
        Ok(())
    }

    fn load(&self, names: &[String]) -> Result<Weights> {
        let mut weights = self.compute.weights();
        for name in names {
            let transposed = self.network.stored_transposed(name);
            self.source.load(name, transposed, &mut weights)?;
        }
        Ok(weights)
    }

    fn with<'b>(&self, batch: &'b Batch, weights: &'b Weights) -> Run<'b> {
        Run {
            batch,
            weights,
            ops: self.compute.ops(),
            all_experts: self.all_experts,
        }
    }

    fn names(&self, block: usize) -> Vec<String> {
        let mut names = self.network.block_tensors(block);
        let cuts = self.network.cuts(block);
        names.extend(
            cuts.iter()
                .flat_map(|c| c.readers.iter().map(|r| r.tensor.clone())),
        );
        names
    }

    fn through(&self, block: usize, hidden: Tensor, run: &Run<'_>) -> Result<Tensor> {
        let mut state = State::between(hidden);
        for at in 0..=self.network.cuts(block).len() {
            state = self.network.advance(block, at, state, run)?;
        }
        Ok(state.hidden)
    }

    /// Keeps what each block reads, and what the last one makes.
    fn forward(&self, batches: &[Batch], slots: &[Vec<usize>], stash: &mut Stash) -> Result<()> {
        let weights = self.load(&self.network.embed_tensors())?;
        for (batch, slot) in batches.iter().zip(&slots[0]) {
            let hidden = self.network.embed(&self.with(batch, &weights))?;
            stash.put(*slot, &hidden)?;
        }
        drop(weights);
        let blocks = slots.len() - 1;
        for block in 0..blocks {
            self.check(0.25 * block as f64 / blocks.max(1) as f64)?;
            let weights = self.load(&self.names(block))?;
            for (index, batch) in batches.iter().enumerate() {
                let hidden = stash.read(slots[block][index])?;
                let hidden = self.through(block, hidden, &self.with(batch, &weights))?;
                stash.put(slots[block + 1][index], &hidden)?;
            }
        }
        Ok(())
    }

    /// Turns the last hidden states into the loss' gradients by them.
    fn head(
        &self,
        batches: &[Batch],
        slots: &[usize],
        stash: &mut Stash,
        wanted: &HashSet<&str>,
        sums: &mut HashMap<String, Sum>,
    ) -> Result<()> {
        let names = self.network.head_tensors();
        let mut weights = self.load(&names)?;
        let leaves = Leaves::of(&mut weights, &names, wanted, self.each)?;
        let kind = self.network.head_kind();
        for (index, (batch, slot)) in batches.iter().zip(slots).enumerate() {
            self.check(0.25 + 0.15 * index as f64 / batches.len() as f64)?;
            let hidden = stash.take(*slot)?;
            let step = match kind {
                HeadKind::NextToken => LABEL_ROWS,
                HeadKind::Classes | HeadKind::Embedding => batch.tokens(),
            };
            let mut parts = Vec::new();
            for first in (0..batch.tokens()).step_by(step.max(1)) {
                let rows = step.min(batch.tokens() - first);
                let part = Var::from_tensor(&hidden.narrow(0, first, rows)?.contiguous()?)?;
                let answer = self.network.head(part.as_tensor(), &self.with(batch, &weights))?;
                let labels = if self.on_data {
                    Labels::Data(batch.ids.get(first + 1..).unwrap_or_default())
                } else {
                    Labels::Drawn(Random::new(self.seed ^ ((index as u64) << 32 | first as u64)))
                };
                let slope = slope(kind, &answer, labels)?;
                let gradient = back(&answer, &slope, Some(&part), &leaves, sums)?;
                parts.push(gradient.ok_or_else(|| Error::internal("a head that reads nothing"))?);
            }
            stash.put(*slot, &Tensor::cat(&parts, 0)?)?;
        }
        Ok(())
    }

    /// Turns gradients by what a block makes into those by what it reads.
    fn block(
        &self,
        block: usize,
        batches: &[Batch],
        [reads, makes]: [&[usize]; 2],
        stash: &mut Stash,
        wanted: &HashSet<&str>,
        sums: &mut HashMap<String, Sum>,
    ) -> Result<()> {
        let names = self.names(block);
        let mut weights = self.load(&names)?;
        let leaves = Leaves::of(&mut weights, &names, wanted, self.each)?;
        let blocks = self.network.sizes().blocks;
        for (index, batch) in batches.iter().enumerate() {
            let done = (blocks - 1 - block) as f64 + index as f64 / batches.len() as f64;
            self.check(0.4 + 0.6 * done / blocks as f64)?;
            let hidden = Var::from_tensor(&stash.take(reads[index])?)?;
            let slope = stash.take(makes[index])?;
            let run = self.with(batch, &weights);
            let answer = self.through(block, hidden.as_tensor().clone(), &run)?;
            let gradient = back(&answer, &slope, Some(&hidden), &leaves, sums)?;
            let gradient = gradient.ok_or_else(|| Error::internal("a block that reads nothing"))?;
            stash.put(reads[index], &gradient.contiguous()?)?;
        }
        Ok(())
    }

    fn embedding(
        &self,
        batches: &[Batch],
        slots: &[usize],
        stash: &mut Stash,
        wanted: &HashSet<&str>,
        sums: &mut HashMap<String, Sum>,
    ) -> Result<()> {
        let names = self.network.embed_tensors();
        if !names.iter().any(|name| wanted.contains(name.as_str())) {
            return Ok(());
        }
        let mut weights = self.load(&names)?;
        let leaves = Leaves::of(&mut weights, &names, wanted, self.each)?;
        for (batch, slot) in batches.iter().zip(slots) {
            self.check(1.0)?;
            let answer = self.network.embed(&self.with(batch, &weights))?;
            back(&answer, &stash.take(*slot)?, None, &leaves, sums)?;
        }
        Ok(())
    }
}

/// Hands on what is complete.
fn give(
    sums: &mut HashMap<String, Sum>,
    answers: usize,
    is_complete: impl Fn(&str) -> bool,
    keep: &mut dyn FnMut(&str, Fisher) -> Result<()>,
) -> Result<()> {
    let mut names: Vec<String> = sums.keys().filter(|name| is_complete(name)).cloned().collect();
    names.sort_unstable();
    for name in names {
        let Some(sum) = sums.remove(&name) else { continue };
        let fisher = sum.finish(answers);
        if !fisher.total().is_finite() {
            let detail = format!("tensor {name}: the gradients of the loss by its weights are not finite");
            return Err(Error::numeric("gradients_overflow", detail));
        }
        keep(&name, fisher)?;
    }
    Ok(())
}

/// The gradient of the loss by what the head answers. Of distributions over tokens: the likelihood of a label that is drawn
/// from each; over classes, a random direction instead. Of an embedding: a projection in a random direction, so that squares add up to those of the whole.
fn slope(kind: HeadKind, answer: &Tensor, labels: Labels<'_>) -> Result<Tensor> {
    let mut values = with_values(&answer.contiguous()?, <[f32]>::to_vec)?;
    let cols = answer.dims().last().copied().unwrap_or(1).max(1);
    let sign = |random: &mut Random| if random.below(2) == 0 { -1.0f32 } else { 1.0 };
    match (kind, labels) {
        (HeadKind::Embedding, Labels::Drawn(mut random)) => {
            for v in &mut values {
                *v = sign(&mut random);
            }
        }
        (HeadKind::Classes, Labels::Drawn(mut random)) => {
            for row in values.chunks_mut(cols) {
                let signs: Vec<f32> = row.iter().map(|_| sign(&mut random)).collect();
                projected(row, &signs);
            }
        }
        (HeadKind::NextToken, Labels::Drawn(mut random)) => {
            let draws: Vec<f64> = values.chunks(cols).map(|_| random.share()).collect();
            let rows = values.par_chunks_mut(cols).zip(draws);
            rows.for_each(|(row, draw)| less_one_at(row, |row, sum| drawn(row, draw * sum)));
        }
        (HeadKind::NextToken, Labels::Data(ids)) => {
            let rows = values.par_chunks_mut(cols).enumerate();
            rows.for_each(|(at, row)| match ids.get(at) {
                Some(id) => less_one_at(row, |_, _| *id as usize),
                None => row.fill(0.0),
            });
        }
        (HeadKind::Embedding | HeadKind::Classes, Labels::Data(_)) => {
            return Err(Error::internal(
                "labels of data for a model that predicts no tokens",
            ));
        }
    }
    Ok(Tensor::from_vec(values, answer.dims(), answer.device())?)
}

/// Logits become a random direction whose squares add up, in the mean, to those of all labels by their probabilities `p`:
/// `√p·ε − p·Σ√p·ε`, with signs ε. A sequence has one label, and few of them say little of those that are rarely drawn.
fn projected(row: &mut [f32], signs: &[f32]) {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for v in row.iter_mut() {
        *v = (*v - most).exp();
        sum += *v;
    }
    let along: f32 = row
        .iter()
        .zip(signs)
        .map(|(v, sign)| (v / sum).sqrt() * sign)
        .sum();
    for (v, sign) in row.iter_mut().zip(signs) {
        let p = *v / sum;
        *v = p.sqrt() * sign - p * along;
    }
}

/// Logits become probabilities, less one at the label that is found for their exponentials and the sum of these.
fn less_one_at(row: &mut [f32], label: impl Fn(&[f32], f64) -> usize) {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for v in row.iter_mut() {
        *v = (*v - most).exp();
        sum += f64::from(*v);
    }
    let label = label(row, sum);
    for v in row.iter_mut() {
        *v = (f64::from(*v) / sum) as f32;
    }
    if let Some(v) = row.get_mut(label) {
        *v -= 1.0;
    }
}

/// Where a draw falls, counted along exponentials.
fn drawn(exponentials: &[f32], mut left: f64) -> usize {
    let falls = exponentials.iter().position(|v| {
        left -= f64::from(*v);
        left < 0.0
    });
    falls.unwrap_or(0)
}

#[cfg(test)]
#[path = "fisher_tests.rs"]
mod tests;
