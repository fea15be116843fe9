//! Shared matrices: sums over the blocks of a run, and what comes of them.
//!
//! Owns: one walk to choose runs where nobody gave them, one to fit. Must not know: which matrices are shared.
//! Invariant: only one run's sums are held; weights of the model stay as they are while it runs, so that each block's
//! inputs are its own.

use super::LIST;
use super::choose::{By, Look};
use crate::calibrate::{Here, Visitor};
use crate::error::{Error, Result};
use crate::kernels::gptq::{ActOrder, Curvature};
use crate::kernels::linalg::Gram;
use crate::kernels::sharing::Sums;
use crate::models::Role;
use crate::network::{Cut, State, with_values};
use crate::observe::Level;
use crate::plan::{SharedBlocks, TensorPlan};
use crate::techniques::hessians::{Hessians, Seen, tell_damping};
use crate::techniques::{BlockStage, Maker, folding};
use crate::weight::Weight;
use candle_core::{Device, Tensor};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};

/// What becomes of the matrices of a run.
pub(super) struct How {
    pub fit: String,
    pub damp: f64,
}

/// Matrices that read the same, over the blocks of a run so far.
struct Group {
    modules: Vec<String>,
    /// Of each of them.
    sums: Vec<Sums>,
    /// Σ `XᵀX`.
    gram: Vec<f32>,
    tokens: usize,
}

/// Goes through the model.
pub(super) struct Sharer<'a> {
    stage: BlockStage<'a>,
    how: How,
    shared: SharedBlocks,
    /// The first block of each block's run.
    firsts: Vec<u32>,
    /// While it looks for runs.
    look: Option<Look>,
    walks: usize,
    /// By cut.
    hessians: Vec<Hessians>,
    /// By their first module.
    groups: BTreeMap<String, Group>,
    at: HashMap<&'a str, usize>,
    made: Vec<(usize, Weight)>,
    lists: Vec<(String, Vec<u32>)>,
}

impl<'a> Sharer<'a> {
    pub(super) fn new(stage: BlockStage<'a>, how: How, shared: Option<SharedBlocks>, by: Option<By>) -> Self {
        let shared = shared.unwrap_or(SharedBlocks {
            blocks: String::new(),
            modules: Vec::new(),
            own: vec![true; stage.blocks],
        });
        let firsts = shared.firsts();
        Self {
            look: by.map(|by| Look::new(by, stage.blocks)),
            walks: 1 + usize::from(by.is_some()),
            hessians: Vec::new(),
            groups: BTreeMap::new(),
            at: stage
                .tensors
                .iter()
                .enumerate()
                .map(|(at, t)| (t.name.as_str(), at))
                .collect(),
            made: Vec::new(),
            lists: by
                .is_none()
                .then(|| (LIST.to_owned(), firsts.clone()))
                .into_iter()
                .collect(),
            stage,
            how,
            shared,
            firsts,
        }
    }

    /// True where the inputs of a weight are to be seen.
    fn wants(&self, name: &str) -> bool {
        let Some((_, block)) = self.shared.place(name) else {
            return false;
        };
        match &self.look {
            Some(look) => look.by == By::Errors,
            None => self.run(block).len() > 1,
        }
    }

    /// The blocks of a block's run.
    fn run(&self, block: usize) -> std::ops::Range<usize> {
        let first = self.firsts[block];
        let begin = first as usize;
        let length = self.firsts[begin..].iter().take_while(|f| **f == first).count();
        begin..begin + length
    }

    /// A shared matrix as it is in a block, `[out, in]`.
    fn matrix(&self, module: &str, block: usize) -> Result<Vec<f32>> {
        let name = self.shared.name(module, block);
        let at = self.index(&name)?;
        let values = (self.stage.before)(at)?;
        if !self.stage.transposed.contains(&name) {
            return Ok(values);
        }
        let cols = self.stage.tensors[at].cols();
        let rows = values.len() / cols.max(1);
        let turned = (0..values.len()).map(|i| values[i % rows * cols + i / rows]);
        Ok(turned.collect())
    }

    fn mean(&self, module: &str, run: std::ops::Range<usize>) -> Result<Vec<f32>> {
        let share = 1.0 / run.len() as f32;
        let mut mean: Vec<f32> = Vec::new();
        for block in run {
            let values = self.matrix(module, block)?;
            mean.resize(values.len(), 0.0);
            mean.iter_mut().zip(&values).for_each(|(m, v)| *m += v * share);
        }
        Ok(mean)
    }

    fn index(&self, name: &str) -> Result<usize> {
        let at = self.at.get(name).copied();
        at.ok_or_else(|| Error::internal(format!("the model has no tensor {name}")))
    }

    fn check(&self) -> Result<()> {
        if self.stage.observer.should_stop() {
            return Err(Error::cancelled());
        }
        Ok(())
    }

    /// Compares each matrix of the block with those of its neighbours.
    fn compare(&mut self, here: &Here<'_>, seen: Vec<(Seen, Vec<String>)>) -> Result<()> {
        let block = here.block;
        let mut pairs: Vec<(Option<Vec<f32>>, Vec<String>)> = Vec::new();
        for (seen, readers) in seen {
            pairs.push((Some(seen.into_finite_gram(&readers.join(", "))?), readers));
        }
        if self.look.as_ref().is_some_and(|look| look.by == By::Weights) {
            let names = here.cut.readers.iter().map(|r| r.tensor.clone());
            pairs.push((
                None,
                names.filter(|name| self.shared.place(name).is_some()).collect(),
            ));
        }
        for (gram, readers) in pairs {
            for name in readers {
                let Some(module) = self.shared.place(&name).map(|(module, _)| module.to_owned()) else {
                    continue;
                };
                let w = with_values(here.weights.get(&name)?, <[f32]>::to_vec)?;
                let neighbours = [(block.checked_sub(1), false), (Some(block + 1), true)];
                for (other, next) in neighbours {
                    self.check()?;
                    let Some(other) = other.filter(|other| *other < self.stage.blocks) else {
                        continue;
                    };
                    let other = self.matrix(&module, other)?;
                    if let Some(look) = &mut self.look {
                        look.compare((block, next), &w, &other, gram.as_deref());
                    }
                }
            }
        }
        Ok(())
    }

    /// Ends the first walk.
    fn choose(&mut self) -> Result<()> {
        let Some(look) = self.look.take() else {
            return Ok(());
        };
        let observer = self.stage.observer;
        self.firsts = look.runs(self.shared.runs(), &|| observer.should_stop())?;
        self.lists = vec![(LIST.to_owned(), self.firsts.clone())];
        Ok(())
    }

    /// Adds a block's matrices and inputs to those of its run.
    fn add(&mut self, here: &Here<'_>, seen: Seen, readers: &[String]) -> Result<()> {
        let tokens = seen.tokens;
        let gram = seen.into_finite_gram(&readers.join(", "))?;
        let places = readers.iter().filter_map(|name| self.shared.place(name));
        let modules: Vec<String> = places.map(|(module, _)| module.to_owned()).collect();
        let Some(first) = modules.first().cloned() else {
            return Ok(());
        };
        let mut group = match self.groups.remove(&first) {
            Some(group) => group,
            None => Group {
                sums: modules
                    .iter()
                    .map(|module| Ok(Sums::new(self.mean(module, self.run(here.block))?)))
                    .collect::<Result<_>>()?,
                modules,
                gram: vec![0.0; gram.len()],
                tokens: 0,
            },
        };
        let n = gram.len().isqrt();
        for (name, sums) in readers.iter().zip(&mut group.sums) {
            self.check()?;
            with_values(here.weights.get(name)?, |w| sums.add(w, &gram, n))?;
        }
        group.gram.iter_mut().zip(&gram).for_each(|(sum, g)| *sum += g);
        group.tokens += tokens;
        self.groups.insert(first, group);
        Ok(())
    }

    /// Makes the matrices of a run.
    fn finish(&mut self, run: &std::ops::Range<usize>) -> Result<()> {
        let mut errors = BTreeMap::new();
        for (_, group) in std::mem::take(&mut self.groups) {
            self.check()?;
            let n = group.gram.len().isqrt();
            let curvature = self.curvature(&group, n, run)?;
            for (module, sums) in group.modules.iter().zip(&group.sums) {
                self.check()?;
                let w = match (&curvature, self.how.fit.as_str()) {
                    (_, "first") => self.matrix(module, run.start)?,
                    (Some(curvature), _) => sums.fitted(curvature).unwrap_or_else(|| sums.mean().to_vec()),
                    (None, _) => sums.mean().to_vec(),
                };
                errors.insert(module.clone(), sums.error(&w, &group.gram, n));
                self.put(module, run.start, w)?;
            }
        }
        // Matrices that no token reached, or that are alone in their run.
        for module in self.shared.modules.clone() {
            if errors.contains_key(&module) {
                continue;
            }
            self.check()?;
            let w = if run.len() == 1 || self.how.fit == "first" {
                self.matrix(&module, run.start)?
            } else {
                self.mean(&module, run.clone())?
            };
            self.put(&module, run.start, w)?;
        }
        if run.len() > 1 {
            self.tell(run, &errors);
        }
        Ok(())
    }

    fn curvature(&self, group: &Group, n: usize, run: &std::ops::Range<usize>) -> Result<Option<Curvature>> {
        if self.how.fit != "least_squares" {
            return Ok(None);
        }
        let observer = self.stage.observer;
        let stop = || observer.should_stop();
        let curvature = Curvature::new(&group.gram, n, self.how.damp, ActOrder::None, false, &stop)?;
        let names = group
            .modules
            .iter()
            .map(|module| self.shared.name(module, run.start));
        let readers: Vec<String> = names.collect();
        let by = (&curvature, self.how.damp);
        tell_damping(&self.stage, &readers, by, group.tokens, "the mean is shared");
        Ok(Some(curvature))
    }

    fn put(&mut self, module: &str, block: usize, w: Vec<f32>) -> Result<()> {
        let name = self.shared.name(module, block);
        let at = self.index(&name)?;
        let plan = &self.stage.tensors[at];
        let transposed = self.stage.transposed.contains(&name);
        let (rows, cols) = if transposed {
            (plan.cols(), plan.rows())
        } else {
            (plan.rows(), plan.cols())
        };
        let tensor = Tensor::from_vec(w, (rows, cols), &Device::Cpu)?;
        self.made.push((at, folding::dense(&tensor, plan, transposed)?));
        Ok(())
    }

    fn tell(&self, run: &std::ops::Range<usize>, errors: &BTreeMap<String, f64>) {
        let mean = errors.values().sum::<f64>() / errors.len().max(1) as f64;
        let (first, last) = (run.start, run.end - 1);
        let message = format!(
            "blocks {first} to {last} share matrices; {:.1} % of what these made of their inputs is lost, in the mean",
            100.0 * mean
        );
        let data = json!({"blocks": [first, last], "error": mean, "errors": errors});
        self.stage.observer.event(Level::Info, &message, data);
    }
}

/// Sums of a run, and what adding a block to them or solving takes, of the tensors that share.
pub(super) fn working_bytes(tensors: &[&TensorPlan], hidden: usize) -> u64 {
    let inputs = |t: &TensorPlan| match t.role {
        Role::AttnOutput | Role::FfnDown => t.elements() / hidden.max(1),
        _ => hidden,
    };
    let (mut blocks, mut largest): (HashMap<Option<usize>, u64>, u64) = (HashMap::new(), 0);
    for tensor in tensors {
        let (n, elements) = (inputs(tensor), tensor.elements());
        let square = (n * n) as u64;
        // Those of the batch at hand, as strips and whole; the sum; the mean and the pull.
        let kept = Gram::bytes(n) + 8 * square + Sums::bytes(elements);
        *blocks.entry(tensor.layer).or_default() += kept;
        let one = 40 * square + Sums::adding_bytes(elements) + 12 * elements as u64;
        largest = largest.max(one);
    }
    blocks.into_values().max().unwrap_or(0) + largest
}

impl Visitor for Sharer<'_> {
    fn replaces(&self) -> bool {
        false
    }

    fn see(&mut self, at: usize, cut: &Cut, state: &State) -> Result<()> {
        if let (0, Some(look)) = (at, &mut self.look) {
            look.enters(with_values(&state.hidden, <[f32]>::to_vec)?);
        }
        while self.hessians.len() <= at {
            self.hessians.push(Hessians::new(true));
        }
        let mut hessians = std::mem::replace(&mut self.hessians[at], Hessians::new(true));
        let added = hessians.see_for(&|name| self.wants(name), cut, state);
        self.hessians[at] = hessians;
        added
    }

    fn passed(&mut self, block: usize, state: &State) -> Result<()> {
        let hidden = state.hidden.dim(1)?;
        if let Some(look) = &mut self.look {
            with_values(&state.hidden, |after| look.leaves(block, after, hidden))?;
        }
        Ok(())
    }

    fn settle(&mut self, here: &mut Here<'_>) -> Result<()> {
        let mut hessians = Hessians::new(true);
        if let Some(own) = self.hessians.get_mut(here.at) {
            std::mem::swap(own, &mut hessians);
        }
        let seen = hessians.take_for(&|name| self.wants(name), here.cut);
        let is_last_cut = here.at + 1 == here.network.cuts(here.block).len();
        if self.look.is_some() {
            self.compare(here, seen)?;
            if is_last_cut && here.block + 1 == self.stage.blocks {
                self.choose()?;
            }
            return Ok(());
        }
        for (seen, readers) in seen {
            self.add(here, seen, &readers)?;
        }
        let run = self.run(here.block);
        if is_last_cut && here.block + 1 == run.end {
            self.finish(&run)?;
        }
        Ok(())
    }
}

impl Maker for Sharer<'_> {
    fn made(&mut self) -> Vec<(usize, Weight)> {
        std::mem::take(&mut self.made)
    }

    fn listed(&mut self) -> Vec<(String, Vec<u32>)> {
        std::mem::take(&mut self.lists)
    }

    fn walks(&self) -> usize {
        self.walks
    }

    /// Sums are not kept over a break.
    fn starts_over(&self) -> bool {
        true
    }
}
