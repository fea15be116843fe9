//! Identifiers: a prefix that says what it is, and a `UUIDv7` whose order is the order of creation.
//!
//! Owns: their text form.
//! Must not know: what they identify beyond the prefix.
//! Invariant: `parse(to_string(x)) == x`, and nothing else parses; text order is creation order.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// The text is no identifier of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier of this kind")]
pub struct IdError;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// What its text starts with.
            pub const PREFIX: &'static str = $prefix;

            /// From a `UUIDv7` made elsewhere.
            pub fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0.simple())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let hex = text.strip_prefix($prefix).filter(|hex| hex.len() == 32).ok_or(IdError)?;
                let uuid = Uuid::try_parse(hex).map_err(|_e| IdError)?;
                if uuid.simple().to_string() == hex { Ok(Self(uuid)) } else { Err(IdError) }
            }
        }
    )*};
}

ids! {
    /// A published artifact.
    ArtifactId "art_";
    /// A dataset.
    DatasetId "ds_";
    /// A message to a webhook.
    DeliveryId "msg_";
    /// An entry of the audit log.
    EntryId "aud_";
    /// A job.
    JobId "job_";
    /// An API key.
    KeyId "key_";
    /// A model.
    ModelId "mdl_";
    /// A search.
    SearchId "srch_";
    /// An upload.
    UploadId "upl_";
    /// A webhook.
    WebhookId "whk_";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_text_parses() {
        let id = JobId::from_uuid(Uuid::now_v7());
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().parse::<ModelId>(), Err(IdError));
        for wrong in [
            "",
            "job_",
            "job_x",
            &id.to_string().to_uppercase(),
            &format!("{id}0"),
        ] {
            assert_eq!(wrong.parse::<JobId>(), Err(IdError), "{wrong}");
        }
    }
}
