//! The walk: all sequences through one block, then the next.
//!
//! Owns: the order of work, which weights are loaded when. Must not know: what visitors compute.
//! Invariant: only one block's weights are loaded; a visitor sees every input of every linear exactly once, with all
//! weights before it as they are at that moment.

use super::Stash;
use crate::error::{Error, Result};
use crate::network::{Batch, Compute, Cut, Network, Ops, Route, Run, State, Weights};
use candle_core::Tensor;

/// Elements of the widest layer's output that a batch makes at a time.
const BATCH_ELEMENTS: usize = 4 << 20;

/// Where weights come from.
pub trait Source {
    /// Loads the tensor of that name; `transposed` where it is stored `[in, out]`.
    fn load(&self, name: &str, transposed: bool, weights: &mut Weights) -> Result<()>;
}

/// Who looks at the inputs of linear layers.
pub trait Visitor {
    /// True where it may replace weights at a cut: then every sequence waits there until it has.
    fn replaces(&self) -> bool;
    /// True where it asks for [`Here::answered`]: then the walk carries a second state of every sequence, which only
    /// weights before their replacement have made.
    fn compares(&self) -> bool {
        false
    }
    /// The batch whose inputs it sees next.
    fn meets(&mut self, _batch: &Batch, _network: &dyn Network) {}
    /// The inputs of a batch at a cut.
    fn see(&mut self, at: usize, cut: &Cut, state: &State) -> Result<()>;
    /// A batch has left a block.
    fn passed(&mut self, _block: usize, _state: &State) -> Result<()> {
        Ok(())
    }
    /// All batches were seen at this cut.
    fn settle(&mut self, here: &mut Here<'_>) -> Result<()>;
}

/// A cut at which every sequence waits.
pub struct Here<'a> {
    /// The block.
    pub block: usize,
    /// The cut.
    pub at: usize,
    /// Its readers.
    pub cut: &'a Cut,
    /// The block's weights, which may be replaced.
    pub weights: &'a mut Weights,
    /// The network.
    pub network: &'a dyn Network,
    /// Whether every token visits every expert.
    pub all_experts: bool,
    /// How operations are carried out.
    pub ops: Ops,
    line: &'a Line,
}

impl Here<'_> {
    /// A run of a batch with the weights as they are.
    pub fn run<'b>(&'b self, batch: &'b Batch) -> Run<'b> {
        Run {
            batch,
            weights: self.weights,
            ops: self.ops,
            all_experts: self.all_experts,
        }
    }

    /// Number of batches.
    pub fn batches(&self) -> usize {
        self.line.batches.len()
    }

    /// A batch.
    pub fn batch(&self, batch: usize) -> &Batch {
        &self.line.batches[batch]
    }

    /// A batch and its state at this cut; only where the visitor replaces weights.
    pub fn state(&self, batch: usize) -> Result<(&Batch, State)> {
        Ok((&self.line.batches[batch], self.line.look(batch)?))
    }

    /// A batch's hidden state at this cut; only where the visitor replaces weights.
    pub fn hidden(&self, batch: usize) -> Result<Tensor> {
        self.line.hidden(batch)
    }

    /// What this block makes of a batch when neither its weights nor those before it are replaced; only where the
    /// visitor compares.
    pub fn answered(&self, batch: usize) -> Result<Tensor> {
        self.line.untouched(batch)
    }
}

/// The sequences with their states.
struct Line {
    batches: Vec<Batch>,
    stash: Stash,
    waiting: Vec<Waiting>,
    /// Slots of the states that no replaced weight has touched; none unless a visitor compares.
    untouched: Vec<usize>,
}

/// Slots of one batch's state.
#[derive(Clone, Default)]
struct Waiting {
    hidden: usize,
    inputs: Vec<usize>,
    used: usize,
    routes: Vec<Route>,
    whole: usize,
}

impl Line {
    fn put(&mut self, batch: usize, state: State) -> Result<()> {
        let waiting = &mut self.waiting[batch];
        self.stash.put(waiting.hidden, &state.hidden)?;
        while waiting.inputs.len() < state.inputs.len() {
            waiting.inputs.push(self.stash.add());
        }
        waiting.used = state.inputs.len();
        for (slot, input) in waiting.inputs.iter().zip(&state.inputs) {
            self.stash.put(*slot, input)?;
        }
        (waiting.routes, waiting.whole) = (state.routes, state.whole);
        Ok(())
    }

    fn take(&mut self, batch: usize) -> Result<State> {
        let waiting = &mut self.waiting[batch];
        let hidden = self.stash.take(waiting.hidden)?;
        let slots = &waiting.inputs[..waiting.used];
        let inputs: Result<Vec<Tensor>> = slots.iter().map(|s| self.stash.take(*s)).collect();
        waiting.used = 0;
        Ok(State {
            hidden,
            inputs: inputs?,
            routes: std::mem::take(&mut waiting.routes),
            whole: waiting.whole,
        })
    }

    fn hidden(&self, batch: usize) -> Result<Tensor> {
        self.stash.read(self.waiting[batch].hidden)
    }

    fn look(&self, batch: usize) -> Result<State> {
        let waiting = &self.waiting[batch];
        let slots = &waiting.inputs[..waiting.used];
        let inputs: Result<Vec<Tensor>> = slots.iter().map(|s| self.stash.read(*s)).collect();
        Ok(State {
            hidden: self.hidden(batch)?,
            inputs: inputs?,
            routes: waiting.routes.clone(),
            whole: waiting.whole,
        })
    }

    fn untouched(&self, batch: usize) -> Result<Tensor> {
        let slot = self.untouched.get(batch).copied();
        self.stash
            .read(slot.ok_or_else(|| Error::internal("no untouched states are kept"))?)
    }

    fn put_untouched(&mut self, batch: usize, hidden: &Tensor) -> Result<()> {
        if batch == self.untouched.len() {
            self.untouched.push(self.stash.add());
        } else {
            self.stash.take(self.untouched[batch])?;
        }
        self.stash.put(self.untouched[batch], hidden)
    }
}

/// What a walk tells while it goes on, and whether it shall stop.
pub trait Pace {
    /// Part of the walk that is done, 0 to 1.
    fn at(&self, part: f64);
    /// True once the walk shall end.
    fn should_stop(&self) -> bool;
}

/// A walk through a network.
pub struct Walk<'a> {
    network: &'a dyn Network,
    source: &'a dyn Source,
    pace: &'a dyn Pace,
    all_experts: bool,
    compute: Compute,
    line: Line,
}

impl<'a> Walk<'a> {
    /// Embeds the sequences.
    pub fn start(
        network: &'a dyn Network,
        source: &'a dyn Source,
        pace: &'a dyn Pace,
        sequences: &[Vec<u32>],
        compute: Compute,
        stash: Stash,
    ) -> Result<Self> {
        Self::start_beside(network, source, pace, sequences, compute, stash, network)
    }

    /// The same in batches that suit another network too, so that both make the same ones.
    pub fn start_beside(
        network: &'a dyn Network,
        source: &'a dyn Source,
        pace: &'a dyn Pace,
        sequences: &[Vec<u32>],
        compute: Compute,
        stash: Stash,
        other: &dyn Network,
    ) -> Result<Self> {
        let widest = network.sizes().widest.max(other.sizes().widest);
        let mut walk = Self {
            network,
            source,
            pace,
            all_experts: false,
            line: Line {
                batches: batches(sequences, widest),
                stash: stash.giving_to(compute.device().clone()),
                waiting: Vec::new(),
                untouched: Vec::new(),
            },
            compute,
        };
        let weights = walk.load(&network.embed_tensors())?;
        for index in 0..walk.line.batches.len() {
            walk.check()?;
            let hidden = network.embed(&walk.run(index, &weights))?;
            let slot = walk.line.stash.add();
            walk.line.waiting.push(Waiting {
                hidden: slot,
                ..Waiting::default()
            });
            walk.line.put(index, State::between(hidden))?;
        }
        Ok(walk)
    }

    /// Lets every token visit every expert.
    #[must_use]
    pub fn with_all_experts(mut self, all: bool) -> Self {
        self.all_experts = all;
        self
    }

    /// Number of batches.
    pub fn batches(&self) -> usize {
        self.line.batches.len()
    }

    /// All sequences through one block.
    pub fn block(&mut self, block: usize, visitor: &mut dyn Visitor) -> Result<()> {
        let cuts = self.network.cuts(block);
        let mut names = self.network.block_tensors(block);
        names.extend(
            cuts.iter()
                .flat_map(|c| c.readers.iter().map(|r| r.tensor.clone())),
        );
        let mut weights = self.load(&names)?;
        let part = |at: usize, batch: usize, batches: usize| {
            let within = (at as f64 + batch as f64 / batches.max(1) as f64) / (cuts.len() + 1) as f64;
            (block as f64 + within) / self.network.sizes().blocks.max(1) as f64
        };
        let count = self.line.batches.len();
        if visitor.compares() {
            self.answer(block, cuts.len(), &weights)?;
        }
        if !visitor.replaces() {
            for index in 0..count {
                self.check()?;
                self.pace.at(part(0, index * (cuts.len() + 1), count));
                let mut state = self.line.take(index)?;
                for at in 0..=cuts.len() {
                    state = self
                        .network
                        .advance(block, at, state, &self.run(index, &weights))?;
                    if let Some(cut) = cuts.get(at) {
                        visitor.meets(&self.line.batches[index], self.network);
                        visitor.see(at, cut, &state)?;
                    }
                }
                visitor.passed(block, &state)?;
                self.line.put(index, state)?;
            }
            for (at, cut) in cuts.iter().enumerate() {
                visitor.settle(&mut self.here(block, at, cut, &mut weights))?;
            }
            return Ok(());
        }
        for at in 0..=cuts.len() {
            for index in 0..count {
                self.check()?;
                self.pace.at(part(at, index, count));
                let state = self.line.take(index)?;
                let state = self
                    .network
                    .advance(block, at, state, &self.run(index, &weights))?;
                match cuts.get(at) {
                    Some(cut) => {
                        visitor.meets(&self.line.batches[index], self.network);
                        visitor.see(at, cut, &state)?;
                    }
                    None => visitor.passed(block, &state)?,
                }
                self.line.put(index, state)?;
            }
            if let Some(cut) = cuts.get(at) {
                self.check()?;
                visitor.settle(&mut self.here(block, at, cut, &mut weights))?;
            }
        }
        Ok(())
    }

    /// Takes the untouched states through a block whose weights are not replaced yet.
    fn answer(&mut self, block: usize, cuts: usize, weights: &Weights) -> Result<()> {
        for index in 0..self.line.batches.len() {
            self.check()?;
            // In front of the first block both are the same.
            let hidden = if self.line.untouched.len() <= index {
                self.hidden(index)?.1
            } else {
                self.line.untouched(index)?
            };
            let mut state = State::between(hidden);
            for at in 0..=cuts {
                state = self
                    .network
                    .advance(block, at, state, &self.run(index, weights))?;
            }
            self.line.put_untouched(index, &state.hidden)?;
        }
        Ok(())
    }

    /// The batches, and a stash that holds the hidden states of batch b in slot b: those slots were made first.
    pub fn into_hidden(self) -> Result<(Vec<Batch>, Stash)> {
        Ok((self.line.batches, self.line.stash))
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.network.sizes().blocks
    }

    /// A batch's hidden states between two blocks.
    pub fn hidden(&self, batch: usize) -> Result<(&Batch, Tensor)> {
        Ok((&self.line.batches[batch], self.line.hidden(batch)?))
    }

    /// Puts hidden states back that [`Walk::hidden`] gave, in this or an earlier run.
    pub fn restore(&mut self, batch: usize, hidden: Tensor) -> Result<()> {
        self.line.take(batch)?;
        self.line.put(batch, State::between(hidden))
    }

    /// A batch's states between two blocks that no replaced weight has touched, where they are kept.
    pub fn untouched(&self, batch: usize) -> Result<Option<Tensor>> {
        let kept = self.line.untouched.len() > batch;
        kept.then(|| self.line.untouched(batch)).transpose()
    }

    /// Puts states back that [`Walk::untouched`] gave, in the order of the batches.
    pub fn restore_untouched(&mut self, batch: usize, hidden: &Tensor) -> Result<()> {
        self.line.put_untouched(batch, hidden)
    }

    fn here<'b>(&'b self, block: usize, at: usize, cut: &'b Cut, weights: &'b mut Weights) -> Here<'b> {
        Here {
            block,
            at,
            cut,
            weights,
            network: self.network,
            all_experts: self.all_experts,
            ops: self.compute.ops(),
            line: &self.line,
        }
    }

    fn run<'b>(&'b self, batch: usize, weights: &'b Weights) -> Run<'b> {
        Run {
            batch: &self.line.batches[batch],
            weights,
            ops: self.compute.ops(),
            all_experts: self.all_experts,
        }
    }

    fn load(&self, names: &[String]) -> Result<Weights> {
        let mut weights = self.compute.weights();
        for name in names {
            self.check()?;
            let transposed = self.network.stored_transposed(name);
            self.source.load(name, transposed, &mut weights)?;
        }
        Ok(weights)
    }

    fn check(&self) -> Result<()> {
        if self.pace.should_stop() {
            return Err(Error::cancelled());
        }
        Ok(())
    }
}

/// Tokens of a batch at most, where the longest sequence has `longest`.
pub fn batch_tokens(widest: usize, longest: usize) -> usize {
    (BATCH_ELEMENTS / widest.max(1)).max(longest).max(1)
}

/// Sequences in order, as many together as the widest layer allows.
fn batches(sequences: &[Vec<u32>], widest: usize) -> Vec<Batch> {
    let most = batch_tokens(widest, 1);
    let mut batches = Vec::new();
    let mut group: Vec<&[u32]> = Vec::new();
    let mut tokens = 0;
    for sequence in sequences {
        if !group.is_empty() && tokens + sequence.len() > most {
            batches.push(Batch::new(&group));
            group.clear();
            tokens = 0;
        }
        group.push(sequence);
        tokens += sequence.len();
    }
    if !group.is_empty() {
        batches.push(Batch::new(&group));
    }
    batches
}
