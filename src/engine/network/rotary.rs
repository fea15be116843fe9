//! Rotary positions of a network.
//!
//! Owns: frequencies, and tables of them made once. Must not know: how configurations spell them.
//! Invariant: a sequence is rotated as if it were alone.

use super::Batch;
use crate::kernels::nn::rope::Table;
use std::sync::{Arc, Mutex, PoisonError};

/// Frequencies that fall once a sequence is longer than the model was made for (dynamic NTK).
#[derive(Clone, Copy, Debug)]
pub struct Dynamic {
    /// Base of the frequencies.
    pub theta: f64,
    /// How much longer sequences may become.
    pub factor: f64,
    /// The length the model was made for.
    pub context: usize,
}

/// How a network rotates positions.
#[derive(Clone, Debug)]
pub struct Rotary {
    frequencies: Vec<f64>,
    factor: f64,
    dynamic: Option<Dynamic>,
    made: Arc<Mutex<Option<Arc<Table>>>>,
}

/// A table and which of its rows each token uses.
#[derive(Clone, Debug)]
pub struct Turns {
    /// Cosines and sines.
    pub table: Arc<Table>,
    /// Row of each token.
    pub rows: Vec<u32>,
}

impl Rotary {
    /// Angles per position of each pair, and the factor of cosines and sines (1 but for `YaRN`).
    pub fn new(frequencies: Vec<f64>, factor: f64, dynamic: Option<Dynamic>) -> Self {
        Self {
            frequencies,
            factor,
            dynamic,
            made: Arc::default(),
        }
    }

    /// The rotations of a batch.
    pub fn turns(&self, batch: &Batch) -> Turns {
        let longest = batch.lengths.iter().copied().max().unwrap_or(0);
        if let Some(dynamic) = self.dynamic.filter(|d| longest > d.context) {
            return self.dynamic_turns(batch, dynamic);
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let half = self.frequencies.len();
        let table = match made.take() {
            Some(table) if table.cos.len() >= longest * half => table,
            _ => Arc::new(Table::new(&self.frequencies, self.factor, longest)),
        };
        *made = Some(Arc::clone(&table));
        Turns {
            table,
            rows: batch.positions.clone(),
        }
    }

    /// A table for each sequence, one after another.
    fn dynamic_turns(&self, batch: &Batch, dynamic: Dynamic) -> Turns {
        let half = self.frequencies.len();
        let mut table = Table {
            half,
            cos: Vec::new(),
            sin: Vec::new(),
        };
        for length in batch.lengths.iter().copied() {
            let own = Table::new(&self.stretched(dynamic, length), self.factor, length);
            table.cos.extend(own.cos);
            table.sin.extend(own.sin);
        }
        Turns {
            table: Arc::new(table),
            rows: (0..batch.tokens() as u32).collect(),
        }
    }

    fn stretched(&self, dynamic: Dynamic, length: usize) -> Vec<f64> {
        if length <= dynamic.context {
            return self.frequencies.clone();
        }
        let rotated = 2.0 * self.frequencies.len() as f64;
        let longer = dynamic.factor * length as f64 / dynamic.context as f64 - (dynamic.factor - 1.0);
        let theta = dynamic.theta * longer.powf(rotated / (rotated - 2.0));
        (0..self.frequencies.len())
            .map(|i| theta.powf(-2.0 * i as f64 / rotated))
            .collect()
    }
}
