//! Blocks that have matrices in common: what config.json says of them.
//!
//! Owns: [`SharedBlocks`] and its place in a configuration. Must not know: how shared matrices are found or written.
//! Invariant: its length as JSON does not depend on which blocks share, only on how many blocks there are.

use serde_json::{Map, Value, json};

/// Its field.
const FIELD: &str = "shared_blocks";

/// Matrices that neighbouring blocks have in common. Blocks that share are a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedBlocks {
    /// What the names of a block's tensors begin with, up to its number: `model.layers`.
    pub blocks: String,
    /// Modules of a block whose weights are shared: `mlp.up_proj`.
    pub modules: Vec<String>,
    /// Of each block, whether it has matrices of its own or those of the block in front.
    pub own: Vec<bool>,
}

impl SharedBlocks {
    /// What a configuration says; nothing where it says nothing, or what makes no sense.
    pub fn of(config: &Value) -> Option<Self> {
        let field = config.get(FIELD)?;
        let modules = field.get("modules")?.as_array()?.iter();
        let own = field.get("own")?.as_array()?.iter();
        let shared = Self {
            blocks: field.get("blocks")?.as_str()?.to_owned(),
            modules: modules
                .map(|m| Some(m.as_str()?.to_owned()))
                .collect::<Option<_>>()?,
            own: own.map(|own| Some(own.as_u64()? == 1)).collect::<Option<_>>()?,
        };
        shared.own.first().is_some_and(|own| *own).then_some(shared)
    }

    /// The same in a configuration.
    pub fn put(&self, config: &mut Value) {
        if let Some(config) = config.as_object_mut() {
            let own: Vec<u8> = self.own.iter().map(|own| u8::from(*own)).collect();
            let field = json!({"blocks": self.blocks, "modules": self.modules, "own": own});
            config.insert(FIELD.to_owned(), field);
        }
    }

    /// A configuration that says nothing of it.
    pub(super) fn remove(config: &mut Value) {
        let _old = config
            .as_object_mut()
            .and_then(|config: &mut Map<_, _>| config.remove(FIELD));
    }

    /// Blocks are in runs that begin with these blocks.
    #[must_use]
    pub fn in_runs(self, firsts: &[u32]) -> Self {
        let own = (0..).zip(firsts).map(|(block, first): (u32, _)| block == *first);
        Self {
            own: own.collect(),
            ..self
        }
    }

    /// The first block of each block's run.
    pub fn firsts(&self) -> Vec<u32> {
        let mut first = 0;
        let of = |(block, own): (u32, &bool)| {
            if *own {
                first = block;
            }
            first
        };
        (0..).zip(&self.own).map(of).collect()
    }

    /// Number of runs.
    pub fn runs(&self) -> usize {
        self.own.iter().filter(|own| **own).count()
    }

    /// The name of a module's weight in a block.
    pub fn name(&self, module: &str, block: usize) -> String {
        format!("{}.{block}.{module}.weight", self.blocks)
    }

    /// The module and the block of a shared weight.
    pub fn place<'a>(&'a self, name: &str) -> Option<(&'a str, usize)> {
        let rest = name.strip_prefix(self.blocks.as_str())?.strip_prefix('.')?;
        let (block, rest) = rest.split_once('.')?;
        let block = block.parse().ok().filter(|block| *block < self.own.len())?;
        let module = rest.strip_suffix(".weight")?;
        let module = self.modules.iter().find(|known| *known == module)?;
        Some((module, block))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(own: &[bool]) -> SharedBlocks {
        SharedBlocks {
            blocks: "h".into(),
            modules: vec!["mlp.up".into()],
            own: own.to_vec(),
        }
    }

    #[test]
    fn what_is_put_is_found_and_is_as_long_whichever_blocks_share() {
        let config = |shared: &SharedBlocks| {
            let mut config = json!({"n_layer": 12});
            shared.put(&mut config);
            config
        };
        let some = shared(&[true, false, true, true]);
        assert_eq!(SharedBlocks::of(&config(&some)), Some(some.clone()));
        let others = shared(&[true, true, false, false]).in_runs(&[0, 1, 1, 3]);
        assert_eq!(others.own, [true, true, false, true]);
        assert_eq!(config(&some).to_string().len(), config(&others).to_string().len());
        assert_eq!((some.firsts(), some.runs()), (vec![0, 0, 2, 3], 3));
    }

    #[test]
    fn names_lead_to_places_and_back() {
        let shared = shared(&[true, false]);
        assert_eq!(shared.name("mlp.up", 1), "h.1.mlp.up.weight");
        assert_eq!(shared.place("h.1.mlp.up.weight"), Some(("mlp.up", 1)));
        for other in [
            "h.2.mlp.up.weight",
            "h.1.mlp.up.bias",
            "h.1.mlp.down.weight",
            "hh.1.mlp.up.weight",
            "h",
        ] {
            assert_eq!(shared.place(other), None, "{other}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_not_there() {
        for field in [
            json!(null),
            json!({"blocks": "h", "modules": [], "own": []}),
            json!({"blocks": "h", "modules": [], "own": [0, 1]}),
            json!({"blocks": 1, "modules": [], "own": [1]}),
            json!({"blocks": "h", "modules": [2], "own": [1]}),
        ] {
            assert_eq!(
                SharedBlocks::of(&json!({"shared_blocks": field})),
                None,
                "{field}"
            );
        }
    }
}
