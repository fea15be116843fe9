//! Our kernels as operations that candle can differentiate.
//!
//! Owns: one operation for each fused kernel, with its backward pass. Must not know: models, who learns what.
//! Invariant: a gradient is computed only for what depends on a variable; what norms and rotations are made with never
//! does.

use super::rotary::Turns;
use super::weights::InputRounding;
use crate::error::Error;
use crate::kernels::linalg::{self, Precision};
use crate::kernels::nn::attention::{Heads, attention};
use crate::kernels::nn::attention_back::{Passed, attention_back};
use crate::kernels::nn::elementwise::{Activation, gated_back};
use crate::kernels::nn::{norm, rope};
use crate::network::with_values;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Device, Layout, Result, Shape, Tensor};

/// What a forward pass makes.
type Made = Result<(CpuStorage, Shape)>;

/// The values of a contiguous f32 tensor.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let values = storage.as_slice::<f32>()?;
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("a tensor is not contiguous");
    };
    Ok(&values[start..end])
}

fn made(values: Vec<f32>, layout: &Layout) -> (CpuStorage, Shape) {
    (CpuStorage::F32(values), layout.shape().clone())
}

fn failed(error: Error) -> candle_core::Error {
    candle_core::Error::msg(error)
}

/// Applies `f` to the values of two tensors.
fn with_two<T>(a: &Tensor, b: &Tensor, f: impl FnOnce(&[f32], &[f32]) -> T) -> Result<T> {
    with_values(a, |a| with_values(b, |b| f(a, b)))
        .flatten()
        .map_err(failed)
}

fn like(values: Vec<f32>, tensor: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, tensor.dims(), &Device::Cpu)
}

/// `x · wᵀ`; its gradients are as exact as itself.
pub(super) struct Product(pub Precision);

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, w: &CpuStorage, wl: &Layout) -> Made {
        let (x, w) = (values(x, xl)?, values(w, wl)?);
        let (out, k) = wl.shape().dims2()?;
        let shape = Shape::from((x.len() / k.max(1), out));
        Ok((CpuStorage::F32(linalg::product_nt(x, w, k, self.0)), shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let (rows, out) = dy.dims2()?;
        let by_x = if x.track_op() {
            let mut dx = vec![0.0; x.elem_count()];
            with_two(&dy, w, |dy, w| linalg::matmul_nn(dy, w, out, &mut dx, self.0))?;
            Some(like(dx, x)?)
        } else {
            None
        };
        let by_w = if w.track_op() {
            let mut dw = vec![0.0; w.elem_count()];
            with_two(&dy, x, |dy, x| linalg::matmul_tn(dy, x, rows, &mut dw, self.0))?;
            Some(like(dw, w)?)
        } else {
            None
        };
        Ok((by_x, by_w))
    }
}

/// RMS norm.
pub(super) struct RmsNorm {
    pub weight: Tensor,
    pub eps: f32,
}

impl CustomOp1 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Made {
        let x = values(x, layout)?;
        let mut y = vec![0.0; x.len()];
        with_values(&self.weight, |w| norm::rms_norm(x, w, self.eps, &mut y)).map_err(failed)?;
        Ok(made(y, layout))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let mut dx = vec![0.0; x.elem_count()];
        with_values(&self.weight, |w| {
            with_two(x, &dy.contiguous()?, |x, dy| {
                norm::rms_norm_back(x, w, self.eps, dy, &mut dx);
            })
        })
        .map_err(failed)??;
        Ok(Some(like(dx, x)?))
    }
}

/// Layer norm.
pub(super) struct LayerNorm {
    pub weight: Tensor,
    pub bias: Tensor,
    pub eps: f32,
}

impl CustomOp1 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Made {
        let x = values(x, layout)?;
        let mut y = vec![0.0; x.len()];
        with_two(&self.weight, &self.bias, |w, b| {
            norm::layer_norm(x, w, b, self.eps, &mut y);
        })?;
        Ok(made(y, layout))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let mut dx = vec![0.0; x.elem_count()];
        with_values(&self.weight, |w| {
            with_two(x, &dy.contiguous()?, |x, dy| {
                norm::layer_norm_back(x, w, self.eps, dy, &mut dx);
            })
        })
        .map_err(failed)??;
        Ok(Some(like(dx, x)?))
    }
}

/// Rotary positions.
pub(super) struct Rotation {
    pub heads: usize,
    pub head_dim: usize,
    pub turns: Turns,
}

impl CustomOp1 for Rotation {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Made {
        let mut y = values(x, layout)?.to_vec();
        rope::rotate(
            &mut y,
            self.heads,
            self.head_dim,
            &self.turns.rows,
            &self.turns.table,
        );
        Ok(made(y, layout))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let mut dx = with_values(&dy.contiguous()?, <[f32]>::to_vec).map_err(failed)?;
        rope::rotate_back(
            &mut dx,
            self.heads,
            self.head_dim,
            &self.turns.rows,
            &self.turns.table,
        );
        Ok(Some(like(dx, x)?))
    }
}

/// Attention within each sequence.
pub(super) struct Attention {
    pub lengths: Vec<usize>,
    pub heads: Heads,
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        ql: &Layout,
        k: &CpuStorage,
        kl: &Layout,
        v: &CpuStorage,
        vl: &Layout,
    ) -> Made {
        let (q, k, v) = (values(q, ql)?, values(k, kl)?, values(v, vl)?);
        let mut out = vec![0.0; q.len()];
        attention(q, k, v, &self.lengths, &self.heads, &mut out);
        Ok(made(out, ql))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        out: &Tensor,
        by_out: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let by_out = by_out.contiguous()?;
        let gradients = with_two(q, k, |q, k| {
            with_two(out, &by_out, |out, by_out| {
                with_values(v, |v| {
                    let passed = Passed { q, k, v, out, by_out };
                    attention_back(&passed, &self.lengths, &self.heads)
                })
                .map_err(failed)
            })
        })???;
        let by = |values: Vec<f32>, x: &Tensor| like(values, x).map(Some);
        Ok((by(gradients.q, q)?, by(gradients.k, k)?, by(gradients.v, v)?))
    }
}

/// A pointwise non-linearity.
pub(super) struct Pointwise(pub Activation);

impl CustomOp1 for Pointwise {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Made {
        let mut y = values(x, layout)?.to_vec();
        self.0.apply(&mut y);
        Ok(made(y, layout))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let mut dx = vec![0.0; x.elem_count()];
        with_two(x, &dy.contiguous()?, |x, dy| {
            self.0.slope(x, &mut dx);
            dx.iter_mut().zip(dy).for_each(|(dx, dy)| *dx *= dy);
        })?;
        Ok(Some(like(dx, x)?))
    }
}

/// `f(gate) · up`.
pub(super) struct Gate(pub Activation);

impl CustomOp2 for Gate {
    fn name(&self) -> &'static str {
        "gated activation"
    }

    fn cpu_fwd(&self, gate: &CpuStorage, gl: &Layout, up: &CpuStorage, ul: &Layout) -> Made {
        let mut y = values(gate, gl)?.to_vec();
        self.0.gated(&mut y, values(up, ul)?);
        Ok(made(y, gl))
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut by_gate = vec![0.0; gate.elem_count()];
        let mut by_up = vec![0.0; up.elem_count()];
        let dy = dy.contiguous()?;
        with_two(gate, up, |gate, up| {
            with_values(&dy, |dy| {
                gated_back(self.0, (gate, up, dy), (&mut by_gate, &mut by_up));
            })
        })?
        .map_err(failed)?;
        Ok((Some(like(by_gate, gate)?), Some(like(by_up, up)?)))
    }
}

/// Rounds a layer's inputs; gradients pass as if it did not (straight-through, Bengio et al. 2013).
pub(super) struct Rounded(pub InputRounding);

impl CustomOp1 for Rounded {
    fn name(&self) -> &'static str {
        "input rounding"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Made {
        let (_, cols) = layout.shape().dims2()?;
        let mut y = values(x, layout)?.to_vec();
        (self.0)(&mut y, cols);
        Ok(made(y, layout))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(dy.clone()))
    }
}
