//! The loop that brings models.
//!
//! Owns: how many pulls are under way, how they are kept, when one that broke off is taken up again.
//! Must not know: what a source is, rows.
//! Invariant: a pull ends in a model, in a reason, or in somebody's hands again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::bring::{Meter, Work};
use super::{Sources, Stop};
use crate::domain::ports::{Blobs, StoreError, Stores, Uploads};
use crate::domain::pull::{Inspector, Leftovers, PullClaim, Pulls};
use crate::domain::sealed::Seal;
use crate::domain::{Clock, Failure, UploadId};
use crate::outbound::Outbound;
use crate::queue::supervise::supervise;
use crate::queue::ticked;
use crate::queue::wake::Ear;
use crate::telemetry::Metrics;

/// Pulls under way in this process.
const AT_ONCE: usize = 2;
/// How long a claim holds without a beat, and how often that comes.
const CLAIM: Duration = Duration::from_secs(20);
const BEAT: Duration = Duration::from_secs(2);
/// How often in a row a pull may break off without a new byte.
const FAILURES: u32 = 8;
/// Waits before it is taken up again: the first, which doubles, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(10));

/// Within what a pull stays.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Files fetched at once by one pull.
    pub connections: usize,
    /// Longest silence of a source.
    pub idle: Duration,
    /// Its least speed; 0 is none.
    pub least_bytes_per_second: u64,
    /// Free disk space to leave.
    pub reserve_bytes: u64,
    /// Largest file.
    pub file_bytes: u64,
    /// Most files.
    pub model_files: usize,
    /// Bytes that a tenant may store.
    pub tenant_bytes: Option<u64>,
    /// How long a pull that does not end keeps what has arrived.
    pub keep: Duration,
}

/// What bringing models needs.
#[derive(Debug, Clone)]
pub struct Puller {
    /// What is to be brought.
    pub pulls: Arc<dyn Pulls>,
    /// Models and uploads.
    pub stores: Arc<dyn Stores>,
    /// Where bytes end.
    pub blobs: Arc<dyn Blobs>,
    /// Where bytes arrive.
    pub uploads: Arc<dyn Uploads>,
    /// Opens what was brought.
    pub inspector: Arc<dyn Inspector>,
    /// The way out.
    pub outbound: Outbound,
    /// Hosts.
    pub sources: Arc<Sources>,
    /// Opens tokens.
    pub seal: Seal,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Counts what came of it.
    pub metrics: Arc<Metrics>,
    /// Says that something may be there to bring.
    pub wake: Arc<Notify>,
    /// Limits.
    pub bounds: Bounds,
}

impl Puller {
    /// Brings what is asked for, until `stop`; what is under way then goes on later.
    pub async fn run(self, stop: CancellationToken) {
        supervise("pull", || self.turns(&stop)).await;
    }

    async fn turns(&self, stop: &CancellationToken) {
        let mut under_way = JoinSet::new();
        while !stop.is_cancelled() {
            let ear = Ear::listen(&self.wake);
            while under_way.len() < AT_ONCE {
                match self.pulls.claim_pull(CLAIM).await {
                    Ok(Some(claim)) => {
                        let (puller, stop) = (self.clone(), stop.clone());
                        under_way.spawn(async move { puller.pull(claim, &stop).await });
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(%error, "pulls not looked for; trying again");
                        break;
                    }
                }
            }
            ticked(&self.metrics, self.clock.as_ref(), "pull");
            tokio::select! {
                () = ear.wait(stop) => {}
                Some(_) = under_way.join_next() => {}
            }
        }
        while under_way.join_next().await.is_some() {}
    }

    /// One pull, as far as it gets now.
    async fn pull(&self, claim: PullClaim, stop: &CancellationToken) {
        let (end, meter) = (stop.child_token(), Meter::default());
        let work = Work {
            puller: self,
            claim: &claim,
            store: self.stores.of(&claim.tenant),
            meter: &meter,
            end: &end,
        };
        let mut work = std::pin::pin!(work.run());
        let mut ours = true;
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                () = tokio::time::sleep(BEAT), if ours => {
                    let (files, bytes) = meter.read();
                    match self.pulls.beat_pull(claim.ticket, CLAIM, files, bytes).await {
                        Ok(true) => {}
                        Ok(false) => {
                            ours = false;
                            end.cancel();
                        }
                        Err(error) => tracing::warn!(%error, model = %claim.ticket.model, "pull not kept"),
                    }
                }
            }
        };
        // Bodies of other files that are still on their way end too: their uploads stay at what has arrived.
        end.cancel();
        let outcome = match done {
            Ok(()) => "done",
            Err(Stop::Ended) if stop.is_cancelled() && ours => self.release(&claim, &meter).await,
            Err(Stop::Ended) => self.let_go(&claim, meter.uploads()).await,
            Err(Stop::Over(failure)) => self.fail(&claim, failure).await,
            Err(Stop::Later(why, wait)) => self.put_off(&claim, &meter, why, wait).await,
        };
        self.metrics.pulls.with_label_values(&[outcome]).inc();
        tracing::info!(model = %claim.ticket.model, tenant = %claim.tenant, source = %claim.source, outcome, "pull");
    }

    /// This process ends: whoever comes next goes on.
    async fn release(&self, claim: &PullClaim, meter: &Meter) -> &'static str {
        let (files, bytes) = meter.read();
        let kept = self.pulls.beat_pull(claim.ticket, CLAIM, files, bytes).await;
        let given = self
            .pulls
            .release_pull(claim.ticket, Duration::ZERO, claim.failures, None)
            .await;
        if let Err(error) = kept.and(given) {
            tracing::warn!(%error, model = %claim.ticket.model, "pull not given back; it is free when its claim runs out");
        }
        "released"
    }

    /// The model was deleted, or is in other hands: then those uploads have rows, and are theirs.
    async fn let_go(&self, claim: &PullClaim, uploads: Vec<UploadId>) -> &'static str {
        let store = self.stores.of(&claim.tenant);
        for id in uploads {
            if matches!(store.upload(id).await, Err(StoreError::NotFound)) {
                self.abandon(id).await;
            }
        }
        "lost"
    }

    async fn fail(&self, claim: &PullClaim, failure: Failure) -> &'static str {
        match self.pulls.fail_pull(claim, &failure).await {
            Ok(Some(Leftovers { uploads, digests })) => {
                for id in uploads {
                    self.abandon(id).await;
                }
                let unused = self.stores.unreferenced(&digests).await.unwrap_or_default();
                for digest in unused {
                    if let Err(error) = self.blobs.discard(&digest).await {
                        tracing::debug!(%digest, %error, "blob not removed; the sweep will try again");
                    }
                }
                "failed"
            }
            Ok(None) => "lost",
            Err(error) => {
                tracing::warn!(%error, model = %claim.ticket.model, "end of a pull not written; it is tried again");
                "lost"
            }
        }
    }

    /// Something that may pass: again after a wait, unless it has not passed for long.
    async fn put_off(
        &self,
        claim: &PullClaim,
        meter: &Meter,
        why: String,
        wait: Option<Duration>,
    ) -> &'static str {
        let (files, bytes) = meter.read();
        let failures = if bytes > claim.bytes_done {
            1
        } else {
            claim.failures + 1
        };
        if failures > FAILURES {
            let message =
                format!("{why} (tried {failures} times in a row; send the request again when it answers)");
            let failure = Failure {
                code: "source_unreachable".to_owned(),
                message,
            };
            return self.fail(claim, failure).await;
        }
        let usual = WAITS.0 * 2u32.pow(failures - 1);
        let wait = wait.unwrap_or(usual).clamp(Duration::from_secs(1), WAITS.1);
        let kept = self.pulls.beat_pull(claim.ticket, CLAIM, files, bytes).await;
        let given = self
            .pulls
            .release_pull(claim.ticket, wait, failures, Some(&why))
            .await;
        if let Err(error) = kept.and(given) {
            tracing::warn!(%error, model = %claim.ticket.model, "pull not put off; it is free when its claim runs out");
        }
        "retried"
    }

    async fn abandon(&self, id: UploadId) {
        if let Err(error) = self.uploads.abandon(id).await {
            tracing::debug!(%error, upload = %id, "upload not removed; the sweep will try again");
        }
    }
}
