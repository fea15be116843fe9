//! The nouns of the service and the traits that other rooms implement for it.
//!
//! Owns: identifiers, models, datasets, uploads, jobs, artifacts, tenants, keys, the ports [`Store`], [`Blobs`], [`Clock`].
//! Must not know: SQL, HTTP, files; the engine's plans, summaries and reports are opaque JSON here.
//! Invariant: the same words for the same things in the API, the database, the metrics and the log.

pub mod artifact;
pub mod audit;
pub mod bucket;
pub mod dataset;
pub mod document;
pub mod ids;
pub mod job;
pub mod key;
pub mod lease;
pub mod model;
pub mod outbox;
pub mod overview;
pub mod ports;
pub mod pull;
pub mod queue;
pub mod sealed;
pub mod search;
pub mod tenant;
pub mod upload;
pub mod webhook;

pub use artifact::{Artifact, ArtifactFilter};
pub use audit::Entry;
pub use dataset::Dataset;
pub use document::Document;
pub use ids::{
    ArtifactId, DatasetId, DeliveryId, EntryId, IdError, JobId, KeyId, ModelId, SearchId, UploadId, WebhookId,
};
pub use job::{Event, Failure, Job, JobState, NewJob, Progress};
pub use key::{ApiKey, Scope};
pub use model::{FileRef, Model, ModelState, TensorRow};
pub use outbox::{Hooks, Outbox};
pub use overview::{NodeLoad, Overview};
pub use ports::{Blobs, Clock, Store, StoreError, Stores};
pub use pull::{Inspector, Pull, Pulls};
pub use queue::Queue;
pub use search::Search;
pub use tenant::Tenant;
pub use upload::Upload;
pub use webhook::{Delivery, Webhook};
