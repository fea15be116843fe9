//! Commands that end by themselves.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::models::{safetensors, small};

fn modelpress(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_modelpress"))
        .args(args)
        .env_remove("MODELPRESS_CONFIG")
        .output()
        .expect("runs")
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn model(folder: &Path) -> String {
    std::fs::write(folder.join("model.safetensors"), small()).expect("written");
    folder.display().to_string()
}

#[test]
fn compress_writes_artifacts_and_reports_and_prints_a_table() {
    let dir = tempfile::tempdir().expect("temp dir");
    let source = model(dir.path());
    let out = dir.path().join("small");
    let target = out.display().to_string();
    let args = [
        "compress",
        &source,
        "--recipe",
        "W8A16",
        "--format",
        "safetensors",
        "--out",
        &target,
    ];
    let (code, table, log) = said(&modelpress(&args));
    assert_eq!(code, Some(0), "{log}");
    for word in ["1,088 weights", "4,568 bytes", "bits per weight", "peak memory"] {
        assert!(table.contains(word), "{word}: {table}");
    }
    assert!(log.contains("100 %"), "progress as plain lines: {log}");
    for file in [
        "report.json",
        "report.html",
        "safetensors/model.safetensors",
        "safetensors/modelpress.json",
        "safetensors/README.md",
    ] {
        assert!(out.join(file).is_file(), "{file}");
    }
    let (code, _, log) = said(&modelpress(&args));
    assert_eq!(
        code,
        Some(2),
        "a folder with files in it is not overwritten: {log}"
    );
    let left: Vec<_> = std::fs::read_dir(dir.path()).expect("readable").collect();
    assert_eq!(
        left.len(),
        2,
        "nothing is left beside the model and the output: {left:?}"
    );
}

#[test]
fn compress_can_print_only_the_report() {
    let dir = tempfile::tempdir().expect("temp dir");
    let source = model(dir.path());
    let target = dir.path().join("out").display().to_string();
    let args = [
        "compress",
        &source,
        "-r",
        "W8A16",
        "-f",
        "safetensors",
        "-o",
        &target,
        "--report-only-json",
        "-t",
        "1",
    ];
    let (code, report, log) = said(&modelpress(&args));
    assert_eq!((code, log.as_str()), (Some(0), ""));
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["totals"]["parameters"], 1088);
}

#[test]
fn refusals_name_the_flag_and_the_fix() {
    let dir = tempfile::tempdir().expect("temp dir");
    let source = model(dir.path());
    let out = dir.path().join("out").display().to_string();
    let (code, _, log) = said(&modelpress(&[
        "compress", &source, "-r", "W8A16", "-f", "gguf", "-o", &out,
    ]));
    assert_eq!(code, Some(3), "{log}");
    assert!(
        log.contains("--format gguf: ") && log.contains("(needs_config_json)"),
        "{log}"
    );
    let (code, _, log) = said(&modelpress(&["plan", &source, "-r", "nonsense"]));
    assert_eq!(code, Some(3));
    assert!(
        log.contains("--recipe nonsense: ") && log.contains("Q4_K_M"),
        "presets are listed: {log}"
    );
    let recipe = dir.path().join("recipe.yaml");
    std::fs::write(&recipe, "stages: [{tecnique: rtn}]\nformats: [safetensors]\n").expect("written");
    let (code, _, log) = said(&modelpress(&[
        "plan",
        &source,
        "-r",
        &recipe.display().to_string(),
    ]));
    assert_eq!(code, Some(3));
    assert!(log.contains("recipe.yaml at /stages/0/tecnique"), "{log}");
    assert!(!Path::new(&out).exists(), "a refused run leaves nothing");
    let (code, _, log) = said(&modelpress(&[
        "plan",
        &source,
        "-r",
        "W4A16",
        "-f",
        "safetensors",
    ]));
    assert_eq!(code, Some(3), "rows of 64 and 32 have no groups of 128: {log}");
    assert!(
        log.contains(r#"--recipe '{"preset":"W4A16","options":{"group_size":"…"}}'"#),
        "what to type instead: {log}"
    );
    let threads = modelpress(&["compress", &source, "-r", "W8A16", "-o", &out, "-t", "100000"]);
    assert_eq!(said(&threads).0, Some(2), "{threads:?}");
}

#[test]
fn a_recipes_dataset_is_given_beside_it_or_is_a_path() {
    let dir = tempfile::tempdir().expect("temp dir");
    let source = model(dir.path());
    let text = dir.path().join("text");
    std::fs::create_dir(&text).expect("made");
    std::fs::write(text.join("a.txt"), "some text").expect("written");
    let path = text.display().to_string();
    let plan = |dataset: &str, given: &[&str]| {
        let recipe =
            serde_json::json!({"preset": "W8A16", "formats": ["safetensors"], "calibration": dataset});
        let recipe = recipe.to_string();
        let args = [&["plan", &source, "-r", &recipe], given].concat();
        said(&modelpress(&args))
    };
    let named = format!("mine={path}");
    for (dataset, given) in [
        ("builtin", &[][..]),
        (path.as_str(), &[]),
        ("mine", &["--dataset", &named]),
    ] {
        let (code, plan, log) = plan(dataset, given);
        assert_eq!(code, Some(0), "{dataset}: {log}");
        let plan: serde_json::Value = serde_json::from_str(&plan).expect("JSON");
        assert_eq!(plan["recipe"]["calibration"]["dataset"], dataset);
    }
    let (code, _, log) = plan("other", &["--dataset", &named]);
    assert_eq!(code, Some(3), "{log}");
    assert!(
        log.contains("/calibration/dataset") && log.contains("builtin, mine"),
        "{log}"
    );
    for (given, exit, says) in [
        ("mine", 2, "NAME=PATH"),
        ("builtin=x", 2, "another name"),
        ("mine=nowhere", 4, "nowhere"),
    ] {
        let (code, _, log) = plan("mine", &["--dataset", given]);
        assert_eq!(code, Some(exit), "{log}");
        assert!(log.contains(says), "{log}");
    }
}

#[test]
fn models_that_cannot_be_read_have_their_own_exit_code() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut cut = safetensors(&[("a", [4, 32])]);
    cut.truncate(100);
    std::fs::write(dir.path().join("model.safetensors"), cut).expect("written");
    for path in [dir.path().to_owned(), dir.path().join("missing")] {
        let (code, _, log) = said(&modelpress(&["plan", &path.display().to_string(), "-r", "Q8_0"]));
        assert_eq!(code, Some(4), "{log}");
    }
}

#[test]
fn the_configuration_is_checked_and_shown_without_secrets() {
    let dir = tempfile::tempdir().expect("temp dir");
    let file = dir.path().join("m.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:7777\"\ncursor_secret = \"hush\"\n").expect("written");
    let name = file.display().to_string();
    let url = "postgres://me:hush@db/x";
    let (code, shown, _) = said(&modelpress(&[
        "check-config",
        "--config",
        &name,
        "--database-url",
        url,
    ]));
    assert_eq!(code, Some(0));
    assert!(
        shown.contains("listen = \"127.0.0.1:7777\"") && shown.contains("postgres://me:***@db/x"),
        "{shown}"
    );
    assert!(!shown.contains("hush"), "{shown}");
    std::fs::write(&file, "lisen = \"x\"\n").expect("written");
    let (code, _, log) = said(&modelpress(&["check-config", "--config", &name]));
    assert_eq!(code, Some(2));
    assert!(log.contains("lisen"), "{log}");
    assert_eq!(
        modelpress(&["serve", "--listen", "nowhere"]).status.code(),
        Some(2)
    );
}

#[test]
fn migrate_makes_a_database_and_healthcheck_needs_a_server() {
    let dir = tempfile::tempdir().expect("temp dir");
    let data = dir.path().join("data").display().to_string();
    assert_eq!(
        modelpress(&["migrate", "--data-dir", &data]).status.code(),
        Some(0)
    );
    assert_eq!(
        modelpress(&["migrate", "--data-dir", &data]).status.code(),
        Some(0),
        "twice is fine"
    );
    assert!(dir.path().join("data/modelpress.db").is_file());
    assert_eq!(
        modelpress(&["healthcheck", "--listen", "127.0.0.1:1"])
            .status
            .code(),
        Some(1)
    );
}
