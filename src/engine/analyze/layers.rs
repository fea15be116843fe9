//! Layers that are nearly the same: what could be tied.
//!
//! Owns: which tensors are compared, how near they are. Must not know: how ties are made.
//! Invariant: only tensors of one role, shape and type in different blocks are compared, each pair once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::sample::Sample;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::observe::Observer;
use crate::tensor::TensorInfo;

/// Values of a tensor that are compared.
const VALUES: usize = 4096;
/// Tensors of one kind of which every pair is compared; of more, only neighbours: sixteen thousand experts have a hundred
/// million pairs.
const ALL_PAIRS: usize = 512;
/// Distance below which a pair is worth a line.
const NEAR: f64 = 0.5;
/// Most pairs that are reported, the nearest.
const MOST: usize = 1000;

/// Two tensors that are nearly the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NearPair {
    /// The earlier one.
    pub tensor: String,
    /// The later one.
    pub like: String,
    /// `‖a − b‖ / max(‖a‖, ‖b‖)`: 0 for the same, about 1.4 for two that have nothing in common. Estimated on 4,096
    /// weights of each.
    pub relative_distance: f64,
    /// `a·b / (‖a‖ ‖b‖)`.
    pub cosine: f64,
}

struct Look<'a> {
    name: &'a str,
    values: Vec<f32>,
}

/// The nearest pairs below a distance of a half, nearest first.
pub(super) fn near(
    model: &Checkpoint,
    infos: &[&TensorInfo],
    observer: &dyn Observer,
) -> Result<Vec<NearPair>> {
    let mut groups: BTreeMap<_, Vec<Look<'_>>> = BTreeMap::new();
    for info in infos.iter().filter(|info| info.shape.len() > 1) {
        super::go_on(observer)?;
        let place = model.place(info);
        if place.layer.is_none() {
            continue;
        }
        let sample = Sample::of(model, info)?.values;
        let step = (sample.len() / VALUES).max(1);
        let look = Look {
            name: &info.name,
            values: sample.into_iter().step_by(step).take(VALUES).collect(),
        };
        let key = (format!("{:?}", place.role), info.shape.clone(), info.dtype.name());
        groups.entry(key).or_default().push(look);
    }
    let mut pairs = Vec::new();
    for looks in groups.values() {
        for (i, a) in looks.iter().enumerate() {
            super::go_on(observer)?;
            let others = if looks.len() > ALL_PAIRS { 1 } else { looks.len() };
            let near = looks[i + 1..].iter().take(others).map(|b| compare(a, b));
            pairs.extend(near.filter(|pair| pair.relative_distance < NEAR));
        }
    }
    pairs.sort_by(|a, b| {
        let by_name = || (&a.tensor, &a.like).cmp(&(&b.tensor, &b.like));
        a.relative_distance
            .total_cmp(&b.relative_distance)
            .then_with(by_name)
    });
    pairs.truncate(MOST);
    Ok(pairs)
}

fn compare(a: &Look<'_>, b: &Look<'_>) -> NearPair {
    let (mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0);
    for (x, y) in a.values.iter().zip(&b.values) {
        let (x, y) = (f64::from(*x), f64::from(*y));
        aa += x * x;
        bb += y * y;
        ab += x * y;
    }
    let (longer, both) = (aa.max(bb).sqrt(), (aa * bb).sqrt());
    let apart = (aa + bb - 2.0 * ab).max(0.0).sqrt();
    NearPair {
        tensor: a.name.to_owned(),
        like: b.name.to_owned(),
        relative_distance: if longer > 0.0 { apart / longer } else { 0.0 },
        cosine: if both > 0.0 { ab / both } else { 0.0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_of_known_pairs() {
        let look = |values: &[f32]| Look {
            name: "w",
            values: values.to_vec(),
        };
        let of = |a: &[f32], b: &[f32]| {
            let pair = compare(&look(a), &look(b));
            (pair.relative_distance, pair.cosine)
        };
        assert_eq!(of(&[3.0, 4.0], &[3.0, 4.0]), (0.0, 1.0));
        assert_eq!(of(&[3.0, 4.0], &[-4.0, 3.0]), (2f64.sqrt(), 0.0));
        assert_eq!(of(&[0.0], &[0.0]), (0.0, 0.0));
        assert_eq!(of(&[2.0], &[1.0]), (0.5, 1.0));
    }
}
