//! The connection to the object store.
//!
//! Owns: how it is reached, time limits, retries, what an error of it means.
//! Must not know: keys and what lies under them; whose cryptography TLS uses, which the process has chosen before.
//! Invariant: no call waits for ever: a connection that stalls is given up, and a request tried again a bounded time.

use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{BackoffConfig, ClientConfigKey, RetryConfig};

use crate::domain::bucket::Bucket;
use crate::domain::ports::BlobError;

/// To connect, of silence, and of a whole request, unless the variable says something else.
const LIMITS: [(ClientConfigKey, &str, &str); 3] = [
    (
        ClientConfigKey::ConnectTimeout,
        "AWS_CONNECT_TIMEOUT",
        "5 seconds",
    ),
    (ClientConfigKey::ReadTimeout, "AWS_READ_TIMEOUT", "60 seconds"),
    (ClientConfigKey::Timeout, "AWS_TIMEOUT", "10 minutes"),
];

/// Tries again for so long: what waits for an answer has a time limit of its own, or will be tried again as a whole.
const RETRY: RetryConfig = RetryConfig {
    backoff: BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(5),
        base: 2.0,
    },
    max_retries: 8,
    retry_timeout: Duration::from_mins(1),
};

/// A client of the bucket. What the address does not say comes from `AWS_…` variables.
pub fn connect(bucket: &Bucket) -> Result<AmazonS3, BlobError> {
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&bucket.name)
        .with_retry(RETRY);
    for (key, variable, limit) in LIMITS {
        if std::env::var_os(variable).is_none() {
            builder = builder.with_config(AmazonS3ConfigKey::Client(key), limit);
        }
    }
    let said = [
        // The one that counts more where a variable names another.
        (AmazonS3ConfigKey::S3Endpoint, bucket.endpoint.clone()),
        (AmazonS3ConfigKey::Region, bucket.region.clone()),
        (AmazonS3ConfigKey::AccessKeyId, bucket.access_key_id.clone()),
        (
            AmazonS3ConfigKey::SecretAccessKey,
            bucket.secret_access_key.clone(),
        ),
        (
            AmazonS3ConfigKey::VirtualHostedStyleRequest,
            bucket.virtual_host.map(|yes| yes.to_string()),
        ),
        (
            AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp),
            bucket.allow_http.map(|yes| yes.to_string()),
        ),
    ];
    for (key, value) in said {
        if let Some(value) = value {
            builder = builder.with_config(key, value);
        }
    }
    builder.build().map_err(failed)
}

/// What an error of the object store is to us.
pub(super) fn failed(error: object_store::Error) -> BlobError {
    use object_store::Error as E;
    match error {
        // Answered with the same status as a missing object.
        E::NotFound { source, .. } if source.to_string().contains("NoSuchBucket") => {
            BlobError::Unavailable("the bucket does not exist".to_owned())
        }
        E::NotFound { .. } => BlobError::NotFound,
        E::Precondition { .. } | E::AlreadyExists { .. } => BlobError::Superseded,
        other => BlobError::Unavailable(without_trail(&other.to_string())),
    }
}

/// Errors repeat themselves over several lines; the first one says it.
fn without_trail(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
