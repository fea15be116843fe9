//! Tensor operations in two forms: fused kernels for the CPU, and compositions of candle's own operations.
//!
//! Owns: the choice between them. Must not know: models.
//! Invariant: both forms compute the same function and the same gradients (tested); the composed one runs on every
//! device.

use super::differentiable::{Attention, Gate, LayerNorm, Pointwise, Product, RmsNorm, Rotation};
use super::{Batch, Turns};
use crate::error::{Error, Result};
use crate::kernels::linalg::Precision;
use crate::kernels::nn::attention::Heads;
use crate::kernels::nn::elementwise::Activation;
use crate::kernels::nn::{elementwise, rope};
use candle_core::{CpuStorage, D, Device, InplaceOp1, InplaceOp2, Layout, Storage, Tensor};
use std::ops::Range;

/// Queries whose scores candle's operations hold at a time: memory grows with a sequence's length, not with its square.
const QUERIES: usize = 128;

/// How operations are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ops {
    /// By our kernels: the CPU only; gradients do not depend on the number of threads either.
    Fused,
    /// The same, with the products of linear layers in [`Precision::Split`]: for what calibration sees and learns, never
    /// for what is measured.
    Split,
    /// The same in [`Precision::Bf16`].
    Bf16,
    /// By candle's operations.
    Composed,
}

/// The values of a contiguous f32 tensor; those of another device are copied to the CPU's memory.
pub(crate) fn with_values<T>(x: &Tensor, f: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let x = x.to_device(&Device::Cpu)?;
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(values)) = &*storage else {
        return Err(Error::internal("a tensor is not f32 in the CPU's memory"));
    };
    Ok(f(plain(values, layout)?))
}

fn plain<'a>(values: &'a [f32], layout: &Layout) -> Result<&'a [f32]> {
    let (start, end) = layout
        .contiguous_offsets()
        .ok_or_else(|| Error::internal("a tensor is not contiguous"))?;
    Ok(&values[start..end])
}

/// Rows and columns of a tensor taken as a matrix.
fn sides(x: &Tensor) -> Result<(usize, usize)> {
    let cols = x.dim(D::Minus1)?;
    Ok((x.elem_count() / cols.max(1), cols))
}

impl Ops {
    fn precision(self) -> Precision {
        match self {
            Self::Split => Precision::Split,
            Self::Bf16 => Precision::Bf16,
            Self::Fused | Self::Composed => Precision::Full,
        }
    }

    /// `x · wᵀ + bias`; x `[rows, in]`, w `[out, in]`.
    pub fn linear(self, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        if self == Self::Composed {
            let product = x.matmul(&w.t()?)?;
            return Ok(match bias {
                Some(bias) => product.broadcast_add(bias)?,
                None => product,
            });
        }
        let product = x.apply_op2(w, Product(self.precision()))?;
        match bias {
            Some(bias) if product.track_op() => Ok(product.broadcast_add(bias)?),
            Some(bias) => {
                let add = InPlace("add a row", elementwise::add_row);
                product.inplace_op2(bias, &add)?;
                Ok(product)
            }
            None => Ok(product),
        }
    }

    /// `x + y`; `x` is used up: nobody else holds it.
    pub fn add(self, x: Tensor, y: &Tensor) -> Result<Tensor> {
        match self {
            Self::Fused | Self::Split | Self::Bf16 if !is_tracked(&x, y) => {
                in_place(x, y, "add", elementwise::add)
            }
            _ => Ok((x + y)?),
        }
    }

    /// RMS norm of rows of `weight`'s length.
    pub fn rms_norm(self, x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
        match self {
            Self::Composed => {
                let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?.recip()?;
                Ok(x.broadcast_mul(&scale)?.broadcast_mul(weight)?)
            }
            Self::Fused | Self::Split | Self::Bf16 => {
                let (weight, eps) = (weight.clone(), eps as f32);
                Ok(x.apply_op1(RmsNorm { weight, eps })?)
            }
        }
    }

    /// Layer norm of rows of `weight`'s length.
    pub fn layer_norm(self, x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
        match self {
            Self::Composed => {
                let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
                let scale = (centred.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?.recip()?;
                let scaled = centred.broadcast_mul(&scale)?;
                Ok(scaled.broadcast_mul(weight)?.broadcast_add(bias)?)
            }
            Self::Fused | Self::Split | Self::Bf16 => {
                let (weight, bias, eps) = (weight.clone(), bias.clone(), eps as f32);
                Ok(x.apply_op1(LayerNorm { weight, bias, eps })?)
            }
        }
    }

    /// Rotary positions on `[tokens, heads · head_dim]`; `x` is used up: nobody else holds it.
    pub fn rotate(self, x: Tensor, head_dim: usize, turns: &Turns) -> Result<Tensor> {
        let (tokens, cols) = sides(&x)?;
        let heads = cols / head_dim;
        let table = &turns.table;
        if self != Self::Composed {
            if x.track_op() {
                let turns = turns.clone();
                return Ok(x.apply_op1(Rotation {
                    heads,
                    head_dim,
                    turns,
                })?);
            }
            let rotate = |x: &mut [f32]| rope::rotate(x, heads, head_dim, &turns.rows, table);
            x.inplace_op1(&InPlace("rotate", rotate))?;
            return Ok(x);
        }
        let half = table.half;
        let pick = |values: &[f32]| -> Result<Tensor> {
            let rows = turns.rows.iter().flat_map(|p| {
                let at = *p as usize * half;
                values[at..at + half].iter().copied()
            });
            Ok(Tensor::from_vec(rows.collect(), (tokens, 1, half), x.device())?)
        };
        let (cos, sin) = (pick(&table.cos)?, pick(&table.sin)?);
        let x = x.reshape((tokens, heads, head_dim))?;
        let (a, b) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        let mut parts = vec![first, second];
        if 2 * half < head_dim {
            parts.push(x.narrow(2, 2 * half, head_dim - 2 * half)?);
        }
        Ok(Tensor::cat(&parts, 2)?.reshape((tokens, cols))?)
    }

    /// Attention within each sequence.
    pub fn attention(self, q: &Tensor, k: &Tensor, v: &Tensor, batch: &Batch, h: &Heads) -> Result<Tensor> {
        if self != Self::Composed {
            let lengths = batch.lengths.clone();
            return Ok(q.apply_op3(k, v, Attention { lengths, heads: *h })?);
        }
        let mut parts = Vec::new();
        let mut start = 0;
        for length in batch.lengths.iter().copied() {
            let cut = |x: &Tensor, heads: usize| -> Result<Tensor> {
                let x = x.narrow(0, start, length)?.reshape((length, heads, h.head_dim))?;
                Ok(x.transpose(0, 1)?.contiguous()?)
            };
            let (q, k, v) = (cut(q, h.heads)?, cut(k, h.kv_heads)?, cut(v, h.kv_heads)?);
            let (k, v) = (spread(&k, h)?.transpose(1, 2)?.contiguous()?, spread(&v, h)?);
            for from in (0..length).step_by(QUERIES) {
                let queries = QUERIES.min(length - from);
                let q = q.narrow(1, from, queries)?.contiguous()?;
                let scores = (q.matmul(&k)? * f64::from(h.scale))?;
                let scores = match mask(from..from + queries, length, h, q.device())? {
                    Some(mask) => scores.broadcast_add(&mask)?,
                    None => scores,
                };
                let out = softmax(&scores)?.matmul(&v)?.transpose(0, 1)?;
                parts.push(out.reshape((queries, h.heads * h.head_dim))?);
            }
            start += length;
        }
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// `f(x)`; `x` is used up: nobody else holds it.
    pub fn activate(self, x: Tensor, activation: Activation) -> Result<Tensor> {
        if self != Self::Composed {
            if x.track_op() {
                return Ok(x.apply_op1(Pointwise(activation))?);
            }
            x.inplace_op1(&InPlace("activate", |x: &mut [f32]| activation.apply(x)))?;
            return Ok(x);
        }
        Ok(match activation {
            Activation::Silu => x.silu()?,
            Activation::Gelu => x.gelu_erf()?,
            Activation::GeluTanh => x.gelu()?,
            Activation::Relu => x.relu()?,
        })
    }

    /// `f(gate) · up`; `gate` is used up: nobody else holds it.
    pub fn gated(self, gate: Tensor, up: &Tensor, activation: Activation) -> Result<Tensor> {
        match self {
            Self::Composed => Ok((self.activate(gate, activation)? * up)?),
            Self::Fused | Self::Split | Self::Bf16 if is_tracked(&gate, up) => {
                Ok(gate.apply_op2(up, Gate(activation))?)
            }
            Self::Fused | Self::Split | Self::Bf16 => {
                in_place(gate, up, "gated", |gate, up| activation.gated(gate, up))
            }
        }
    }
}

/// True where a gradient will be asked of one of them: both must stay as they are then.
fn is_tracked(x: &Tensor, y: &Tensor) -> bool {
    x.track_op() || y.track_op()
}

/// A function on the values of one tensor, or of two, that changes the first.
struct InPlace<F>(&'static str, F);

impl<F: Fn(&mut [f32])> InplaceOp1 for InPlace<F> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        self.1(plain_mut(x, layout)?);
        Ok(())
    }
}

impl<F: Fn(&mut [f32], &[f32])> InplaceOp2 for InPlace<F> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (CpuStorage::F32(y), Some((start, end))) = (y, y_layout.contiguous_offsets()) else {
            candle_core::bail!("{}: values are not f32 one after another", self.0);
        };
        self.1(plain_mut(x, x_layout)?, &y[start..end]);
        Ok(())
    }
}

fn plain_mut<'a>(x: &'a mut CpuStorage, layout: &Layout) -> candle_core::Result<&'a mut [f32]> {
    let (CpuStorage::F32(x), Some((start, end))) = (x, layout.contiguous_offsets()) else {
        candle_core::bail!("values are not f32 one after another");
    };
    Ok(&mut x[start..end])
}

fn in_place(x: Tensor, y: &Tensor, name: &'static str, f: impl Fn(&mut [f32], &[f32])) -> Result<Tensor> {
    if x.dims() != y.dims() {
        return Err(Error::internal(format!(
            "{name}: {:?} and {:?}",
            x.dims(),
            y.dims()
        )));
    }
    x.inplace_op2(y, &InPlace(name, f))?;
    Ok(x)
}

/// `[kv_heads, length, head_dim]` to `[heads, …]`: each head repeated for the queries that share it.
fn spread(x: &Tensor, h: &Heads) -> Result<Tensor> {
    let shared = h.heads / h.kv_heads;
    if shared == 1 {
        return Ok(x.clone());
    }
    let (kv, length, dim) = x.dims3()?;
    let wide = x.unsqueeze(1)?.broadcast_as((kv, shared, length, dim))?;
    Ok(wide.reshape((h.heads, length, dim))?.contiguous()?)
}

/// What is added to the scores of those queries, so that they see no more than they may.
fn mask(queries: Range<usize>, length: usize, h: &Heads, device: &Device) -> Result<Option<Tensor>> {
    if !h.causal {
        return Ok(None);
    }
    let rows = queries.len();
    let hidden = |i: usize, j: usize| j > i || h.window.is_some_and(|w| j + w <= i);
    let cell = |at: usize| {
        if hidden(queries.start + at / length, at % length) {
            f32::NEG_INFINITY
        } else {
            0.0
        }
    };
    let cells: Vec<f32> = (0..rows * length).map(cell).collect();
    Ok(Some(Tensor::from_vec(cells, (1, rows, length), device)?))
}

/// Softmax over the last dimension.
pub(crate) fn softmax(x: &Tensor) -> Result<Tensor> {
    let e = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?.exp()?;
    Ok(e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Rotary;
    use candle_core::Var;

    fn pattern(rows: usize, cols: usize, seed: usize) -> Tensor {
        let values = (0..rows * cols).map(|i| (((i + seed) * 7919 % 1009) as f32 - 500.0) / 250.0);
        let values: Vec<f32> = values.collect();
        Tensor::from_vec(values, (rows, cols), &Device::Cpu).unwrap()
    }

    /// The same values in memory of their own.
    fn copy(x: &Tensor) -> Tensor {
        x.copy().unwrap()
    }

    fn worst(a: &Tensor, b: &Tensor) -> f32 {
        let gap = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
        gap.max(0).unwrap().to_scalar::<f32>().unwrap()
    }

    /// Largest difference of both forms' results, and of the gradients of a sum over them, weighted by a pattern.
    fn gap(inputs: &[&Tensor], f: &dyn Fn(Ops, &[Tensor]) -> Result<Tensor>) -> f32 {
        let one = |ops: Ops| {
            let vars: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(x).unwrap()).collect();
            let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
            let y = f(ops, &tensors).unwrap();
            let (rows, cols) = y.dims2().unwrap();
            let sum = (&y * pattern(rows, cols, 77)).unwrap().sum_all().unwrap();
            let gradients = sum.backward().unwrap();
            let mut all: Vec<Tensor> = tensors
                .iter()
                .map(|t| gradients.get(t).unwrap().clone())
                .collect();
            all.push(y);
            all
        };
        let (fused, composed) = (one(Ops::Fused), one(Ops::Composed));
        // Without variables, what is used up is changed in place.
        let plain: Vec<Tensor> = inputs.iter().map(|x| copy(x)).collect();
        let plain = worst(&f(Ops::Fused, &plain).unwrap(), &composed[inputs.len()]);
        let pairs = fused.iter().zip(&composed);
        pairs.map(|(a, b)| worst(a, b)).fold(plain, f32::max)
    }

    /// Every operation that has two forms, on the same inputs, none of them 0: there a `ReLU` has no slope.
    #[test]
    fn both_forms_agree() {
        let batch = Batch::new(&[&[1; 9], &[2; 21], &[3; 150]]);
        let (x, y) = ((pattern(180, 64, 1) + 1e-3).unwrap(), pattern(180, 64, 2));
        let (w, b) = (pattern(48, 64, 3), pattern(1, 48, 4).squeeze(0).unwrap());
        let vector = |seed| pattern(1, 64, seed).squeeze(0).unwrap();
        let (weight, bias) = (vector(5), vector(6));
        assert!(gap(&[&x, &w], &|o, t| o.linear(&t[0], &t[1], Some(&b))) < 2e-3);
        assert!(gap(&[&x], &|o, t| o.rms_norm(&t[0], &weight, 1e-5)) < 1e-4);
        assert!(gap(&[&x], &|o, t| o.layer_norm(&t[0], &weight, &bias, 1e-5)) < 1e-4);
        for activation in [
            Activation::Silu,
            Activation::Gelu,
            Activation::GeluTanh,
            Activation::Relu,
        ] {
            let gated = gap(&[&x, &y], &|o, t| o.gated(t[0].clone(), &t[1], activation));
            let alone = gap(&[&x], &|o, t| o.activate(t[0].clone(), activation));
            assert!(gated.max(alone) < 2e-5, "{activation:?}: {gated} {alone}");
        }
        let turns = Rotary::new(vec![1.0, 0.1, 0.01], 1.1, None).turns(&batch);
        assert!(gap(&[&x], &|o, t| o.rotate(t[0].clone(), 16, &turns)) < 1e-5);
        assert!(gap(&[&x, &y], &|o, t| o.add(t[0].clone(), &t[1])) < 1e-6);
        for (causal, window) in [(true, None), (true, Some(4)), (false, None)] {
            let heads = Heads {
                heads: 4,
                kv_heads: 2,
                head_dim: 16,
                scale: 0.25,
                causal,
                window,
            };
            let (k, v) = (pattern(180, 32, 8), pattern(180, 32, 9));
            let gap = gap(&[&x, &k, &v], &|o, t| {
                o.attention(&t[0], &t[1], &t[2], &batch, &heads)
            });
            assert!(gap < 1e-3, "{heads:?}: {gap}");
        }
    }
}
