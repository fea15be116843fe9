//! What lies beside an artifact's files.

use super::{Datasets, Silent, Site, Small, execute, int4, on, rows};
use crate::digest;
use crate::execute::MANIFEST;
use serde_json::{Value, json};
use std::path::Path;

const CARD: &str =
    "---\nlicense: apache-2.0\nlanguage:\n- en\nlicense_name: {\"deep\": 1}\ntags: [other]\n---\n# Mine\n";

/// A run whose files stay: the folder, and its files by name.
fn kept(small: &Small, recipe: &Value, datasets: &Datasets) -> (tempfile::TempDir, Vec<(String, Vec<u8>)>) {
    let plan = small.plan(recipe, datasets).unwrap();
    let out = tempfile::tempdir().unwrap();
    let scratch = out.path().join("scratch");
    let site = Site::on_cpu(out.path(), &scratch);
    let outcome = execute(&plan, &small.model, datasets, &site, &Silent).unwrap();
    let files = outcome.artifacts[0].files.iter();
    let files = files.map(|file| (file.name.clone(), std::fs::read(&file.path).unwrap()));
    let files = files.collect();
    (out, files)
}

fn text(files: &[(String, Vec<u8>)], name: &str) -> String {
    let (_, bytes) = files.iter().find(|(own, _)| own == name).unwrap();
    String::from_utf8(bytes.clone()).unwrap()
}

fn sha256(path: &Path) -> String {
    digest::sha256(&std::fs::read(path).unwrap())
}

#[test]
fn the_manifest_names_every_file_and_what_they_were_made_from() {
    let small = Small::new("llama_gqa_tied");
    let (_out, files) = kept(&small, &int4(&Value::Null), &Datasets::new());
    let manifest: Value = serde_json::from_str(&text(&files, MANIFEST)).unwrap();
    let named = manifest["files"].as_array().unwrap();
    assert_eq!(named.len(), files.len() - 1);
    for ((name, bytes), entry) in files.iter().zip(named) {
        assert_eq!(
            *entry,
            json!({"name": name, "bytes": bytes.len(), "sha256": digest::sha256(bytes)})
        );
    }
    let sources = manifest["source"]["files"].as_array().unwrap();
    assert_eq!(sources.len(), small.model.files.len());
    for (file, source) in small.model.files.iter().zip(sources) {
        assert_eq!(source["name"], file.name);
        assert_eq!(source["sha256"], sha256(&file.path));
    }
    assert!(manifest.get("evaluation").is_none());
    let (_out, again) = kept(&small, &int4(&Value::Null), &Datasets::new());
    assert_eq!(files, again);
}

/// A digest that somebody knows is taken as it is: a store named the file by it.
#[test]
fn known_digests_are_not_looked_for() {
    let mut small = Small::new("llama_gqa_tied");
    for file in &mut small.model.files {
        file.sha256 = Some(format!("known of {}", file.name));
    }
    let (_out, files) = kept(&small, &int4(&Value::Null), &Datasets::new());
    let manifest: Value = serde_json::from_str(&text(&files, MANIFEST)).unwrap();
    assert_eq!(
        manifest["source"]["files"][0]["sha256"],
        format!("known of {}", small.model.files[0].name)
    );
}

#[test]
fn the_card_says_what_it_is_what_it_cost_and_whose_it_was() {
    let small = Small::new("llama_gqa_tied").with_file("README.md", CARD);
    let data = small.data(&rows(12));
    let (_out, files) = kept(&small, &int4(&on(&["perplexity", "kl"])), &data);
    let card = text(&files, "README.md");
    let (head, body) = card.strip_prefix("---\n").unwrap().split_once("---\n").unwrap();
    let head: Value = serde_norway::from_str(head).unwrap();
    assert_eq!(head["license"], "apache-2.0");
    assert_eq!(head["language"], json!(["en"]));
    assert_eq!(head["library_name"], "transformers");
    assert_eq!(head["tags"][0], "modelpress");
    assert!(head.get("license_name").is_none(), "{head}");
    for said in [
        "vllm serve .",
        "| perplexity |",
        "12 sequences",
        "\"n_bits\": 4",
        "`model.safetensors`",
        "modelpress verify .",
    ] {
        assert!(body.contains(said), "{said}: {card}");
    }
    let manifest: Value = serde_json::from_str(&text(&files, MANIFEST)).unwrap();
    assert_eq!(manifest["evaluation"]["sequences"], 12);
}

/// Text of a model or a user is no markup and opens no key of the front matter.
#[test]
fn names_cannot_write_the_card() {
    let small = Small::new("llama_gqa_tied")
        .with_file("README.md", "---\nlicense: \"x\\n---\\n# Own\\nb: c\"\n---\n");
    let (_out, files) = kept(&small, &int4(&Value::Null), &Datasets::new());
    let card = text(&files, "README.md");
    assert!(card.contains("license: \"x\\n---\\n# Own\\nb: c\"\n"), "{card}");
    assert!(!card.contains("\n# Own"), "{card}");
    assert!(card.contains("Not measured"), "{card}");
}
