//! What failed in the engine: class, stable code, sentence.
//!
//! Owns: [`Error`] and its classes. Must not know: HTTP statuses (the server maps codes).
//! Invariant: every message names the thing (file, tensor, field) and, where there is one, the fix.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Who can mend it, and whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The file or the request is wrong: never retried.
    BadInput,
    /// A valid request for something this version cannot do: never retried.
    Unsupported,
    /// The numbers do not allow it (NaN, overflow of a scale): never retried.
    Numeric,
    /// Disk, memory or another resource gave out: may be retried.
    Resources,
    /// The observer asked to stop.
    Cancelled,
    /// A bug of ours.
    Internal,
}

/// An engine failure.
#[derive(Clone, Debug, thiserror::Error)]
pub struct Error {
    /// Who can mend it.
    pub class: Class,
    /// Stable `snake_case` code, part of the public API.
    pub code: &'static str,
    /// One sentence, lower-case, naming the thing.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of a given class.
    pub fn new(class: Class, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            class,
            code,
            message: message.into(),
        }
    }

    /// The input is wrong.
    pub fn bad_input(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Class::BadInput, code, message)
    }

    /// Valid, but not supported by this version.
    pub fn unsupported(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Class::Unsupported, code, message)
    }

    /// The numbers do not allow it.
    pub fn numeric(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Class::Numeric, code, message)
    }

    /// A bug of ours, said plainly instead of a panic.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Class::Internal, "internal", message)
    }

    /// The observer asked to stop.
    pub fn cancelled() -> Self {
        Self::new(Class::Cancelled, "cancelled", "stopped on request")
    }

    /// An I/O failure while doing `what`; a short read of an input file is the file's fault.
    pub fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        match error.kind() {
            K::UnexpectedEof => Self::bad_input("truncated_file", format!("{what}: the file ends too early")),
            K::StorageFull | K::QuotaExceeded => {
                Self::new(Class::Resources, "disk_full", format!("{what}: {error}"))
            }
            _ => Self::new(Class::Resources, "io", format!("{what}: {error}")),
        }
    }
}

impl From<candle_core::Error> for Error {
    /// Shapes are checked when a network is built: what fails after that is a bug of ours.
    fn from(error: candle_core::Error) -> Self {
        Self::internal(format!("tensor operation: {error}"))
    }
}
