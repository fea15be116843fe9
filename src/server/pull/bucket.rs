//! What lies under a prefix in a bucket of an S3-compatible object store.
//!
//! Owns: how objects become files, what an error of the store means for a pull.
//! Must not know: which files are wanted, where bytes go.
//! Invariant: only buckets and prefixes are asked that the operator named; who asks, and where, is theirs to say too.

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectStore as _, ObjectStoreExt as _};
use std::io;

use super::Stop;
use super::choose::Listed;
use crate::blobs::s3::connect;
use crate::domain::bucket::Bucket as Address;

/// Objects that are looked at before a listing is given up.
const MOST_OBJECTS: usize = 100_000;

/// A prefix in a bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    client: AmazonS3,
    prefix: Path,
    /// For people.
    place: String,
}

/// A body on its way, and how large its object is.
pub(super) struct Part {
    pub(super) body: BoxStream<'static, io::Result<Bytes>>,
    pub(super) bytes: u64,
}

impl Bucket {
    pub(super) fn at(address: &Address, prefix: &str) -> Result<Self, Stop> {
        let place = format!("s3://{}/{prefix}", address.name);
        let broken = |why: String| Stop::over("source_broken", format!("{place}: {why}"));
        Ok(Self {
            client: connect(address).map_err(|error| broken(error.to_string()))?,
            prefix: Path::parse(prefix).map_err(|error| broken(error.to_string()))?,
            place,
        })
    }

    /// The objects under the prefix, or the one that it names.
    pub(super) async fn list(&self) -> Result<Vec<Listed>, Stop> {
        let under = Some(&self.prefix).filter(|prefix| !prefix.as_ref().is_empty());
        let mut objects = self.client.list(under);
        let mut files = Vec::new();
        while let Some(object) = objects.try_next().await.map_err(|error| self.failed(&error))? {
            let key = object.location.as_ref();
            let below = key.strip_prefix(self.prefix.as_ref()).unwrap_or(key);
            let name = below.trim_start_matches('/');
            if files.len() == MOST_OBJECTS {
                let message = format!(
                    "{} has more than {MOST_OBJECTS} objects; name a narrower prefix",
                    self.place
                );
                return Err(Stop::over("too_many_files", message));
            }
            files.push(Listed {
                name: name.to_owned(),
                origin: key.to_owned(),
                bytes: object.size,
                sha256: None,
            });
        }
        if files.is_empty() {
            files.push(self.named().await?);
        }
        Ok(files)
    }

    /// The object that is named itself: a listing has what lies below a name only.
    async fn named(&self) -> Result<Listed, Stop> {
        let nothing = || Stop::over("source_not_found", format!("{} holds no objects", self.place));
        let name = self.prefix.filename().ok_or_else(nothing)?;
        match self.client.head(&self.prefix).await {
            Ok(object) => Ok(Listed {
                name: name.to_owned(),
                origin: self.prefix.as_ref().to_owned(),
                bytes: object.size,
                sha256: None,
            }),
            Err(Error::NotFound { .. }) => Err(nothing()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// An object from a byte on.
    pub(super) async fn open(&self, key: &str, from: u64) -> Result<Part, Stop> {
        let key = Path::parse(key).map_err(|error| Stop::over("source_broken", error.to_string()))?;
        let options = GetOptions {
            range: (from > 0).then_some(GetRange::Offset(from)),
            ..GetOptions::default()
        };
        let found = self
            .client
            .get_opts(&key, options)
            .await
            .map_err(|error| self.failed(&error))?;
        Ok(Part {
            bytes: found.meta.size,
            body: found.into_stream().map_err(io::Error::other).boxed(),
        })
    }

    fn failed(&self, error: &Error) -> Stop {
        // Errors repeat themselves over several lines; the first one says it.
        let text = error.to_string();
        let message = format!("{}: {}", self.place, text.lines().next().unwrap_or_default());
        match error {
            Error::NotFound { .. } => Stop::over("source_not_found", message),
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                Stop::over("source_forbidden", message)
            }
            _ => Stop::later(message),
        }
    }
}
