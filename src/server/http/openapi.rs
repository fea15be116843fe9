//! The OpenAPI document: what utoipa collects beside the handlers, made complete.
//!
//! Owns: the description, the problem responses (from each operation's `x-problem-codes`), the file's text.
//! Must not know: single operations.
//! Invariant: every operation documents every problem it can answer with, each with an example of the real type.

use modelpress_engine::recipe;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::hooks;
use super::problem::{KINDS, Kind, Problem, ProblemOut};
use super::routes;
use crate::domain::JobState;

/// Problems any operation may answer with.
const ALWAYS: [&str; 2] = ["internal", "unavailable"];
/// Problems any operation may answer with that asks for a key.
const WITH_KEY: [&str; 3] = ["unauthenticated", "insufficient_scope", "rate_limited"];

#[derive(OpenApi)]
#[openapi(
    info(
        title = "modelpress",
        description = "Model compression as a service: upload a model, post a recipe, get back an artifact that \
                       engines load, with a measured report.\n\n\
                       Lists come in pages: pass `next_cursor` as `after`. Times are RFC 3339 in UTC, sizes are \
                       bytes, identifiers are opaque. Unknown request fields are refused. Every error is a problem \
                       document (RFC 9457); programs look at its `code`. Every response carries `X-Request-Id`."
    ),
    components(schemas(ProblemOut)),
    tags(
        (name = "models", description = "Sets of files, inspected when they are committed and immutable from then on."),
        (name = "datasets", description = "Text and arrays that jobs are calibrated and evaluated with; read through when they are made."),
        (name = "uploads", description = "Files on their way in, by offset: what arrived is kept when a connection breaks."),
        (name = "plans", description = "What a recipe would do to a model, computed without doing it."),
        (name = "jobs", description = "Recipes at work: queued, running, succeeded, failed or cancelled."),
        (name = "searches", description = "Several recipes on one model, each a job, and which of them are worth having."),
        (name = "artifacts", description = "What jobs produced: files by digest."),
        (name = "webhooks", description = "Who is told when jobs change, signed as Standard Webhooks has it; what is sent is in `webhooks` of this document."),
        (name = "keys", description = "Who may use the API, for which tenant; all of it needs `admin`."),
        (name = "system", description = "What is going on, and who works."),
        (name = "catalog", description = "What this version can do."),
        (name = "health", description = "For supervisors and monitoring.")
    )
)]
struct Head;

/// The document.
pub fn document() -> Value {
    let mut api = Head::openapi();
    env!("CARGO_PKG_VERSION").clone_into(&mut api.info.version);
    // The derive fills this from the manifest, which names none.
    api.info.license = None;
    api.merge(routes::table().into_openapi());
    // A document of plain data always has a JSON form.
    let mut document = serde_json::to_value(api).unwrap_or_default();
    document["components"]["schemas"]["Recipe"] = recipe::schema();
    document["components"]["securitySchemes"] = json!({"key": {
        "type": "http", "scheme": "bearer", "bearerFormat": "mp_<id>_<secret>",
        "description": "A key from `modelpress keys create` or `POST /v1/keys`. Servers that only their own machine \
                        can reach ask for none unless told to. The scopes of an operation say what a key must \
                        allow: writing includes reading, `admin` everything.",
    }});
    hooks::describe(&mut document);
    complete_paths(&mut document);
    complete_schemas(&mut document);
    document["x-problems"] = KINDS
        .iter()
        .map(|k| json!({"code": k.code, "status": k.status, "title": k.title}))
        .collect();
    document
}

/// The document as it lies in `openapi/openapi.json`.
pub fn text() -> String {
    let mut text = serde_json::to_string_pretty(&document()).unwrap_or_default();
    text.push('\n');
    text
}

fn complete_paths(document: &mut Value) {
    let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) else {
        return;
    };
    let mut complete = Map::new();
    for (path, mut item) in std::mem::take(paths) {
        for operation in item
            .as_object_mut()
            .into_iter()
            .flat_map(|item| item.values_mut())
        {
            add_problems(operation);
            say_binary(operation.pointer_mut("/requestBody/content"));
            for response in operation["responses"]
                .as_object_mut()
                .into_iter()
                .flat_map(|map| map.values_mut())
            {
                say_binary(response.get_mut("content"));
            }
        }
        // A path that may hold slashes is `{*path}` to the router; OpenAPI has no word for it.
        complete.insert(path.replace("{*", "{"), item);
    }
    *paths = complete;
}

/// What the derive cannot say: every field of an answer is always there, pages refer to their items by name, recipes
/// are the engine's.
fn complete_schemas(document: &mut Value) {
    let schemas = document
        .pointer_mut("/components/schemas")
        .and_then(Value::as_object_mut);
    for (name, schema) in schemas.into_iter().flatten() {
        if let Some(item) = name.strip_prefix("PageOut_") {
            schema["properties"]["data"]["items"] = json!({"$ref": format!("#/components/schemas/{item}")});
        }
        if ["JobIn", "PlanIn"].contains(&name.as_str()) {
            let says = "The name of a preset (`GET /v1/presets`) or a recipe object.";
            schema["properties"]["recipe"] =
                json!({"$ref": "#/components/schemas/Recipe", "description": says});
        }
        complete_recipes(name, schema);
        if name.ends_with("Out") {
            let fields = schema["properties"]
                .as_object()
                .into_iter()
                .flat_map(Map::keys)
                .cloned();
            schema["required"] = fields.collect::<Vec<_>>().into();
        }
    }
}

/// Where recipes and their parts stand in other requests, and the states of jobs.
fn complete_recipes(name: &str, schema: &mut Value) {
    let recipe = json!({"$ref": "#/components/schemas/Recipe"});
    let mut say = |field: &str, kind: Value| {
        let described = schema["properties"][field]["description"].clone();
        let property = &mut schema["properties"][field];
        *property = kind;
        property["description"] = described;
    };
    match name {
        "SearchIn" => {
            say("recipes", json!({"type": ["array", "null"], "items": recipe}));
            say("calibration", json!({"type": ["string", "object", "null"]}));
            say(
                "evaluation",
                json!({"type": ["string", "boolean", "object", "null"]}),
            );
        }
        "AnalysisIn" => say("sensitivity", json!({"anyOf": [recipe, {"type": "null"}]})),
        "JobOut" => {
            let states = JobState::ALL.map(JobState::as_str);
            schema["properties"]["status"]["enum"] = json!(states);
        }
        _ => {}
    }
}

/// Raw bytes are a list of numbers to the derive; OpenAPI calls them binary.
fn say_binary(content: Option<&mut Value>) {
    for (kind, media) in content.and_then(Value::as_object_mut).into_iter().flatten() {
        let raw = kind.ends_with("octet-stream") || kind == "application/x-tar" || kind == "image/png";
        if raw {
            media["schema"] = json!({"type": "string", "format": "binary"});
        }
    }
}

fn add_problems(operation: &mut Value) {
    let own: Vec<String> = operation["x-problem-codes"]
        .as_array()
        .map(|codes| {
            codes
                .iter()
                .filter_map(|code| code.as_str().map(str::to_owned))
                .collect()
        })
        .unwrap_or_default();
    let asks = operation["security"].is_array();
    let used = |kind: &&Kind| {
        ALWAYS.contains(&kind.code)
            || asks && WITH_KEY.contains(&kind.code)
            || own.iter().any(|code| code == kind.code)
    };
    for kind in KINDS.iter().filter(used) {
        let response = &mut operation["responses"][kind.status.to_string()];
        if response.is_null() {
            *response = json!({
                "description": "",
                "content": {"application/problem+json": {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "examples": {},
                }},
            });
        }
        let said = response["description"].as_str().unwrap_or_default();
        let separator = if said.is_empty() { "" } else { "; " };
        response["description"] = format!("{said}{separator}{} (`{}`)", kind.title, kind.code).into();
        response["content"]["application/problem+json"]["examples"][kind.code] = json!({"value": Problem::new(*kind, kind.title.to_lowercase()).document("/v1/…", "0193d0a6-7c1e-7bd0-8d53-2f5a9f1d1c11")});
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn operations(document: &Value) -> Vec<(String, Value)> {
        let paths = document["paths"].as_object().expect("paths");
        paths
            .iter()
            .flat_map(|(path, item)| {
                let item = item.as_object().expect("operations");
                item.iter()
                    .map(move |(verb, operation)| (format!("{verb} {path}"), operation.clone()))
            })
            .collect()
    }

    #[test]
    fn the_file_is_the_one_this_code_writes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi/openapi.json");
        let file = std::fs::read_to_string(path).expect("openapi/openapi.json is there");
        assert!(
            file == text(),
            "openapi/openapi.json is not current: run `cargo run -- openapi --write openapi/openapi.json`"
        );
    }

    #[test]
    fn every_operation_is_described() {
        let document = document();
        assert_eq!(document["openapi"], "3.1.0");
        let tags: BTreeSet<&str> = document["tags"]
            .as_array()
            .expect("tags")
            .iter()
            .filter_map(|tag| tag["name"].as_str())
            .collect();
        let mut ids = BTreeSet::new();
        for (name, operation) in operations(&document) {
            let id = operation["operationId"].as_str().expect("has an id").to_owned();
            assert!(ids.insert(id.clone()), "{id} twice");
            assert!(
                id.chars().all(|c| c.is_ascii_alphanumeric()),
                "{id} is not camelCase"
            );
            let own = operation["tags"].as_array().expect("has tags");
            assert!(
                own.len() == 1 && tags.contains(own[0].as_str().unwrap_or_default()),
                "{name}: {own:?}"
            );
            assert!(
                operation["summary"].as_str().is_some_and(|s| !s.is_empty()),
                "{name} has no summary"
            );
            assert!(
                operation["description"].as_str().is_some_and(|s| !s.is_empty()),
                "{name} has no description"
            );
            let responses = operation["responses"].as_object().expect("has responses");
            assert!(
                responses.keys().any(|status| status.starts_with('2')),
                "{name} has no success"
            );
            for (status, response) in responses {
                assert!(
                    response["description"].as_str().is_some_and(|s| !s.is_empty()),
                    "{name} {status}"
                );
            }
        }
    }

    #[test]
    fn the_document_and_the_routes_are_the_same_set() {
        // Both come from one table; this shows that nothing is lost on the way and no path is doubled.
        let document = document();
        let written: BTreeSet<String> = operations(&document).into_iter().map(|(name, _)| name).collect();
        let mut table: Vec<String> = Vec::new();
        for (path, item) in routes::table().into_openapi().paths.paths {
            let item = serde_json::to_value(item).expect("plain data");
            let verbs = item
                .as_object()
                .expect("operations")
                .keys()
                .cloned()
                .collect::<Vec<_>>();
            table.extend(
                verbs
                    .iter()
                    .map(|verb| format!("{verb} {}", path.replace("{*", "{"))),
            );
        }
        assert_eq!(written, table.iter().cloned().collect());
        assert_eq!(written.len(), table.len());
    }

    #[test]
    fn every_problem_code_named_exists() {
        for (name, operation) in operations(&document()) {
            for code in operation["x-problem-codes"].as_array().into_iter().flatten() {
                assert!(
                    KINDS.iter().any(|kind| Some(kind.code) == code.as_str()),
                    "{name}: {code}"
                );
            }
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &Value, document: &Value) {
            match value {
                Value::Object(map) => {
                    if let Some(target) = map.get("$ref").and_then(Value::as_str) {
                        assert!(
                            document.pointer(target.trim_start_matches('#')).is_some(),
                            "{target}"
                        );
                    }
                    map.values().for_each(|value| walk(value, document));
                }
                Value::Array(list) => list.iter().for_each(|value| walk(value, document)),
                _ => {}
            }
        }
        let document = document();
        walk(&document, &document);
    }
}
