//! llama.cpp's mixes: which tensor gets which block type.
//!
//! Owns: the rules. Must not know: GGUF, block layouts. Source: ggml-org/llama.cpp, `llama-quant.cpp`.
//! Invariant: given the same model, mix and presence of column importance, every tensor gets the type llama.cpp's
//! quantizer gives it.

use crate::kernels::ggml;
use crate::models::{Facts, Role};
use crate::plan::TensorPlan;
use crate::tensor::{DType, GgmlType};

/// Mix, its base type.
pub(super) const MIXES: &[(&str, GgmlType)] = &[
    ("F16", GgmlType::F16),
    ("BF16", GgmlType::BF16),
    ("Q8_0", GgmlType::Q8_0),
    ("Q6_K", GgmlType::Q6_K),
    ("Q5_K_M", GgmlType::Q5_K),
    ("Q5_K_S", GgmlType::Q5_K),
    ("Q5_1", GgmlType::Q5_1),
    ("Q5_0", GgmlType::Q5_0),
    ("Q4_K_M", GgmlType::Q4_K),
    ("Q4_K_S", GgmlType::Q4_K),
    ("Q4_1", GgmlType::Q4_1),
    ("Q4_0", GgmlType::Q4_0),
    ("IQ4_NL", GgmlType::IQ4_NL),
    ("IQ4_XS", GgmlType::IQ4_XS),
    ("Q3_K_L", GgmlType::Q3_K),
    ("Q3_K_M", GgmlType::Q3_K),
    ("Q3_K_S", GgmlType::Q3_K),
    ("IQ3_M", GgmlType::IQ3_S),
    ("IQ3_S", GgmlType::IQ3_S),
    ("IQ3_XS", GgmlType::IQ3_S),
    ("IQ3_XXS", GgmlType::IQ3_XXS),
    ("Q2_K", GgmlType::Q2_K),
    ("Q2_K_S", GgmlType::Q2_K),
    ("IQ2_M", GgmlType::IQ2_S),
    ("IQ2_S", GgmlType::IQ2_XS),
    ("IQ2_XS", GgmlType::IQ2_XS),
    ("IQ2_XXS", GgmlType::IQ2_XXS),
];

/// A mix on a model.
pub(super) struct Mix {
    pub name: &'static str,
    pub base: GgmlType,
    pub facts: Facts,
    /// The token embedding is the output head too.
    pub tied: bool,
    /// Every matrix gets the base type.
    pub pure: bool,
    /// Column importance is known.
    pub has_importance: bool,
}

impl Mix {
    /// What becomes of a tensor.
    pub(super) fn type_of(&self, tensor: &TensorPlan) -> GgmlType {
        if !takes_blocks(tensor) {
            return plain(tensor);
        }
        if !self.base.is_quantized() {
            return self.base;
        }
        let chosen = if self.pure { self.base } else { self.chosen(tensor) };
        fit(chosen, tensor.cols())
    }

    /// Whether llama.cpp refuses to make this type of the tensor without the importance of its columns. Embedding and
    /// head have none in most importance matrices, and are let off.
    pub(super) fn requires_importance(&self, tensor: &TensorPlan, ty: GgmlType) -> bool {
        use GgmlType as G;
        let let_off = matches!(tensor.role, Role::TokenEmbedding | Role::Output);
        let low = match ty {
            G::IQ3_XXS | G::IQ2_S => true,
            G::Q2_K => self.name == "Q2_K_S",
            _ => false,
        };
        ggml::requires_importance(ty) || low && !let_off
    }

    fn chosen(&self, tensor: &TensorPlan) -> GgmlType {
        let head = tensor.role == Role::Output || self.tied && tensor.role == Role::TokenEmbedding;
        if head {
            return self.head_type(tensor.cols());
        }
        let (layer, layers) = (tensor.layer.unwrap_or(0), self.facts.layers);
        let ends = layer < layers / 8;
        match tensor.role {
            Role::TokenEmbedding => self.embedding_type(),
            _ if self.below_three_bits() => self.low_type(tensor.role, ends),
            Role::AttnV | Role::AttnQkv => self.value_type(layer, layers),
            Role::AttnK if self.facts.experts == 8 => GgmlType::Q8_0,
            Role::AttnQ | Role::AttnK => self.query_type(),
            Role::FfnDown => self.down_type(layer, layers),
            Role::AttnOutput => self.output_type(),
            Role::FfnGate | Role::FfnUp if self.name == "IQ3_XS" && !ends && layer < 7 * layers / 8 => {
                GgmlType::IQ3_XXS
            }
            _ => self.base,
        }
    }

    /// The mixes with rules of their own.
    fn below_three_bits(&self) -> bool {
        matches!(self.name, "IQ2_XXS" | "IQ2_XS" | "IQ2_S" | "IQ2_M")
    }

    /// The two larger of them.
    fn mostly_three(&self) -> bool {
        matches!(self.name, "IQ2_S" | "IQ2_M")
    }

    fn groups(&self) -> usize {
        self.facts.heads.checked_div(self.facts.kv_heads).unwrap_or(1)
    }

    fn head_type(&self, cols: usize) -> GgmlType {
        let low = self.below_three_bits() || self.name == "IQ3_XXS";
        let chosen = if low { GgmlType::Q5_K } else { GgmlType::Q6_K };
        if self.base == GgmlType::Q8_0 || fit(chosen, cols) != chosen {
            GgmlType::Q8_0
        } else {
            chosen
        }
    }

    fn embedding_type(&self) -> GgmlType {
        match self.name {
            "IQ2_XXS" | "IQ2_XS" => GgmlType::Q2_K,
            "IQ2_S" | "IQ2_M" | "IQ3_XXS" => GgmlType::IQ3_S,
            _ => self.base,
        }
    }

    fn low_type(&self, role: Role, first: bool) -> GgmlType {
        let better = if self.mostly_three() {
            GgmlType::IQ3_S
        } else {
            GgmlType::Q2_K
        };
        match role {
            Role::AttnV | Role::AttnQkv if self.groups() >= 4 || self.facts.experts >= 4 => GgmlType::Q4_K,
            Role::AttnV | Role::AttnQkv => better,
            Role::AttnK if self.facts.experts == 8 => GgmlType::Q4_K,
            Role::FfnDown if first => better,
            Role::AttnOutput if self.facts.experts == 8 => GgmlType::Q5_K,
            Role::AttnOutput if self.mostly_three() => GgmlType::IQ3_S,
            _ => self.base,
        }
    }

    fn query_type(&self) -> GgmlType {
        match self.name {
            "IQ3_XS" => GgmlType::IQ3_XXS,
            "IQ3_XXS" => GgmlType::IQ2_S,
            _ => self.base,
        }
    }

    fn value_type(&self, layer: usize, layers: usize) -> GgmlType {
        use GgmlType as G;
        if self.facts.experts == 8 {
            return G::Q8_0;
        }
        let shared = self.groups() >= 4;
        let chosen = match self.name {
            "Q2_K" | "Q2_K_S" | "IQ3_XXS" | "IQ3_XS" | "IQ3_S" if shared => G::Q4_K,
            "Q2_K" => G::Q3_K,
            "IQ3_XXS" if !self.has_importance => G::IQ3_S,
            "Q3_K_M" if layer < 2 => G::Q5_K,
            "Q3_K_M" | "IQ3_M" => G::Q4_K,
            "Q3_K_L" => G::Q5_K,
            "IQ4_NL" | "IQ4_XS" if shared => G::Q5_K,
            "Q4_K_M" | "Q5_K_M" if more_bits(layer, layers) => G::Q6_K,
            "Q4_K_S" if layer < 4 => G::Q5_K,
            _ => self.base,
        };
        // In a model of 70 G weights eight heads share these: they are small, and matter.
        let seventy_b = layers == 80 && self.facts.heads != self.facts.kv_heads;
        if seventy_b && matches!(chosen, G::Q3_K | G::Q4_K) {
            G::Q5_K
        } else {
            chosen
        }
    }

    fn down_type(&self, layer: usize, layers: usize) -> GgmlType {
        use GgmlType as G;
        let (first, more) = (layer < layers / 8, more_bits(layer, layers));
        match self.name {
            "Q2_K" => G::Q3_K,
            "Q2_K_S" if first => G::Q4_K,
            "IQ3_XXS" if !self.has_importance => {
                if first {
                    G::Q4_K
                } else {
                    G::Q3_K
                }
            }
            "IQ3_M" if first || self.facts.experts == 8 && more => G::Q4_K,
            "Q3_K_M" if layer < layers / 16 => G::Q5_K,
            "Q3_K_M" => G::Q4_K,
            "Q3_K_L" => G::Q5_K,
            "Q4_K_M" | "Q5_K_M" if more => G::Q6_K,
            "Q4_K_S" if first => G::Q5_K,
            "IQ4_NL" | "IQ4_XS" if first && !self.has_importance => G::Q5_K,
            // With importance the first blocks need a minimum; without it, a minimum makes them worse.
            "Q4_0" if first && self.has_importance => G::Q4_1,
            "Q5_0" if first && self.has_importance => G::Q5_1,
            _ => self.base,
        }
    }

    fn output_type(&self) -> GgmlType {
        use GgmlType as G;
        if self.facts.experts == 8 {
            let raised = match self.name {
                "Q2_K" | "Q3_K_S" | "Q3_K_M" | "Q4_K_S" | "Q4_K_M" => true,
                name => name.starts_with("IQ3") || name.starts_with("IQ4"),
            };
            return if raised { G::Q5_K } else { self.base };
        }
        match self.name {
            "Q2_K" => G::Q3_K,
            "IQ3_XXS" => G::IQ3_S,
            "Q3_K_M" | "IQ3_M" => G::Q4_K,
            "Q3_K_L" => G::Q5_K,
            _ => self.base,
        }
    }
}

/// True where llama.cpp quantizes a tensor at all.
pub(super) fn takes_blocks(tensor: &TensorPlan) -> bool {
    let vector = tensor.shape.len() < 2;
    let never = matches!(
        tensor.role,
        Role::Norm | Role::Bias | Role::Router | Role::PositionEmbedding
    );
    !vector && !never && tensor.name.ends_with("weight")
}

/// Tensors that are never quantized: vectors and norms as F32, odd matrices as they are or F16.
pub(super) fn plain(tensor: &TensorPlan) -> GgmlType {
    match tensor.source_dtype {
        _ if tensor.shape.len() < 2 || matches!(tensor.role, Role::Norm | Role::Bias | Role::Router) => {
            GgmlType::F32
        }
        DType::F32 | DType::BF16 => tensor.source_dtype.to_ggml().unwrap_or(GgmlType::F16),
        _ => GgmlType::F16,
    }
}

/// First and last eighth of the blocks, and every third between.
fn more_bits(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// The type itself where rows are whole blocks, else what llama.cpp falls back to.
fn fit(ty: GgmlType, cols: usize) -> GgmlType {
    use GgmlType as G;
    if cols.is_multiple_of(ty.block_size()) {
        return ty;
    }
    let smaller = match ty {
        G::Q2_K | G::Q3_K => G::Q4_0,
        G::Q4_K => G::Q5_0,
        G::Q5_K => G::Q5_1,
        G::Q6_K => G::Q8_0,
        G::IQ4_XS | G::IQ3_S | G::IQ3_XXS | G::IQ2_S | G::IQ2_XS | G::IQ2_XXS => G::IQ4_NL,
        _ => G::F16,
    };
    if smaller == G::F16 || cols.is_multiple_of(smaller.block_size()) {
        smaller
    } else {
        G::F16
    }
}

#[cfg(test)]
#[path = "mix_tests.rs"]
mod tests;
