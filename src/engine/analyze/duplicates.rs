//! Tensors that are the same bytes.
//!
//! Owns: who may be whose duplicate, and proving it.
//! Must not know: why a model has two of them.
//! Invariant: a tensor is a duplicate of the first one with its type, shape and bytes, by SHA-256; only tensors with equal
//! figures are read for it.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use super::moments::Moments;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::observe::Observer;
use crate::tensor::TensorInfo;

/// Read at once.
const PIECE: usize = 4 << 20;

/// Pairs of positions: the duplicate, and what it is one of.
pub(super) fn find(
    model: &Checkpoint,
    looks: &[(&TensorInfo, Moments)],
    observer: &dyn Observer,
) -> Result<Vec<(usize, usize)>> {
    let mut alike: HashMap<_, Vec<usize>> = HashMap::new();
    for (at, (info, moments)) in looks.iter().enumerate() {
        let figures = (moments.mean.to_bits(), moments.variance().to_bits());
        alike
            .entry((info.dtype.name(), &info.shape, figures))
            .or_default()
            .push(at);
    }
    let mut pairs = Vec::new();
    for group in alike.values().filter(|group| group.len() > 1) {
        let mut first = HashMap::new();
        for at in group {
            let digest = digest(model, looks[*at].0, observer)?;
            match first.get(&digest) {
                Some(original) => pairs.push((*at, *original)),
                None => _ = first.insert(digest, *at),
            }
        }
    }
    Ok(pairs)
}

fn digest(model: &Checkpoint, info: &TensorInfo, observer: &dyn Observer) -> Result<[u8; 32]> {
    let rows = model.rows(info)?;
    let (mut hash, mut at) = (Sha256::new(), 0);
    let mut piece = vec![0; PIECE.min(usize::try_from(info.bytes).unwrap_or(PIECE))];
    while at < info.bytes {
        super::go_on(observer)?;
        let length = (info.bytes - at).min(piece.len() as u64) as usize;
        rows.read_bytes(at, &mut piece[..length])?;
        hash.update(&piece[..length]);
        at += length as u64;
    }
    Ok(hash.finalize().into())
}
