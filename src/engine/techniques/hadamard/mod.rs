//! Hadamard rotations folded into the weights: outliers are spread, and a stage that quantizes afterwards has less of
//! them.
//!
//! Owns: its options, which tensor is turned by what. Must not know: packing, what quantizes afterwards.
//! Invariant: the network computes the same afterwards; all tensors that a rotation meets are turned, or none is.

mod turn;

use super::folding::{SCALED, unfit};
use super::options::{self, Options, Planned};
use super::{Decision, Each, Task, Technique, Work};
use crate::error::{Error, Result};
use crate::kernels::hadamard;
use crate::models::Role;
use crate::network::Residual;
use crate::plan::{Context, Orthogonal, Rotation, Turned};
use crate::recipe::Refusal;
use crate::tensor::Rows;
use crate::weight::Weight;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};

/// The technique.
pub(super) struct Hadamard;

impl Technique for Hadamard {
    fn name(&self) -> &'static str {
        "hadamard"
    }

    fn summary(&self) -> &'static str {
        "Turns hidden states and values by Hadamard matrices and folds that into the weights, which changes nothing that \
         the model computes and spreads the outliers of weights and activations; a stage that quantizes follows. \
         Ashkboos et al. 2024 (QuaRot)."
    }

    fn page(&self) -> &'static str {
        include_str!("../pages/hadamard.md")
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {
            "rotations": {"type": "string", "enum": ["R1R2", "R1", "R2"], "default": "R1R2", "examples": ["R1R2"],
                "description": "R1 turns the hidden states: every matrix, the embedding and the head change, norms become \
                    ones, and a head that is tied to the embedding gets a weight of its own. R2 turns the values of each \
                    attention head: value and output projections change."},
            "transform_type": {"type": "string", "enum": ["hadamard", "random-hadamard"], "default": "hadamard",
                "examples": ["hadamard"],
                "description": "With random signs, drawn from the recipe's seed, or without. Where no Hadamard matrix of \
                    the full size is known, blocks of the largest power of two that divides it are used."}}})
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let residual = context.residual()?;
        let (turns_hidden, turns_heads) = asked(&options);
        let random = options.text("transform_type") == "random-hadamard";
        let mut turns = Turns {
            context,
            seed: random.then_some(context.seed),
            by_name: (0..)
                .zip(context.tensors)
                .map(|(at, t)| (t.name.as_str(), at))
                .collect(),
            found: BTreeMap::new(),
        };
        if turns_hidden {
            turns.hidden(&residual)?;
        }
        if turns_heads {
            turns.heads(&residual)?;
        }
        check(context, &turns.found)?;
        Ok(Decision {
            kinds: turns.found.keys().map(|at| (*at, SCALED)).collect(),
            rotations: turns.found.into_iter().collect(),
            ..Decision::default()
        })
    }

    fn work(&self) -> Work {
        Work::Each(&Hadamard)
    }

    fn unties(&self, options: &Value) -> bool {
        asked(&Options::of(options, self.schema())).0
    }
}

impl Each for Hadamard {
    fn run(&self, task: &Task<'_>, input: &dyn Rows) -> Result<Weight> {
        let made = match task.rotation {
            Some(Rotation::Folded) => turn::ones(input.rows(), input.cols()),
            Some(Rotation::Turned(turned)) => turn::turned(turned, input, task.other)?,
            None => {
                let detail = format!("{} has no rotation", task.tensor.name);
                return Err(Error::internal(detail));
            }
        };
        Ok(Weight::Dense(made))
    }
}

/// Whether hidden states and whether heads shall be turned.
fn asked(options: &Options<'_>) -> (bool, bool) {
    let rotations = options.text("rotations");
    (rotations.contains("R1"), rotations.contains("R2"))
}

/// Rotations of all tensors while they are found.
struct Turns<'a> {
    context: &'a Context<'a>,
    seed: Option<u64>,
    by_name: HashMap<&'a str, usize>,
    found: BTreeMap<usize, Rotation>,
}

impl Turns<'_> {
    fn index(&self, name: &str) -> Planned<usize> {
        self.by_name.get(name).copied().ok_or_else(|| {
            let detail = format!("the model has no tensor {name}");
            vec![self.refusal("technique", "missing_tensor", detail)]
        })
    }

    fn refusal(&self, field: &str, code: &'static str, detail: String) -> Refusal {
        Refusal::new(format!("{}/{field}", self.context.pointer), code, detail)
    }

    /// What is noted of a tensor that is turned.
    fn note(&mut self, name: &str, note: impl FnOnce(&mut Turned)) -> Planned<()> {
        let at = self.index(name)?;
        let found = self.found.entry(at);
        if let Rotation::Turned(turned) = found.or_insert_with(|| Rotation::Turned(Turned::default())) {
            note(turned);
        }
        Ok(())
    }

    /// The matrix for so many channels. Signs differ from one `place` to the next.
    fn orthogonal(&self, channels: usize, place: u64) -> Planned<Orthogonal> {
        let block = hadamard::Hadamard::block(channels);
        if block < 2 {
            let detail =
                format!("there is no Hadamard matrix for {channels} channels, nor for a part of them");
            return Err(vec![self.refusal("technique", "no_hadamard_matrix", detail)]);
        }
        Ok(Orthogonal {
            period: channels,
            block,
            seed: self.seed.map(|seed| seed.wrapping_add(place)),
        })
    }

    /// R1: what writes hidden states, what reads them, and the norms in between.
    fn hidden(&mut self, residual: &Residual) -> Planned<()> {
        self.check_strangers(residual)?;
        let turn = Some(self.orthogonal(residual.width, 0)?);
        self.note(&residual.embedding, |t| t.columns = turn)?;
        for writer in &residual.writers {
            self.note(&writer.weight, |t| t.rows = turn)?;
            if let Some(bias) = &writer.bias {
                self.note(bias, |t| t.columns = turn)?;
            }
        }
        for normed in &residual.norms {
            let at = self.index(&normed.norm)?;
            self.found.insert(at, Rotation::Folded);
            for reader in &normed.readers {
                self.note(reader, |t| {
                    t.columns = turn;
                    t.norm = Some(normed.norm.clone());
                })?;
            }
        }
        Ok(())
    }

    /// R2: the values of every head, all heads of a block alike, since query heads share them.
    fn heads(&mut self, residual: &Residual) -> Planned<()> {
        for pair in &residual.pairs {
            let turn = Some(self.orthogonal(pair.head_dim, 1 + pair.block as u64)?);
            self.note(&pair.value.weight, |t| t.rows = turn)?;
            if let Some(bias) = &pair.value.bias {
                self.note(bias, |t| t.columns = turn)?;
            }
            self.note(&pair.output, |t| t.columns = turn)?;
        }
        Ok(())
    }

    /// A matrix that the network does not know may read hidden states too, and would then see them turned.
    fn check_strangers(&self, residual: &Residual) -> Planned<()> {
        let writers = residual.writers.iter().map(|writer| &writer.weight);
        let readers = residual.norms.iter().flat_map(|normed| &normed.readers);
        let known: HashSet<&String> = writers
            .chain(readers)
            .chain([&residual.embedding, &residual.head])
            .collect();
        let mut matrices = self.context.tensors.iter().filter(|t| t.shape.len() > 1);
        match matrices.find(|t| !known.contains(&t.name)) {
            None => Ok(()),
            Some(stranger) => {
                let detail = format!(
                    "nothing is known of what {} reads or writes, so the hidden states cannot be turned under it: \
                     rotations \"R2\" leaves them as they are",
                    stranger.name
                );
                let pointer = options::pointer(self.context, "rotations");
                Err(vec![Refusal::new(pointer, "unknown_tensor", detail)])
            }
        }
    }
}

/// Refuses what cannot be turned, and targets that leave a part of it out.
fn check(context: &Context<'_>, found: &BTreeMap<usize, Rotation>) -> Planned<()> {
    let mut refusals: Vec<Refusal> = found
        .keys()
        .filter_map(|at| unfit(context, *at, "turned"))
        .collect();
    let left_out = |at: &&usize| {
        let role = context.tensors[**at].role;
        // Nobody targets routers, and the head is left out where nothing else is said.
        role.is_linear() && !matches!(role, Role::Router | Role::Output) && !context.targeted[**at]
    };
    if let Some(at) = found.keys().find(left_out) {
        let detail = format!(
            "a rotation turns all layers that it meets or none, and {} is not targeted: leave out targets and ignore",
            context.tensors[*at].module()
        );
        let pointer = format!("{}/targets", context.pointer);
        refusals.push(Refusal::new(pointer, "partial_rotation", detail));
    }
    if refusals.is_empty() {
        Ok(())
    } else {
        Err(refusals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hidden_states_need_a_head_of_their_own() {
        for (options, unties) in [
            (json!({}), true),
            (json!({"rotations": "R1"}), true),
            (json!({"rotations": "R2"}), false),
        ] {
            assert_eq!(Hadamard.unties(&options), unties, "{options}");
        }
        assert!(!SCALED.is_compressed());
    }
}
