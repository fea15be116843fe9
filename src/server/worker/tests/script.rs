//! An engine that follows a script: one act an attempt.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use modelpress_engine::{Artifact, ArtifactFile, Error, SourceFile};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::house::OUTPUT;
use crate::child::{Subject, Wrong};
use crate::domain::model::hex;
use crate::domain::{Document, JobId};
use crate::worker::Watch;
use crate::worker::engine::{Engine, Fault, Made, Work};

/// What an attempt does.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Make,
    /// Leaves something for the next attempt, waits until it can have been saved, and makes.
    KeepAndMake,
    /// Makes, and misses a quality gate; keeps its artifacts or not.
    MissGate {
        keep: bool,
    },
    Fail(Error),
    Panic,
    /// Works until it should stop.
    UntilStopped,
    /// Works until the test says so.
    WhenTold,
    /// The same, and then fails.
    FailWhenTold(Error),
}

/// The engine. Plans are the ids of their jobs.
#[derive(Debug, Default)]
pub(super) struct Script {
    acts: Mutex<HashMap<String, VecDeque<Act>>>,
    begun: Mutex<HashSet<String>>,
    /// What each job's datasets held.
    read: Mutex<HashMap<String, Vec<(String, String)>>>,
    news: Notify,
    told: AtomicBool,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Script {
    pub(super) fn write(&self, job: JobId, acts: &[Act]) {
        let acts = acts.iter().cloned().collect();
        let mut all = self.acts.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(job.to_string(), acts);
    }

    /// Until an attempt at the job is at work.
    pub(super) async fn begun(&self, job: JobId) {
        loop {
            let news = self.news.notified();
            if self.begun.lock().expect("whole").contains(&job.to_string()) {
                return;
            }
            news.await;
        }
    }

    /// Names and bytes of the datasets that the job was given.
    pub(super) fn datasets(&self, job: JobId) -> Vec<(String, String)> {
        let read = self.read.lock().expect("whole");
        read.get(&job.to_string()).cloned().unwrap_or_default()
    }

    fn read(&self, job: &str, work: &Work) {
        let files = |files: &[SourceFile]| -> String {
            files
                .iter()
                .map(|file| std::fs::read_to_string(&file.path).expect("reads"))
                .collect()
        };
        let datasets = work.datasets.iter();
        let read = datasets.map(|(name, of)| (name.clone(), files(of))).collect();
        self.read.lock().expect("whole").insert(job.to_owned(), read);
    }

    pub(super) fn tell(&self) {
        self.told.store(true, Ordering::SeqCst);
    }

    pub(super) fn most_at_once(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    fn act(&self, job: &str) -> Act {
        let mut acts = self.acts.lock().unwrap_or_else(PoisonError::into_inner);
        acts.get_mut(job)
            .and_then(VecDeque::pop_front)
            .unwrap_or(Act::Make)
    }

    fn wait_until_told(&self) {
        while !self.told.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn play(&self, work: &Work, watch: &Watch) -> Result<Made, Fault> {
        let plan: Value = work.plan.read().expect("JSON");
        let job = plan["job"].as_str().unwrap_or_default();
        watch.begin_stage("compress", 0, 1);
        watch.advance(4, 8);
        self.read(job, work);
        let act = self.act(job);
        self.begun.lock().expect("whole").insert(job.to_owned());
        self.news.notify_waiters();
        match &act {
            Act::Make | Act::MissGate { .. } => {}
            Act::KeepAndMake => keep(work),
            Act::Fail(error) => return Err(fault(error)),
            Act::Panic => panic!("on purpose"),
            Act::UntilStopped => {
                while watch.stopped().is_none() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                return Err(fault(&Error::cancelled()));
            }
            Act::WhenTold => self.wait_until_told(),
            Act::FailWhenTold(error) => {
                self.wait_until_told();
                return Err(fault(error));
            }
        }
        watch.note("info", "a remark", json!({}));
        watch.advance(8, 8);
        let mut made = made(work);
        if let Act::MissGate { keep } = act {
            made.gate = Some("kl is 0.3, and 0.1 was allowed".to_owned());
            made.artifacts.retain(|_| keep);
        }
        Ok(made)
    }
}

/// As the engine does with a tensor that took long.
fn keep(work: &Work) {
    let tensors = work.kept.join("tensors");
    std::fs::create_dir_all(&tensors).expect("scratch space");
    std::fs::write(tensors.join("0-0"), b"a tensor").expect("scratch space");
    std::thread::sleep(Duration::from_millis(800));
}

fn fault(error: &Error) -> Fault {
    Wrong::of(Subject::Work, error.clone()).into()
}

/// Two files, like every artifact: the weights and their papers.
fn made(work: &Work) -> Made {
    let file = |name: &str, bytes: &[u8]| {
        let path = work.out.join(name);
        std::fs::write(&path, bytes).expect("scratch space");
        ArtifactFile {
            name: name.into(),
            path,
            bytes: bytes.len() as u64,
            sha256: hex(&Sha256::digest(bytes)),
        }
    };
    Made {
        artifacts: vec![Artifact {
            format: "gguf".into(),
            files: vec![file("model.gguf", OUTPUT), file("modelpress.json", b"{}")],
        }],
        report: Document::of(&json!({"made": true})).expect("JSON"),
        saved_bytes: 3,
        gate: None,
    }
}

impl Engine for Script {
    fn techniques(&self) -> Vec<String> {
        vec!["affine".into()]
    }

    fn run(&self, work: &Work, watch: &Watch) -> Result<Made, Fault> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        // Also when it panics.
        let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.play(work, watch)));
        self.now.fetch_sub(1, Ordering::SeqCst);
        made.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
