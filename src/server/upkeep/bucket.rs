//! Looking whether a bucket is well.
//!
//! Owns: what each finding about it means and how to mend it.
//! Must not know: how it is talked to.
//! Invariant: what is written to look is deleted again, and every finding that is not fine names a fix.

use time::OffsetDateTime;

use super::doctor::{Finding, Grade, NAMED, SKEW_MILLIS};
use crate::blobs::s3::look;
use crate::domain::bucket::Bucket;

/// Examines the bucket, and whether it has what the database refers to, where that is known.
pub(super) async fn examine(
    bucket: &Bucket,
    wanted: Option<&[(String, u64)]>,
    now: OffsetDateTime,
) -> Vec<Finding> {
    let millis = (now.unix_timestamp_nanos() / 1_000_000) as i64;
    let found = match look(bucket, wanted.unwrap_or_default(), millis).await {
        Ok(found) => found,
        Err(error) => {
            let fix = "check blob_url and the AWS_… variables; the key needs s3:ListBucket on the bucket and s3:GetObject, \
                       s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload on what is in it";
            return vec![Finding::new(
                "bucket",
                Grade::Broken,
                format!("{bucket}: {error}"),
                fix,
            )];
        }
    };
    let mut findings = vec![guard(bucket, found.is_guarded), clock(found.ahead_millis)];
    findings.extend(wanted.map(|wanted| files(bucket, wanted.len(), &found.lost)));
    findings
}

fn guard(bucket: &Bucket, is_guarded: bool) -> Finding {
    if is_guarded {
        return Finding::fine("bucket", format!("{bucket} can be written, read and cleared"));
    }
    let detail = format!(
        "{bucket} can be written and read, but ignores If-Match: two servers with one upload could mix it up"
    );
    let fix = "use a service with conditional writes (Amazon S3, MinIO, Ceph, Cloudflare R2), or run one server only";
    Finding::new("bucket", Grade::Warning, detail, fix)
}

fn clock(ahead: i64) -> Finding {
    const SUBJECT: &str = "bucket clock";
    let detail = format!("it is {ahead} ms from this machine's");
    if ahead.abs() > SKEW_MILLIS {
        let fix = "keep this machine by NTP: signatures of requests count for 15 minutes";
        return Finding::new(SUBJECT, Grade::Warning, detail, fix);
    }
    Finding::fine(SUBJECT, detail)
}

fn files(bucket: &Bucket, wanted: usize, lost: &[String]) -> Finding {
    const SUBJECT: &str = "files";
    let Some(first) = lost
        .iter()
        .take(NAMED)
        .cloned()
        .reduce(|all, one| format!("{all}, {one}"))
    else {
        return Finding::fine(SUBJECT, format!("all {wanted} are there"));
    };
    let detail = format!(
        "{} of {wanted} are missing or not whole in {bucket}, first {first}",
        lost.len()
    );
    let fix = "bring back old versions of the bucket's objects (labels/ and data/), or delete the models and jobs that have them";
    Finding::new(SUBJECT, Grade::Broken, detail, fix)
}
