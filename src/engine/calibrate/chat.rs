//! Conversations to text, by a model's chat template.
//!
//! Owns: finding and rendering the template. Must not know: tokens.
//! Invariant: a template is untrusted: it has no way out and a bounded number of steps.

use crate::checkpoint::Checkpoint;
use crate::dataset::Message;
use crate::error::{Error, Result};
use minijinja::{Environment, Value as Jinja, context};
use minijinja_contrib::pycompat;
use serde_json::Value;

/// Steps that rendering may take.
const FUEL: u64 = 10_000_000;

/// A model's chat template.
pub(super) struct Chat {
    environment: Environment<'static>,
    specials: Vec<(&'static str, String)>,
}

impl Chat {
    /// The template of a checkpoint, if it has one.
    pub(super) fn of(model: &Checkpoint) -> Result<Option<Self>> {
        let config = model.side_json("tokenizer_config.json")?.unwrap_or_default();
        let alone = model.side_file("chat_template.jinja")?;
        let template = match alone {
            Some(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            None => listed(config.get("chat_template")),
        };
        let Some(template) = template else {
            return Ok(None);
        };
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<Jinja, minijinja::Error> {
                Err(minijinja::Error::new(
                    minijinja::ErrorKind::InvalidOperation,
                    message,
                ))
            },
        );
        // The same on every day: a calibration must not depend on the clock.
        environment.add_function("strftime_now", |_format: String| "2024-01-01".to_owned());
        environment.add_template_owned("chat", template).map_err(|e| {
            Error::bad_input(
                "invalid_chat_template",
                format!("the chat template is not valid: {e}"),
            )
        })?;
        let specials = ["bos_token", "eos_token", "unk_token", "pad_token"]
            .into_iter()
            .filter_map(|name| Some((name, special(config.get(name)?)?)))
            .collect();
        Ok(Some(Self {
            environment,
            specials,
        }))
    }

    pub(super) fn render(&self, messages: &[Message]) -> Result<String> {
        let failed = |e: minijinja::Error| {
            Error::bad_input(
                "invalid_chat_template",
                format!("the chat template does not take this conversation: {e}"),
            )
        };
        let specials = self.specials.iter().map(|(k, v)| (*k, Jinja::from(v.clone())));
        let specials: Jinja = specials.collect();
        let list: Vec<Jinja> = messages
            .iter()
            .map(|m| context! { role => m.role, content => m.content })
            .collect();
        let values = context! { messages => list, add_generation_prompt => false, ..specials };
        let template = self.environment.get_template("chat").map_err(failed)?;
        template.render(values).map_err(failed)
    }
}

/// One template, or a list of named ones of which `default` counts.
fn listed(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(template) => Some(template.clone()),
        Value::Array(list) => {
            let named = |t: &&Value| t.get("name").and_then(Value::as_str) == Some("default");
            let chosen = list.iter().find(named).or_else(|| list.first())?;
            chosen.get("template")?.as_str().map(str::to_owned)
        }
        _ => None,
    }
}

/// A special token is a text, or an object that holds one.
fn special(value: &Value) -> Option<String> {
    value
        .as_str()
        .or_else(|| value.get("content")?.as_str())
        .map(str::to_owned)
}
