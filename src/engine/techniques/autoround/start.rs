//! Where learning begins.
//!
//! Owns: the layers of a block with their first rounding. Must not know: how it is learned.
//! Invariant: a layer that no token reached is rounded to nearest.

use crate::calibrate::Here;
use crate::error::{Error, Result};
use crate::kernels::affine::{self, Range, Spec};
use crate::kernels::gptq::{ActOrder, Curvature, How, solve};
use crate::kernels::linalg::{Gram, Precision};
use crate::kernels::signround::SignRound;
use crate::network::{Reader, State, with_values};
use crate::techniques::BlockStage;
use crate::tensor::MemoryRows;
use std::collections::BTreeMap;

/// Part of the Hessian's mean diagonal that is added to it.
const DAMP: f64 = 0.01;

/// A layer whose rounding is learned.
pub(super) struct Layer {
    /// Its weight's name.
    pub name: String,
    /// Index of the tensor.
    pub index: usize,
    /// What is learned.
    pub rounding: SignRound,
}

/// Layers that read the same: cut and input.
type Place = (usize, usize);

/// A reader that the stage quantizes.
struct Target {
    name: String,
    index: usize,
    spec: Spec,
}

fn targets(stage: &BlockStage<'_>, here: &Here<'_>) -> BTreeMap<Place, Vec<Target>> {
    let mut found: BTreeMap<Place, Vec<Target>> = BTreeMap::new();
    for (at, cut) in here.network.cuts(here.block).into_iter().enumerate() {
        for Reader { tensor, input } in cut.readers {
            let Some((index, kind)) = stage.step(&tensor) else {
                continue;
            };
            let Some(spec) = Spec::of(kind, Range::Mse, true) else {
                continue;
            };
            found.entry((at, input)).or_default().push(Target {
                name: tensor,
                index,
                spec,
            });
        }
    }
    found
}

/// Every layer of the block that the stage quantizes, at GPTQ's solution or at nearest.
pub(super) fn layers(stage: &BlockStage<'_>, here: &Here<'_>, compensated: bool) -> Result<Vec<Layer>> {
    let targets = targets(stage, here);
    if !compensated {
        return targets
            .into_values()
            .flatten()
            .map(|t| nearest(t, here))
            .collect();
    }
    let mut grams = grams(stage, here, &targets)?;
    let mut layers = Vec::new();
    for (place, readers) in targets {
        if let Some(gram) = grams.remove(&place) {
            layers.extend(solved(stage, here, readers, gram)?);
        } else {
            let rounded: Result<Vec<_>> = readers.into_iter().map(|t| nearest(t, here)).collect();
            layers.extend(rounded?);
        }
    }
    Ok(layers)
}

fn nearest(target: Target, here: &Here<'_>) -> Result<Layer> {
    let Target {
        name,
        index,
        mut spec,
    } = target;
    spec.range = Range::WeightedMse;
    let weight = here.weights.get(&name)?;
    let values = with_values(weight, <[f32]>::to_vec)?;
    let rows = MemoryRows {
        values: &values,
        cols: weight.dim(1)?,
    };
    let start = affine::quantize(&rows, &spec).map_err(named(&name))?;
    Ok(Layer {
        rounding: SignRound::new(spec, values, &start)?,
        name,
        index,
    })
}

fn named(name: &str) -> impl FnOnce(Error) -> Error {
    move |error| Error {
        message: format!("tensor {name}: {}", error.message),
        ..error
    }
}

/// Gram matrices of everything that layers read, all sequences seen, in front of weights that are as they were.
fn grams(
    stage: &BlockStage<'_>,
    here: &Here<'_>,
    targets: &BTreeMap<Place, Vec<Target>>,
) -> Result<BTreeMap<Place, Gram>> {
    let cuts = here.network.cuts(here.block).len();
    let mut grams: BTreeMap<Place, Gram> = BTreeMap::new();
    for index in 0..here.batches() {
        let (batch, state) = here.state(index)?;
        let mut state = State::between(state.hidden);
        for at in 0..cuts {
            if stage.observer.should_stop() {
                return Err(Error::cancelled());
            }
            state = here.network.advance(here.block, at, state, &here.run(batch))?;
            for place in targets.keys().filter(|(cut, _)| *cut == at) {
                let x = &state.inputs[place.1];
                if x.dim(0)? > 0 {
                    let gram = grams.entry(*place).or_insert(Gram::new(x.dim(1)?));
                    with_values(x, |x| gram.add(x, Precision::Split))?;
                }
            }
        }
    }
    Ok(grams)
}

/// GPTQ's solution for all that read the same input: what its columns had become is what is rounded.
fn solved(stage: &BlockStage<'_>, here: &Here<'_>, readers: Vec<Target>, gram: Gram) -> Result<Vec<Layer>> {
    let stop = || stage.observer.should_stop();
    let first = readers.first().map_or("", |r| r.name.as_str());
    let n = here.weights.get(first)?.dim(1)?;
    let how = How {
        act_order: ActOrder::Static,
        keeps_zeros: false,
    };
    let curvature =
        Curvature::new(&gram.into_full(), n, DAMP, how.act_order, true, &stop).map_err(named(first))?;
    let mut layers = Vec::new();
    for Target { name, index, spec } in readers {
        let values = with_values(here.weights.get(&name)?, <[f32]>::to_vec)?;
        let solved = solve(values, &curvature, how, &spec, &stop).map_err(named(&name))?;
        layers.push(Layer {
            rounding: SignRound::new(spec, solved.compensated, &solved.weight)?,
            name,
            index,
        });
    }
    Ok(layers)
}
