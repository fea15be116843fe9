//! The weights that are in memory: those of one block, or of the embedding or the head.
//!
//! Owns: tensors by name, on one device; how a linear layer is applied. Must not know: where they come from.
//! Invariant: a layer's inputs are quantized exactly as the engine that will serve it does.

use super::Ops;
use super::differentiable::Rounded;
use crate::error::{Error, Result};
use crate::tensor::{Rows, chunk_rows};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

/// What happens to a layer's inputs before they are multiplied: a function over rows of `cols` values.
pub type InputRounding = Arc<dyn Fn(&mut [f32], usize) + Send + Sync>;

/// A linear layer's weight.
#[derive(Clone)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Tensor,
    /// What happens to its inputs.
    pub rounding: Option<InputRounding>,
}

/// Tensors by their names in the checkpoint.
#[derive(Clone)]
pub struct Weights {
    device: Device,
    map: HashMap<String, Linear>,
    /// What happens to what a layer writes to the key/value cache.
    caches: HashMap<String, InputRounding>,
}

impl Weights {
    /// None yet, in the memory of that device.
    pub fn on(device: Device) -> Self {
        Self {
            device,
            map: HashMap::new(),
            caches: HashMap::new(),
        }
    }

    /// Where they are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Puts a tensor in, or replaces it.
    pub fn put(&mut self, name: &str, weight: &Tensor, rounding: Option<InputRounding>) -> Result<()> {
        let weight = weight.to_device(&self.device)?;
        self.map.insert(name.to_owned(), Linear { weight, rounding });
        Ok(())
    }

    /// Says what happens to what a layer writes to the key/value cache.
    pub fn cache(&mut self, name: &str, rounding: InputRounding) {
        self.caches.insert(name.to_owned(), rounding);
    }

    /// What is read back from the cache where this layer wrote `x`.
    pub fn cached(&self, name: &str, x: Tensor) -> Result<Tensor> {
        let Some(rounding) = self.caches.get(name) else {
            return Ok(x);
        };
        rounded(&x, rounding)
    }

    /// Reads a tensor's rows as f32 in the given shape.
    pub fn load(
        &mut self,
        name: &str,
        rows: &dyn Rows,
        shape: &[usize],
        rounding: Option<InputRounding>,
    ) -> Result<()> {
        let values = read_all(rows)?;
        let weight = Tensor::from_vec(values, shape, &Device::Cpu)?;
        self.put(name, &weight, rounding)
    }

    /// Replaces a weight; what happens to the layer's inputs stays as it is.
    pub fn replace(&mut self, name: &str, weight: &Tensor) -> Result<()> {
        let layer = self
            .map
            .get_mut(name)
            .ok_or_else(|| Error::internal(format!("tensor {name} is not loaded")))?;
        layer.weight = weight.to_device(&self.device)?;
        Ok(())
    }

    /// Reads a linear's weight that is stored `[in, out]`, the rows being inputs.
    pub fn load_transposed(
        &mut self,
        name: &str,
        rows: &dyn Rows,
        rounding: Option<InputRounding>,
    ) -> Result<()> {
        let values = read_transposed(rows)?;
        let weight = Tensor::from_vec(values, (rows.cols(), rows.rows()), &Device::Cpu)?;
        self.put(name, &weight, rounding)
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.find(name).map(|l| &l.weight)
    }

    /// The tensor of that name, where there is one.
    pub fn maybe(&self, name: &str) -> Option<&Tensor> {
        self.map.get(name).map(|l| &l.weight)
    }

    fn find(&self, name: &str) -> Result<&Linear> {
        self.map
            .get(name)
            .ok_or_else(|| Error::internal(format!("tensor {name} is not loaded")))
    }

    /// Applies the linear layer whose weight is `name`, with its bias if there is one.
    pub fn linear(&self, ops: Ops, name: &str, x: &Tensor) -> Result<Tensor> {
        let layer = self.find(name)?;
        let bias = name
            .strip_suffix("weight")
            .and_then(|module| self.maybe(&format!("{module}bias")));
        let Some(rounding) = &layer.rounding else {
            return ops.linear(x, &layer.weight, bias);
        };
        ops.linear(&rounded(x, rounding)?, &layer.weight, bias)
    }
}

/// Rounding is our own code and works in the CPU's memory.
fn rounded(x: &Tensor, rounding: &InputRounding) -> Result<Tensor> {
    let rounded = x
        .to_device(&Device::Cpu)?
        .apply_op1(Rounded(Arc::clone(rounding)))?;
    Ok(rounded.to_device(x.device())?)
}

/// All rows as f32, read in parallel.
pub(crate) fn read_all(rows: &dyn Rows) -> Result<Vec<f32>> {
    let cols = rows.cols().max(1);
    let mut values = vec![0.0; rows.rows() * cols];
    let step = chunk_rows(cols);
    values
        .par_chunks_mut(step * cols)
        .enumerate()
        .try_for_each(|(i, out)| rows.read(i * step, out))?;
    Ok(values)
}

/// All columns as f32, one after another.
pub(crate) fn read_transposed(rows: &dyn Rows) -> Result<Vec<f32>> {
    let (count, cols) = (rows.rows(), rows.cols().max(1));
    let mut values = vec![0.0; count * cols];
    if values.is_empty() {
        return Ok(values);
    }
    // Few rows at a time: the line that a column's element lies in is still in the cache for the next columns.
    let step = chunk_rows(cols);
    let mut chunk = vec![0.0; step.min(count) * cols];
    for first in (0..count).step_by(step) {
        let taken = step.min(count - first);
        let chunk = &mut chunk[..taken * cols];
        rows.read(first, chunk)?;
        values.par_chunks_mut(count).enumerate().for_each(|(col, out)| {
            for (out, row) in out[first..first + taken].iter_mut().zip(chunk.chunks_exact(cols)) {
                *out = row[col];
            }
        });
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting(usize, usize);

    impl Rows for Counting {
        fn rows(&self) -> usize {
            self.0
        }

        fn cols(&self) -> usize {
            self.1
        }

        fn read(&self, first_row: usize, out: &mut [f32]) -> Result<()> {
            for (i, value) in out.iter_mut().enumerate() {
                *value = (first_row * self.1 + i) as f32;
            }
            Ok(())
        }
    }

    /// Sides that fit one chunk, several, and neither a whole number of chunks nor of caches.
    #[test]
    fn a_transposed_read_is_the_transpose() {
        for (count, cols) in [(1, 1), (3, 5), (700, 513), (2, 300_000)] {
            let turned = read_transposed(&Counting(count, cols)).unwrap();
            let right = |i: usize| ((i % count) * cols + i / count) as f32;
            assert!(
                turned.iter().enumerate().all(|(i, v)| *v == right(i)),
                "{count} {cols}"
            );
        }
    }
}
