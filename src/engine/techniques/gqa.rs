//! Grouped-query attention out of more key/value heads: neighbours are merged.
//!
//! Owns: its options, which tensors take part. Must not know: how heads are brought together.
//! Invariant: query heads stay as many as they were; what turns a key/value head is taken up by its query heads or the output
//! projection.

use super::options::{self, Options, Planned};
use super::structure;
use super::{Blocks, Decision, Old, Reshapes, Technique, Work};
use crate::error::{Error, Result};
use crate::kernels::factor::heads::{self, Alignment, Freedom, Layout, Merged, absorb_keys, absorb_values};
use crate::kernels::factor::whitened::Whitening;
use crate::models::structure::{HeadCounts, attentions, head_counts, with_heads};
use crate::plan::{Context, Origin, Outline, OutlinedTensor, StagePlan};
use crate::recipe::Refusal;
use serde_json::{Value, json};

/// The technique.
pub(super) struct Gqa;

impl Technique for Gqa {
    fn name(&self) -> &'static str {
        "gqa"
    }

    fn summary(&self) -> &'static str {
        "Fewer key/value heads, down to one: neighbours are averaged, or first turned towards each other as far as query heads \
         and the output projection can take it up. A smaller cache, and a start for training on. Ainslie et al. 2023; Shazeer \
         2019 (one head); Yu et al. 2024 (aligned)."
    }

    fn page(&self) -> &'static str {
        include_str!("pages/gqa.md")
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "additionalProperties": false, "properties": {
            "num_key_value_heads": {"type": "integer", "minimum": 1, "maximum": 65_536, "default": 1, "examples": [2],
                "description": "Key/value heads that there will be in each block; divides those that there are. 1 is multi-query attention."},
            "method": {"type": "string", "enum": ["aligned", "rotated", "mean"], "default": "aligned", "examples": ["aligned"],
                "description": "How heads are brought to one: the nearest that matrices before and behind can turn back (aligned), the mean of heads that were rotated towards it (rotated), or of heads as they are (mean). Keys with rotary positions turn in the planes of these only; keys with norms of their own are averaged as they are."}}})
    }

    fn plan(&self, context: &Context<'_>) -> Planned<Decision> {
        let options = Options::checked(context, self.schema())?;
        let config = structure::config(context)?;
        let refuse = |pointer: String, code: &'static str, detail: String| {
            Err(vec![Refusal::new(pointer, code, detail)])
        };
        let Some(counts) = head_counts(config) else {
            let detail = "key/value heads are counted apart in llama, mistral, qwen2, qwen3, smollm3, mixtral, qwen2_moe and \
                          qwen3_moe: the model is none of them";
            return refuse(
                context.technique_pointer(),
                "no_such_structure",
                detail.to_owned(),
            );
        };
        let groups = options.number("num_key_value_heads");
        if groups >= counts.kv_heads || !counts.kv_heads.is_multiple_of(groups) {
            let detail = format!(
                "{} key/value heads cannot be brought to {groups}: it must divide them and be less",
                counts.kv_heads
            );
            return refuse(
                options::pointer(context, "num_key_value_heads"),
                "bad_groups",
                detail,
            );
        }
        let attentions = attentions(&structure::parts(context.tensors));
        let touched = attentions
            .iter()
            .flat_map(|a| [&a.q, &a.k, &a.v, &a.o])
            .map(String::as_str);
        structure::check_plain(context, touched)?;
        let rows = groups * counts.head_dim;
        let mut tensors = Vec::new();
        for tensor in context.tensors {
            let mut outlined = structure::whole(tensor);
            let module = tensor.name.rsplit_once('.').map_or("", |(module, _)| module);
            let is_of = |weight: &String| weight.strip_suffix(".weight") == Some(module);
            if attentions.iter().any(|a| is_of(&a.k) || is_of(&a.v)) {
                outlined.origin = Origin::Made;
                outlined.shape[0] = rows;
            } else if attentions.iter().any(|a| is_of(&a.q)) || attentions.iter().any(|a| a.o == tensor.name)
            {
                outlined.origin = Origin::Made;
            }
            tensors.push(outlined);
        }
        let fewer = HeadCounts {
            kv_heads: groups,
            ..counts
        };
        Ok(Decision {
            outline: Some(Outline {
                config: with_heads(config, fewer),
                tensors,
                shared: None,
            }),
            ..Decision::default()
        })
    }

    fn work(&self) -> Work {
        Work::Reshapes(&Gqa)
    }
}

/// A projection with its bias as one more column.
struct Projection {
    values: Vec<f32>,
    cols: usize,
    has_bias: bool,
}

impl Projection {
    fn of(old: &Old<'_>, module: &str, rows: usize) -> Result<Self> {
        let weight = (old.tensor)(&format!("{module}.weight"))?;
        let cols = weight.len() / rows.max(1);
        let name = format!("{module}.bias");
        if !(old.has)(&name) {
            return Ok(Self {
                values: weight,
                cols,
                has_bias: false,
            });
        }
        let bias = (old.tensor)(&name)?;
        let rows = weight.chunks(cols.max(1)).zip(&bias);
        let values = rows
            .flat_map(|(row, b)| row.iter().copied().chain([*b]))
            .collect();
        Ok(Self {
            values,
            cols: cols + 1,
            has_bias: true,
        })
    }

    /// The weight or the bias of rows with that column.
    fn part(&self, values: &[f32], is_bias: bool) -> Vec<f32> {
        match (self.has_bias, is_bias) {
            (false, _) => values.to_vec(),
            (true, true) => values
                .chunks(self.cols)
                .filter_map(|row| row.last())
                .copied()
                .collect(),
            (true, false) => values
                .chunks(self.cols)
                .flat_map(|row| &row[..self.cols - 1])
                .copied()
                .collect(),
        }
    }
}

/// How one block's heads are merged.
struct Merge<'a> {
    old: &'a Old<'a>,
    attention: &'a str,
    alignment: Alignment,
    groups: usize,
}

impl Merge<'_> {
    fn layout(&self, projection: &Projection, head_dim: usize) -> Layout {
        let rows = projection.values.len() / projection.cols.max(1);
        Layout {
            heads: rows / head_dim.max(1),
            groups: self.groups,
            head_dim,
            cols: projection.cols,
        }
    }

    fn merged(&self, part: &str, rows: usize, head_dim: usize) -> Result<(Projection, Layout, Merged)> {
        let projection = Projection::of(self.old, &format!("{}.{part}_proj", self.attention), rows)?;
        let layout = self.layout(&projection, head_dim);
        let (freedom, alignment) = match part {
            "v" => (Freedom::Any, self.alignment),
            // Nothing commutes with a norm of the keys.
            _ if (self.old.has)(&format!("{}.k_norm.weight", self.attention)) => {
                (Freedom::Any, Alignment::Mean)
            }
            _ => (Freedom::RotaryHalves { dims: head_dim }, self.alignment),
        };
        let inputs = Whitening::none(projection.cols);
        let merged = heads::merge(
            &projection.values,
            &layout,
            freedom,
            alignment,
            &inputs,
            self.old.stop,
        )?;
        Ok((projection, layout, merged))
    }
}

impl Reshapes for Gqa {
    fn by_blocks(&self) -> Option<&'static dyn Blocks> {
        None
    }

    fn make(&self, stage: &StagePlan, tensor: &OutlinedTensor, old: &Old<'_>) -> Result<Vec<f32>> {
        let broken = || Error::internal(format!("nothing makes {}", tensor.name));
        let options = Options::of(&stage.options, self.schema());
        let (attention, rest) = tensor.name.rsplit_once("_proj.").ok_or_else(broken)?;
        let (attention, part) = attention.rsplit_once('.').ok_or_else(broken)?;
        let counts = stage
            .outline
            .as_ref()
            .and_then(|outline| head_counts(&outline.config))
            .ok_or_else(broken)?;
        let merge = Merge {
            old,
            attention,
            alignment: match options.text("method") {
                "mean" => Alignment::Mean,
                "rotated" => Alignment::Rotation,
                _ => Alignment::Linear,
            },
            groups: counts.kv_heads,
        };
        let dim = counts.head_dim;
        let rows_of = |part: &str| {
            let bytes = (old.tensor)(&format!("{attention}.{part}_proj.weight"))?;
            let hidden =
                (old.tensor)(&format!("{attention}.q_proj.weight"))?.len() / (counts.heads * dim).max(1);
            Ok::<_, Error>(bytes.len() / hidden.max(1))
        };
        let is_bias = rest == "bias";
        match part {
            "k" | "v" => {
                let (projection, _, merged) = merge.merged(part, rows_of(part)?, dim)?;
                Ok(projection.part(&merged.heads, is_bias))
            }
            "q" => {
                let (_, layout, merged) = merge.merged("k", rows_of("k")?, dim)?;
                let mut q = Projection::of(old, &format!("{attention}.q_proj"), counts.heads * dim)?;
                let mut turned = std::mem::take(&mut q.values);
                absorb_keys(&mut turned, &layout, counts.heads, &merged)?;
                Ok(q.part(&turned, is_bias))
            }
            "o" => {
                let (_, layout, merged) = merge.merged("v", rows_of("v")?, dim)?;
                let mut o = (old.tensor)(&format!("{attention}.o_proj.weight"))?;
                absorb_values(&mut o, &layout, counts.heads, &merged)?;
                Ok(o)
            }
            _ => Err(broken()),
        }
    }
}
