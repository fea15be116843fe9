//! How fast an engine decodes with what was made: a program of the operator's says so, and the report passes it on.
//!
//! Owns: running that program, what it may answer.
//! Must not know: which engine it asks.
//! Invariant: whatever it does, the job's result is the same but for this figure; it ends with the attempt, at the latest
//! after its time.
//!
//! The program is given a format and a folder and writes one JSON object to its standard output:
//! `{"decode_tokens_per_second": 41.7, "runtime": "llama.cpp b6000, 8 threads"}`. Exit code 3 says that it knows no engine
//! for the format.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use modelpress_engine::report::DecodeReport;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;

use super::Watch;
use super::engine::Made;
use crate::domain::Document;

/// How long it may take an artifact.
const LONGEST: Duration = Duration::from_mins(10);
/// How often it is looked whether the attempt goes on.
const LOOK: Duration = Duration::from_millis(100);
/// The exit code of a program that knows no engine for a format.
const NO_ENGINE: i32 = 3;
/// What it is told of the environment.
const TOLD: [&str; 5] = ["PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR"];
/// Most of its last words that are passed on.
const LAST_WORDS: usize = 500;

/// What the program says.
#[derive(Debug, Deserialize)]
struct Said {
    decode_tokens_per_second: f64,
    #[serde(default)]
    runtime: Option<String>,
}

/// Asks the program about every artifact, and writes what it says into the report.
pub(super) async fn time(program: &Path, made: &mut Made, watch: &Watch) {
    let mut found = Vec::new();
    for artifact in &made.artifacts {
        let Some(folder) = artifact.folder() else { continue };
        match ask(program, &artifact.format, folder, watch).await {
            Ok(Some(said)) => found.push(DecodeReport {
                format: artifact.format.clone(),
                tokens_per_second: said.decode_tokens_per_second,
                runtime: said.runtime,
            }),
            Ok(None) => {}
            Err(_) if watch.stopped().is_some() => return,
            Err(cause) => {
                let message = format!("decoding with {} could not be timed: {cause}", artifact.format);
                tracing::warn!(format = artifact.format, cause, "decode_command failed");
                watch.note("warning", &message, json!({}));
            }
        }
    }
    if found.is_empty() {
        return;
    }
    let report: Result<Value, _> = made.report.read();
    if let Ok(mut report) = report {
        report["decode"] = json!(found);
        made.report = Document::of(&report).unwrap_or_else(|_e| made.report.clone());
    }
}

/// None where there is no engine for the format.
async fn ask(program: &Path, format: &str, folder: &Path, watch: &Watch) -> Result<Option<Said>, String> {
    let told = std::env::vars_os().filter(|(name, _)| TOLD.iter().any(|told| name == *told));
    let child = Command::new(program)
        .args([format.as_ref(), folder.as_os_str()])
        .env_clear()
        .envs(told)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let over = tokio::time::timeout(LONGEST, child.wait_with_output());
    let output = tokio::select! {
        output = over => output.map_err(|_elapsed| format!("no answer in {LONGEST:?}"))?,
        () = stopped(watch) => return Err("the attempt ended".to_owned()),
    };
    said(&output.map_err(|error| error.to_string())?)
}

async fn stopped(watch: &Watch) {
    while watch.stopped().is_none() {
        tokio::time::sleep(LOOK).await;
    }
}

fn said(output: &Output) -> Result<Option<Said>, String> {
    if output.status.code() == Some(NO_ENGINE) {
        return Ok(None);
    }
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let from = words
            .trim_end()
            .char_indices()
            .rev()
            .nth(LAST_WORDS)
            .map_or(0, |(at, _)| at);
        return Err(format!("{}: {}", output.status, words[from..].trim()));
    }
    let said: Said = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("its answer is no JSON object with decode_tokens_per_second: {error}"))?;
    let speed = said.decode_tokens_per_second;
    if speed.is_finite() && speed > 0.0 {
        Ok(Some(said))
    } else {
        Err(format!("decode_tokens_per_second is {speed}"))
    }
}
