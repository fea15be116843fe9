//! Convolutions that stand for one: several small kernels, one behind the other.
//!
//! Owns: which layers a form has, and the kernel that they compute together. Must not know: how they were found, how a
//! format stores them.
//! Invariant: values are rounded to their stored type, and rows are those of the kernel that the rounded layers make.

use crate::error::{Error, Result};
use crate::kernels::factor::kernel::{Chain, Stage};
use crate::kernels::factor::{Truncation, cp, separable, spatial, svd, tensor_train, tucker};
use crate::tensor::{DType, Rows, round_to};
use serde::{Deserialize, Serialize};

/// In which layers a kernel `[outputs, inputs, height, width]` is taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// 1×1 to fewer channels, a small kernel between them, 1×1 back.
    Tucker {
        /// Channels before the small kernel.
        inputs: usize,
        /// Channels after it.
        outputs: usize,
    },
    /// 1×1, each channel down, each channel across, 1×1.
    Cp {
        /// Channels throughout.
        rank: usize,
    },
    /// 1×1, down, across, 1×1.
    TensorTrain {
        /// Channels of the three bonds.
        ranks: [usize; 3],
    },
    /// Down, then across.
    Spatial {
        /// Channels between them.
        rank: usize,
    },
    /// Each input alone through some planes, then 1×1.
    Separable {
        /// Planes of an input.
        multiplier: usize,
    },
}

/// One convolution among several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// `[outputs, inputs / groups, height, width]`.
    pub shape: [usize; 4],
    /// 1, or the inputs where each goes alone.
    pub groups: usize,
    /// Whether it takes stride, padding and dilation of the rows, and of the columns.
    pub spans: [bool; 2],
}

impl Layer {
    /// Number of weights.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// From so many channels to so many, place by place.
fn pointwise(outputs: usize, inputs: usize) -> Layer {
    layer([outputs, inputs, 1, 1], 1, [false; 2])
}

fn layer(shape: [usize; 4], groups: usize, spans: [bool; 2]) -> Layer {
    Layer { shape, groups, spans }
}

impl Form {
    /// The layers for a kernel of this shape, in the order in which they run.
    pub fn layers(self, shape: [usize; 4]) -> Vec<Layer> {
        let [outputs, inputs, height, width] = shape;
        let (down, across) = ([true, false], [false, true]);
        match self {
            Self::Tucker {
                inputs: narrow,
                outputs: wide,
            } => vec![
                pointwise(narrow, inputs),
                layer([wide, narrow, height, width], 1, [true; 2]),
                pointwise(outputs, wide),
            ],
            Self::Cp { rank } => vec![
                pointwise(rank, inputs),
                layer([rank, 1, height, 1], rank, down),
                layer([rank, 1, 1, width], rank, across),
                pointwise(outputs, rank),
            ],
            Self::TensorTrain { ranks: [a, b, c] } => vec![
                pointwise(a, inputs),
                layer([b, a, height, 1], 1, down),
                layer([c, b, 1, width], 1, across),
                pointwise(outputs, c),
            ],
            Self::Spatial { rank } => vec![
                layer([rank, inputs, height, 1], 1, down),
                layer([outputs, rank, 1, width], 1, across),
            ],
            Self::Separable { multiplier } => {
                let planes = inputs * multiplier;
                vec![
                    layer([planes, 1, height, width], inputs, [true; 2]),
                    pointwise(outputs, planes),
                ]
            }
        }
    }

    /// Weights of all layers.
    pub fn parameters(self, shape: [usize; 4]) -> usize {
        self.layers(shape).iter().map(Layer::elements).sum()
    }

    /// Short name for tables.
    pub fn label(self) -> String {
        match self {
            Self::Tucker { inputs, outputs } => format!("tucker {inputs} {outputs}"),
            Self::Cp { rank } => format!("cp {rank}"),
            Self::TensorTrain { ranks: [a, b, c] } => format!("tensor train {a} {b} {c}"),
            Self::Spatial { rank } => format!("spatial {rank}"),
            Self::Separable { multiplier } => format!("separable ×{multiplier}"),
        }
    }

    /// Most bytes that finding the layers holds, beside the kernel and what is found.
    pub fn fitting_bytes(self, shape: [usize; 4]) -> u64 {
        match self {
            Self::Tucker { inputs, outputs } => {
                tucker::working_bytes(shape, tucker::Ranks { outputs, inputs })
            }
            Self::Cp { rank } => cp::working_bytes(shape, rank),
            Self::TensorTrain { ranks: _ } => tensor_train::working_bytes(shape),
            Self::Spatial { rank } => {
                spatial::working_bytes(shape, Truncation::Rank(rank), &svd::Options::default())
            }
            Self::Separable { multiplier } => separable::working_bytes(shape, multiplier, false),
        }
    }
}

/// A kernel as several.
#[derive(Clone, Debug)]
pub struct Convolutions {
    /// Stored type of all values.
    pub dtype: DType,
    /// Values of each layer, row-major, in the order in which they run.
    pub layers: Vec<Vec<f32>>,
    /// Columns of a row of the kernel.
    width: usize,
    /// The kernel that they compute.
    whole: Vec<f32>,
}

impl Convolutions {
    /// Rounds values of the layers that a form has, and multiplies them out.
    ///
    /// # Errors
    /// `value_overflow` where a value is too large for the type; `internal` where there are other values than the form has.
    pub fn new(form: Form, shape: [usize; 4], dtype: DType, layers: Vec<Vec<f32>>) -> Result<Self> {
        let planned = form.layers(shape);
        let fit = planned.len() == layers.len();
        if !fit || planned.iter().zip(&layers).any(|(a, b)| a.elements() != b.len()) {
            return Err(Error::internal(format!(
                "layers do not have the values of {}",
                form.label()
            )));
        }
        let stages = planned.into_iter().zip(layers).map(|(layer, values)| Stage {
            values: values.into_iter().map(|v| round_to(dtype, v)).collect(),
            shape: layer.shape,
            groups: layer.groups,
            spans: layer.spans,
        });
        let chain = Chain {
            stages: stages.collect(),
            relative_error: 0.0,
        };
        let values = chain.stages.iter().flat_map(|stage| &stage.values);
        if let Some(lost) = values.into_iter().find(|v| !v.is_finite()) {
            return Err(Error::numeric(
                "value_overflow",
                format!("a weight of a layer is {lost}: too large for {dtype}"),
            ));
        }
        let whole = chain.multiply_out()?;
        if whole.len() != shape.iter().product::<usize>() {
            return Err(Error::internal("layers make a kernel of another shape"));
        }
        Ok(Self {
            dtype,
            layers: chain.stages.into_iter().map(|stage| stage.values).collect(),
            width: shape[3],
            whole,
        })
    }
}

impl Rows for Convolutions {
    fn rows(&self) -> usize {
        self.whole.len() / self.width.max(1)
    }

    fn cols(&self) -> usize {
        self.width
    }

    fn read(&self, first_row: usize, out: &mut [f32]) -> Result<()> {
        let first = first_row * self.width;
        let values = self.whole.get(first..first + out.len());
        let values = values.ok_or_else(|| Error::internal("rows beyond a kernel"))?;
        out.copy_from_slice(values);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_the_kernel_that_the_layers_compute() {
        // Down [1, 2] and across [1, 0, -1], for one input and two outputs, the second doubled.
        let form = Form::Spatial { rank: 1 };
        let layers = vec![vec![1.0, 2.0], vec![1.0, 0.0, -1.0, 2.0, 0.0, -2.0]];
        let weight = Convolutions::new(form, [2, 1, 2, 3], DType::F32, layers).unwrap();
        assert_eq!((weight.rows(), weight.cols()), (4, 3));
        let mut out = [0.0; 9];
        weight.read(1, &mut out).unwrap();
        assert_eq!(out, [2.0, 0.0, -2.0, 2.0, 0.0, -2.0, 4.0, 0.0, -4.0]);
    }

    #[test]
    fn values_are_those_that_are_stored() {
        let form = Form::Separable { multiplier: 1 };
        let fine = 1.0 + 2f32.powi(-12);
        let make =
            |value: f32, dtype| Convolutions::new(form, [1, 1, 1, 2], dtype, vec![vec![value; 2], vec![1.0]]);
        let mut out = [0.0; 2];
        make(fine, DType::BF16).unwrap().read(0, &mut out).unwrap();
        assert_eq!(out, [1.0; 2]);
        make(fine, DType::F32).unwrap().read(0, &mut out).unwrap();
        assert_eq!(out, [fine; 2]);
        assert_eq!(make(1e6, DType::F16).unwrap_err().code, "value_overflow");
        let wrong = Convolutions::new(form, [1, 1, 1, 2], DType::F32, vec![vec![1.0]]);
        assert_eq!(wrong.unwrap_err().code, "internal");
    }

    #[test]
    fn parameters_are_those_of_all_layers() {
        let shape = [16, 8, 3, 5];
        for (form, parameters) in [
            (
                Form::Tucker {
                    inputs: 3,
                    outputs: 4,
                },
                3 * 8 + 4 * 3 * 15 + 16 * 4,
            ),
            (Form::Cp { rank: 6 }, 6 * (8 + 3 + 5 + 16)),
            (
                Form::TensorTrain { ranks: [2, 3, 4] },
                2 * 8 + 3 * 2 * 3 + 4 * 3 * 5 + 16 * 4,
            ),
            (Form::Spatial { rank: 7 }, 7 * 8 * 3 + 16 * 7 * 5),
            (Form::Separable { multiplier: 2 }, 16 * 15 + 16 * 16),
        ] {
            assert_eq!(form.parameters(shape), parameters, "{}", form.label());
        }
    }
}
