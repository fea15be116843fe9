//! Weight kinds: the whole contract between techniques and formats.
//!
//! Owns: [`Kind`] (what a weight will be, known at plan time) and [`Weight`] (the numbers, known at run time).
//! Must not know: techniques, file formats. Invariant: every weight can be read back as rows of f32, and those
//! are exactly the values an engine computes from the stored form.

mod affine;
mod block;
mod codebook;
mod convolutions;
mod corrected;
mod dense;
mod dynamic8;
mod fisher;
mod float8;
mod low_rank;
mod nf4;
mod payload;
mod sparsity;
mod squares;

pub use affine::Affine;
pub use block::Block;
pub use codebook::Codebook;
pub use convolutions::{Convolutions, Form, Layer};
pub use corrected::Corrected;
pub use dense::Dense;
pub use dynamic8::dynamic_map;
pub use fisher::Fisher;
pub use float8::Float8;
pub use low_rank::LowRank;
pub use nf4::{NESTED_BLOCK, NF4_TABLE, Nested, Nf4};
pub use sparsity::{Pattern, Sparsity};
pub use squares::InputSquares;

use crate::tensor::{DType, GgmlType, Rows};
use serde::{Deserialize, Serialize};

/// Which elements share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// One scale for the tensor.
    Tensor,
    /// One scale for each output row.
    Channel,
    /// One scale for each run of this many elements of a row.
    Group(usize),
}

impl Granularity {
    /// Scales in a row of `cols`, and elements under each (a tensor-wide scale counts as one a row).
    pub fn groups(self, cols: usize) -> (usize, usize) {
        match self {
            Self::Tensor | Self::Channel => (1, cols),
            Self::Group(size) => (cols / size.max(1), size),
        }
    }

    /// Scales of a whole matrix.
    pub fn scales(self, rows: usize, cols: usize) -> usize {
        match self {
            Self::Tensor => 1,
            Self::Channel => rows,
            Self::Group(size) => rows * (cols / size.max(1)),
        }
    }
}

/// What the engine that serves the model does to the inputs of the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activations {
    /// Left alone: weight-only quantization.
    None,
    /// Quantized to 8 bits per token while the model runs.
    DynamicToken,
    /// Quantized to 8 bits with one scale for all, found on calibration data and stored beside the weight.
    StaticTensor,
}

/// A number that a calibrated stage found for a layer beside its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// One step of its quantized inputs.
    Input,
    /// One step of what it writes to the key/value cache.
    Cache,
}

/// What a weight will be after a stage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Kind {
    /// Plain numbers.
    Dense {
        /// Stored element type.
        dtype: DType,
    },
    /// `value = (code − zero) · scale`, codes of `n_bits`.
    Affine {
        /// Bits of a code, 2 to 8.
        n_bits: u8,
        /// True where zero is always `2^(n_bits−1)` and is not stored.
        symmetric: bool,
        /// Which elements share a scale.
        granularity: Granularity,
        /// Stored type of the scales; values are rounded to it too.
        scale_dtype: DType,
        /// Quantization of the layer's inputs.
        activations: Activations,
        /// True where groups follow another order than the columns', and each column's group is stored (`g_idx`).
        #[serde(default)]
        act_order: bool,
    },
    /// ggml blocks.
    Block {
        /// Block type.
        ggml_type: GgmlType,
    },
    /// 8-bit floats (E4M3) times a scale.
    Float8 {
        /// Which elements share a scale.
        granularity: Granularity,
        /// Stored type of the scales; values are rounded to it too.
        scale_dtype: DType,
        /// Quantization of the layer's inputs.
        activations: Activations,
    },
    /// 4-bit `NormalFloat` codes times the block's absmax.
    Nf4 {
        /// Elements (of the flattened tensor) that share an absmax.
        block_size: usize,
        /// Type the values are rounded to when they are used.
        value_dtype: DType,
        /// The absmax values are themselves 8-bit codes with a scale for each 256.
        #[serde(default)]
        double_quant: bool,
    },
    /// Codes into tables of centroids.
    Codebook {
        /// Centroids of a table.
        centroids: usize,
        /// Consecutive weights of a row under one code.
        vector_size: usize,
        /// Which weights share a table.
        granularity: Granularity,
        /// Stored type of the centroids.
        dtype: DType,
    },
    /// A product of two narrow matrices.
    LowRank {
        /// Columns of the first, rows of the second.
        rank: usize,
        /// Stored type of both.
        dtype: DType,
    },
    /// 4-bit `NormalFloat` codes, and a product of two narrow matrices that is added to them.
    Corrected {
        /// Columns of the first, rows of the second.
        rank: usize,
        /// Stored type of both.
        dtype: DType,
        /// Elements (of the flattened tensor) that share an absmax.
        block_size: usize,
        /// Type the values of codes are rounded to when they are used.
        value_dtype: DType,
        /// The absmax values are themselves 8-bit codes with a scale for each 256.
        #[serde(default)]
        double_quant: bool,
    },
    /// A convolution's kernel as several, one behind the other.
    Convolutions {
        /// Which.
        form: Form,
        /// That of the kernel: `[outputs, inputs, height, width]`.
        shape: [usize; 4],
        /// Stored type of all.
        dtype: DType,
    },
}

impl Kind {
    /// Short name for tables: `int4 g64`, `Q4_K`, `fp8 channel`, `BF16`.
    pub fn label(&self) -> String {
        let spread = |g: &Granularity| match g {
            Granularity::Tensor => "tensor".to_owned(),
            Granularity::Channel => "channel".to_owned(),
            Granularity::Group(size) => format!("g{size}"),
        };
        match self {
            Self::Dense { dtype } => dtype.name().to_owned(),
            Self::Affine {
                n_bits,
                symmetric,
                granularity,
                scale_dtype: _,
                activations: _,
                act_order,
            } => {
                let sign = if *symmetric { "" } else { " asym" };
                let order = if *act_order { " act-order" } else { "" };
                format!("int{n_bits} {}{sign}{order}", spread(granularity))
            }
            Self::Block { ggml_type } => ggml_type.name().to_owned(),
            Self::Float8 {
                granularity,
                scale_dtype: _,
                activations: _,
            } => format!("fp8 {}", spread(granularity)),
            Self::Nf4 {
                block_size,
                value_dtype: _,
                double_quant,
            } => format!("nf4 b{block_size}{}", if *double_quant { " dq" } else { "" }),
            Self::Codebook {
                centroids,
                vector_size,
                granularity,
                dtype: _,
            } => {
                let of = if *vector_size > 1 {
                    format!("×{vector_size}")
                } else {
                    String::new()
                };
                format!("codebook {centroids}{of} {}", spread(granularity))
            }
            Self::LowRank { rank, dtype: _ } => format!("rank {rank}"),
            Self::Convolutions { form, .. } => form.label(),
            Self::Corrected { rank, .. } => format!("{} + rank {rank}", self.base().label()),
        }
    }

    /// What codes stand for where a product is added to them; any other kind is its own base.
    #[must_use]
    pub fn base(self) -> Self {
        match self {
            Self::Corrected {
                rank: _,
                dtype: _,
                block_size,
                value_dtype,
                double_quant,
            } => Self::Nf4 {
                block_size,
                value_dtype,
                double_quant,
            },
            other => other,
        }
    }

    /// The product that is added to codes, where one is.
    #[must_use]
    pub fn product(self) -> Option<Self> {
        match self {
            Self::Corrected { rank, dtype, .. } => Some(Self::LowRank { rank, dtype }),
            _ => None,
        }
    }

    /// Most bytes that making a weight of this kind holds: codes lie one to a byte until a format packs them.
    pub fn working_bytes(&self, rows: usize, cols: usize) -> u64 {
        // A scale and its zero, in chunks, joined, and once more as a format wants them.
        const SCALE: usize = 24;
        let elements = rows * cols;
        let bytes = match self {
            Self::Dense { dtype } => dtype.bytes(rows, cols).unwrap_or(0),
            Self::Block { ggml_type } => ggml_type.row_bytes(cols).unwrap_or(0) * rows,
            Self::Affine {
                granularity,
                act_order,
                ..
            } => {
                let groups = if *act_order { 16 * cols } else { 0 };
                elements + SCALE * granularity.scales(rows, cols) + groups
            }
            Self::Float8 { granularity, .. } => elements + SCALE * granularity.scales(rows, cols),
            Self::Nf4 { block_size, .. } => elements + SCALE * elements.div_ceil(*block_size.max(&1)),
            Self::Codebook {
                centroids,
                vector_size,
                granularity,
                dtype: _,
            } => {
                let tables = match granularity {
                    Granularity::Tensor => 1,
                    other => other.scales(rows, cols),
                };
                2 * elements / vector_size.max(&1) + 8 * tables * centroids * vector_size
            }
            Self::LowRank { rank, dtype: _ } => 8 * rank * (rows + cols),
            Self::Corrected { rank, .. } => {
                return self.base().working_bytes(rows, cols) + 8 * (rank * (rows + cols)) as u64;
            }
            // The layers, before and after they are rounded, and the kernel that they make.
            Self::Convolutions {
                form,
                shape,
                dtype: _,
            } => 8 * form.parameters(*shape) + 4 * elements,
        };
        bytes as u64
    }

    /// Quantization of the layer's inputs.
    pub fn activations(&self) -> Activations {
        match self {
            Self::Affine { activations, .. } | Self::Float8 { activations, .. } => *activations,
            _ => Activations::None,
        }
    }

    /// The same weight, with other inputs.
    #[must_use]
    pub fn with_activations(mut self, other: Activations) -> Self {
        if let Self::Affine { activations, .. } | Self::Float8 { activations, .. } = &mut self {
            *activations = other;
        }
        self
    }

    /// True for everything but plain numbers.
    pub fn is_compressed(&self) -> bool {
        !matches!(self, Self::Dense { dtype: _ })
    }
}

/// A weight after a stage.
#[derive(Clone, Debug)]
pub enum Weight {
    /// Plain numbers.
    Dense(Dense),
    /// Integer codes, scales and zeros.
    Affine(Affine),
    /// ggml blocks.
    Block(Block),
    /// 8-bit floats and scales.
    Float8(Float8),
    /// `NormalFloat` codes and absmax.
    Nf4(Nf4),
    /// Codes and centroids.
    Codebook(Codebook),
    /// Two factors.
    LowRank(LowRank),
    /// Codes and two factors.
    Corrected(Corrected),
    /// Several kernels.
    Convolutions(Convolutions),
}

impl Weight {
    /// The weight as rows of f32.
    pub fn as_rows(&self) -> &dyn Rows {
        match self {
            Self::Dense(w) => w,
            Self::Affine(w) => w,
            Self::Block(w) => w,
            Self::Float8(w) => w,
            Self::Nf4(w) => w,
            Self::Codebook(w) => w,
            Self::LowRank(w) => w,
            Self::Corrected(w) => w,
            Self::Convolutions(w) => w,
        }
    }

    /// Statistics of the stored codes; `None` for plain numbers.
    pub fn codes(&self) -> Option<Codes> {
        let (histogram, mean_square_step) = match self {
            Self::Dense(_) | Self::LowRank(_) | Self::Convolutions(_) => return None,
            Self::Block(w) => return Some(w.codes()),
            Self::Affine(w) => (w.code_histogram(), w.mean_square_step()),
            Self::Float8(w) => (byte_histogram(&w.codes, 256), w.mean_square_step()),
            Self::Nf4(w) | Self::Corrected(Corrected { base: w, .. }) => {
                (w.code_histogram(), w.mean_square_step())
            }
            Self::Codebook(w) => {
                return Some(Codes {
                    histogram: w.code_histogram(),
                    mean_square_step: 0.0,
                    weights: w.width,
                });
            }
        };
        Some(Codes {
            histogram,
            mean_square_step,
            weights: 1,
        })
    }
}

/// What the stored codes of a weight say about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Codes {
    /// How often each code occurs.
    pub histogram: Vec<u64>,
    /// Mean of s² over the elements, s = the local step: uniform rounding would leave a twelfth of it as error. 0 where
    /// there are no steps.
    pub mean_square_step: f64,
    /// Weights that one code stands for.
    pub weights: usize,
}

/// Counts bytes; four interleaved tables hide the store-to-load latency of repeated codes.
pub(crate) fn byte_histogram(bytes: &[u8], levels: usize) -> Vec<u64> {
    use rayon::prelude::*;
    let count = |chunk: &[u8]| {
        let mut tables = [[0u32; 256]; 4];
        let (quads, rest) = chunk.as_chunks::<4>();
        for quad in quads {
            for (table, byte) in tables.iter_mut().zip(quad) {
                table[usize::from(*byte)] += 1;
            }
        }
        for byte in rest {
            tables[0][usize::from(*byte)] += 1;
        }
        let mut sum = vec![0u64; 256];
        for table in &tables {
            for (total, n) in sum.iter_mut().zip(table) {
                *total += u64::from(*n);
            }
        }
        sum
    };
    let mut total = bytes.par_chunks(1 << 20).map(count).reduce(
        || vec![0; 256],
        |mut a, b| {
            a.iter_mut().zip(&b).for_each(|(x, y)| *x += y);
            a
        },
    );
    total.truncate(levels);
    total
}
