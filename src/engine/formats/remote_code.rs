//! Models whose class comes with them: what config.json says so that transformers loads it with `trust_remote_code`.
//!
//! Owns: which loader a class belongs to, the fields. Must not know: what the class does.
//! Invariant: only a plain name of a class gets into a file of Python.

use super::Request;
use crate::recipe::Refusal;
use serde_json::{Map, Value, json};

/// Auto classes by the end of the names of those that they load, the longer end first.
const LOADERS: [(&str, &str); 13] = [
    ("ForCausalLM", "AutoModelForCausalLM"),
    ("LMHeadModel", "AutoModelForCausalLM"),
    ("ForSequenceClassification", "AutoModelForSequenceClassification"),
    ("ForTokenClassification", "AutoModelForTokenClassification"),
    ("ForMaskedLM", "AutoModelForMaskedLM"),
    ("ForImageClassification", "AutoModelForImageClassification"),
    ("ForSemanticSegmentation", "AutoModelForSemanticSegmentation"),
    ("ForObjectDetection", "AutoModelForObjectDetection"),
    ("ForDepthEstimation", "AutoModelForDepthEstimation"),
    ("ForMaskedImageModeling", "AutoModelForMaskedImageModeling"),
    ("ForPreTraining", "AutoModelForPreTraining"),
    ("Backbone", "AutoBackbone"),
    ("Model", "AutoModel"),
];

/// What loads a class of that name.
fn loader(architecture: &str) -> Option<&'static str> {
    let of = |(end, _): &&(&str, &str)| architecture.ends_with(end);
    LOADERS.iter().find(of).map(|(_, loader)| *loader)
}

/// A class that comes with its model.
pub(super) struct Own {
    /// The class of transformers that it is made of.
    pub base: String,
    /// What loads it.
    pub loader: &'static str,
    /// The model's configuration.
    pub config: Map<String, Value>,
}

/// The configuration of a model whose class is `class` in the file `module`.
pub(super) fn config(request: &Request<'_>, module: &str, class: &str) -> Result<Own, Vec<Refusal>> {
    let refuse = |detail: String| Err(vec![Refusal::new(request.pointer, "needs_config_json", detail)]);
    let architecture = request.model.architecture().unwrap_or_default();
    let (Some(loader), Some(Value::Object(mut config))) =
        (loader(&architecture), request.model.config.clone())
    else {
        let detail = "this format is loaded by transformers, and the model has no config.json that names one of its classes";
        return refuse(detail.to_owned());
    };
    if !architecture.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return refuse(format!("{architecture:?} is no name of a class"));
    }
    config.insert("architectures".into(), json!([class]));
    config.insert("auto_map".into(), json!({loader: format!("{module}.{class}")}));
    Ok(Own {
        base: architecture,
        loader,
        config,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_loaded_by_what_transformers_registers_them_with() {
        for (class, loads) in [
            ("LlamaForCausalLM", "AutoModelForCausalLM"),
            ("GPT2LMHeadModel", "AutoModelForCausalLM"),
            ("ResNetForImageClassification", "AutoModelForImageClassification"),
            ("ResNetBackbone", "AutoBackbone"),
            ("ResNetModel", "AutoModel"),
        ] {
            assert_eq!(loader(class), Some(loads));
        }
        assert_eq!(loader("llama"), None);
    }
}
