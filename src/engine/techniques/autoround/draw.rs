//! Which sequences a step looks at.
//!
//! Owns: the draws, and putting sequences of several batches together. Must not know: what is learned from them.
//! Invariant: every sequence is drawn once before any is drawn again; those held out never are.

use crate::calibrate::Here;
use crate::error::Result;
use crate::kernels::random::Random;
use crate::network::Batch;
use candle_core::Tensor;

/// One sequence: its batch, the first of its rows there, its length.
type Place = (usize, usize, usize);

/// Draws sequences.
pub(super) struct Draws {
    random: Random,
    size: usize,
    places: Vec<Place>,
    /// Those held out come last.
    held: usize,
    next: usize,
}

impl Draws {
    /// Draws of `size` sequences at a time; an eighth of all, but no more than a draw, is held out.
    pub(super) fn new(here: &Here<'_>, size: usize, seed: u64) -> Self {
        let mut places = Vec::new();
        for batch in 0..here.batches() {
            let mut start = 0;
            for length in &here.batch(batch).lengths {
                places.push((batch, start, *length));
                start += length;
            }
        }
        let mut random = Random::new(seed);
        shuffle(&mut places, &mut random);
        Self {
            held: (places.len() / 8).min(size),
            random,
            size,
            places,
            next: 0,
        }
    }

    /// What is never learned from; where there are too few sequences for that, the first of all.
    pub(super) fn held_out(&self) -> Vec<Place> {
        let learned = self.places.len() - self.held;
        if self.held > 0 {
            self.places[learned..].to_vec()
        } else {
            self.places[..self.size.min(learned)].to_vec()
        }
    }

    /// The next sequences.
    pub(super) fn draw(&mut self) -> Vec<Place> {
        let learned = self.places.len() - self.held;
        let mut drawn = Vec::new();
        while drawn.len() < self.size.min(learned) {
            if self.next >= learned {
                shuffle(&mut self.places[..learned], &mut self.random);
                self.next = 0;
            }
            drawn.push(self.places[self.next]);
            self.next += 1;
        }
        drawn
    }
}

/// Fisher and Yates.
fn shuffle(places: &mut [Place], random: &mut Random) {
    for last in (1..places.len()).rev() {
        places.swap(last, random.below(last as u64 + 1) as usize);
    }
}

/// Sequences of several batches as one.
pub(super) fn together(here: &Here<'_>, places: &[Place]) -> Batch {
    let ids = places
        .iter()
        .map(|(batch, start, length)| &here.batch(*batch).ids[*start..start + length]);
    Batch::new(&ids.collect::<Vec<_>>())
}

/// The rows of these sequences, of which `states` has a batch at a time.
pub(super) fn rows_of(places: &[Place], states: impl Fn(usize) -> Result<Tensor>) -> Result<Tensor> {
    let mut rows: Vec<Tensor> = Vec::new();
    let mut open: Option<(usize, Tensor)> = None;
    for (batch, start, length) in places.iter().copied() {
        let state = match open.take() {
            Some((at, state)) if at == batch => state,
            _ => states(batch)?,
        };
        rows.push(state.narrow(0, start, length)?);
        open = Some((batch, state));
    }
    Ok(Tensor::cat(&rows, 0)?.contiguous()?)
}
