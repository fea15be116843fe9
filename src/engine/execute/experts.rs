//! How many calibration tokens the routers of a mixture sent to each expert.
//!
//! Owns: the counts, and what is said about experts that got few. Must not know: what stages do with the tokens.
//! Invariant: whoever looks on sees what it would see without the counting.

use super::shelf::Shelf;
use crate::calibrate::{Here, Visitor};
use crate::error::Result;
use crate::network::{Batch, Cut, Network, State};

/// Looks on beside a visitor.
pub(super) struct Counting<'a> {
    visitor: &'a mut dyn Visitor,
    /// The cut at which routes first show; they stay with the state.
    at: Option<usize>,
    routed: Vec<u64>,
}

impl<'a> Counting<'a> {
    pub(super) fn beside(visitor: &'a mut dyn Visitor) -> Self {
        Self {
            visitor,
            at: None,
            routed: Vec::new(),
        }
    }

    /// Tokens by expert; empty where the block has none.
    pub(super) fn routed(self) -> Vec<u64> {
        self.routed
    }
}

impl Visitor for Counting<'_> {
    fn replaces(&self) -> bool {
        self.visitor.replaces()
    }

    fn compares(&self) -> bool {
        self.visitor.compares()
    }

    fn meets(&mut self, batch: &Batch, network: &dyn Network) {
        self.visitor.meets(batch, network);
    }

    fn see(&mut self, at: usize, cut: &Cut, state: &State) -> Result<()> {
        if !state.routes.is_empty() && *self.at.get_or_insert(at) == at {
            self.routed.resize(state.routes.len(), 0);
            for (sum, route) in self.routed.iter_mut().zip(&state.routes) {
                *sum += route.shares.iter().filter(|share| **share > 0.0).count() as u64;
            }
        }
        self.visitor.see(at, cut, state)
    }

    fn passed(&mut self, block: usize, state: &State) -> Result<()> {
        self.visitor.passed(block, state)
    }

    fn settle(&mut self, here: &mut Here<'_>) -> Result<()> {
        self.visitor.settle(here)
    }
}

/// What to say where routers left experts with fewer tokens than they have inputs: their statistics say little. `all` is
/// true where every token was shown to every expert all the same.
pub(super) fn underfed(
    shelf: &Shelf,
    stage: usize,
    technique: &str,
    (blocks, hidden): (usize, usize),
    all: bool,
) -> Result<Option<String>> {
    let (mut experts, mut few, mut least) = (0, 0, u64::MAX);
    let mut worst = (0, 0);
    for block in 0..blocks {
        for (expert, tokens) in shelf.routed(stage, block)?.into_iter().enumerate() {
            experts += 1;
            few += usize::from(tokens < hidden as u64);
            if tokens < least {
                (least, worst) = (tokens, (block, expert));
            }
        }
    }
    if few == 0 {
        return Ok(None);
    }
    let so = if all {
        "every token was shown to every expert, so all of them are calibrated"
    } else {
        "take more calibration data, or set moe_calibrate_all_experts"
    };
    Ok(Some(format!(
        "{technique}: routers sent fewer than {hidden} calibration tokens to {few} of {experts} experts (expert {} of \
         block {} got {least}); {so}",
        worst.1, worst.0
    )))
}
