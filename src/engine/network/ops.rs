//! Tensor operations in two forms: fused kernels for the CPU, and compositions of candle's own operations.
//!
//! Owns: the choice between them. Must not know: models.
//! Invariant: both forms compute the same function (tested); the composed one runs on every device and can be
//! differentiated.

use super::{Batch, Turns, tensor};
use crate::error::{Error, Result};
use crate::kernels::linalg;
use crate::kernels::nn::attention::{Heads, attention};
use crate::kernels::nn::elementwise::Activation;
use crate::kernels::nn::{elementwise, norm, rope};
use candle_core::{CpuStorage, D, Device, InplaceOp1, InplaceOp2, Layout, Shape, Storage, Tensor};

/// How operations are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ops {
    /// By our kernels: the CPU only, no gradients.
    Fused,
    /// By candle's operations.
    Composed,
}

/// The values of a contiguous f32 tensor in the CPU's memory.
pub(crate) fn with_values<T>(x: &Tensor, f: impl FnOnce(&[f32]) -> T) -> Result<T> {
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
    /// `x · wᵀ + bias`; x `[rows, in]`, w `[out, in]`.
    pub fn linear(self, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        if self == Self::Composed {
            let product = x.matmul(&w.t()?)?;
            return Ok(match bias {
                Some(bias) => product.broadcast_add(bias)?,
                None => product,
            });
        }
        let (rows, k) = sides(x)?;
        let mut values = with_values(x, |x| with_values(w, |w| linalg::product_nt(x, w, k)))??;
        if let Some(bias) = bias {
            with_values(bias, |bias| elementwise::add_row(&mut values, bias))?;
        }
        tensor(values, rows, w.dim(0)?)
    }

    /// `x + y`; `x` is used up: nobody else holds it.
    pub fn add(self, x: Tensor, y: &Tensor) -> Result<Tensor> {
        match self {
            Self::Composed => Ok((x + y)?),
            Self::Fused => in_place(x, y, "add", elementwise::add),
        }
    }

    /// RMS norm of rows of `weight`'s length.
    pub fn rms_norm(self, x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
        match self {
            Self::Composed => {
                let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?.recip()?;
                Ok(x.broadcast_mul(&scale)?.broadcast_mul(weight)?)
            }
            Self::Fused => same_shape(x, |x, out| {
                with_values(weight, |w| norm::rms_norm(x, w, eps as f32, out))
            }),
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
            Self::Fused => same_shape(x, |x, out| {
                with_values(weight, |w| {
                    with_values(bias, |b| norm::layer_norm(x, w, b, eps as f32, out))
                })?
            }),
        }
    }

    /// Rotary positions on `[tokens, heads · head_dim]`; `x` is used up: nobody else holds it.
    pub fn rotate(self, x: Tensor, head_dim: usize, turns: &Turns) -> Result<Tensor> {
        let (tokens, cols) = sides(&x)?;
        let heads = cols / head_dim;
        let table = &turns.table;
        if self == Self::Fused {
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
        if self == Self::Fused {
            return same_shape(q, |q, out| {
                with_values(k, |k| {
                    with_values(v, |v| attention(q, k, v, &batch.lengths, h, out))
                })?
            });
        }
        let mut parts = Vec::new();
        let mut start = 0;
        for length in batch.lengths.iter().copied() {
            let cut = |x: &Tensor, heads: usize| -> Result<Tensor> {
                let x = x.narrow(0, start, length)?.reshape((length, heads, h.head_dim))?;
                Ok(x.transpose(0, 1)?.contiguous()?)
            };
            let (q, k, v) = (cut(q, h.heads)?, cut(k, h.kv_heads)?, cut(v, h.kv_heads)?);
            let (k, v) = (spread(&k, h)?, spread(&v, h)?);
            let scores = (q.matmul(&k.transpose(1, 2)?.contiguous()?)? * f64::from(h.scale))?;
            let scores = match mask(length, h, q.device())? {
                Some(mask) => scores.broadcast_add(&mask)?,
                None => scores,
            };
            let weights = softmax(&scores)?;
            let out = weights.matmul(&v)?.transpose(0, 1)?;
            parts.push(out.reshape((length, h.heads * h.head_dim))?);
            start += length;
        }
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// `f(x)`; `x` is used up: nobody else holds it.
    pub fn activate(self, x: Tensor, activation: Activation) -> Result<Tensor> {
        if self == Self::Fused {
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
            Self::Fused => in_place(gate, up, "gated", |gate, up| activation.gated(gate, up)),
        }
    }
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

/// A tensor of the shape of `x`, filled by `f`.
fn same_shape(x: &Tensor, f: impl FnOnce(&[f32], &mut [f32]) -> Result<()>) -> Result<Tensor> {
    let mut out = vec![0.0; x.elem_count()];
    with_values(x, |x| f(x, &mut out))??;
    Ok(Tensor::from_vec(out, Shape::from(x.dims()), &Device::Cpu)?)
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

fn mask(length: usize, h: &Heads, device: &Device) -> Result<Option<Tensor>> {
    if !h.causal {
        return Ok(None);
    }
    let hidden = |i: usize, j: usize| j > i || h.window.is_some_and(|w| j + w <= i);
    let cell = |at: usize| {
        if hidden(at / length, at % length) {
            f32::NEG_INFINITY
        } else {
            0.0
        }
    };
    let cells: Vec<f32> = (0..length * length).map(cell).collect();
    Ok(Some(Tensor::from_vec(cells, (1, length, length), device)?))
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

    fn pattern(rows: usize, cols: usize, seed: usize) -> Tensor {
        let values = (0..rows * cols).map(|i| (((i + seed) * 7919 % 1009) as f32 - 500.0) / 250.0);
        tensor(values.collect(), rows, cols).unwrap()
    }

    /// The same values in memory of their own.
    fn copy(x: &Tensor) -> Tensor {
        x.copy().unwrap()
    }

    fn worst(a: &Tensor, b: &Tensor) -> f32 {
        let gap = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
        gap.max(0).unwrap().to_scalar::<f32>().unwrap()
    }

    /// Every operation that has two forms, on the same inputs.
    #[test]
    fn both_forms_agree() {
        let batch = Batch::new(&[&[1; 9], &[2; 21]]);
        let both =
            |f: &dyn Fn(Ops) -> Result<Tensor>| worst(&f(Ops::Fused).unwrap(), &f(Ops::Composed).unwrap());
        let (x, y) = (pattern(30, 64, 1), pattern(30, 64, 2));
        let (w, b) = (pattern(48, 64, 3), pattern(1, 48, 4).squeeze(0).unwrap());
        let (weight, bias) = (
            pattern(1, 64, 5).squeeze(0).unwrap(),
            pattern(1, 64, 6).squeeze(0).unwrap(),
        );
        assert!(both(&|o| o.linear(&x, &w, Some(&b))) < 1e-4);
        assert!(both(&|o| o.rms_norm(&x, &weight, 1e-5)) < 1e-5);
        assert!(both(&|o| o.layer_norm(&x, &weight, &bias, 1e-5)) < 1e-5);
        for activation in [
            Activation::Silu,
            Activation::Gelu,
            Activation::GeluTanh,
            Activation::Relu,
        ] {
            assert!(
                both(&|o| o.gated(copy(&x), &y, activation)) < 1e-5,
                "{activation:?}"
            );
        }
        let turns = Rotary::new(vec![1.0, 0.1, 0.01], 1.1, None).turns(&batch);
        assert!(both(&|o| o.rotate(copy(&x), 16, &turns)) < 1e-5);
        assert!(both(&|o| o.add(copy(&x), &y)) < 1e-6);
        for (causal, window) in [(true, None), (true, Some(4)), (false, None)] {
            let heads = Heads {
                heads: 4,
                kv_heads: 2,
                head_dim: 16,
                scale: 0.25,
                causal,
                window,
            };
            let (k, v) = (pattern(30, 32, 8), pattern(30, 32, 9));
            assert!(both(&|o| o.attention(&x, &k, &v, &batch, &heads)) < 1e-5);
        }
    }
}
