//! What a child may use.
//!
//! Owns: the limits and their setting, inside the child, before it reads anything.
//! Must not know: what the child does.
//! Invariant: a limit that the system refuses is said on standard error and does not stop the work.

use std::io::Write as _;

use rustix::process::{Resource, Rlimit, setrlimit};

/// When memory runs out all the same, the system shall end the child and not the server.
const OOM_SCORE: &[u8] = b"500";

/// Sets the limits of this process. `memory_bytes` counts what it writes to: heap and stacks, not the files that it
/// maps, which the system can drop at any time.
pub(super) fn set(memory_bytes: Option<u64>) {
    limit(Resource::Core, 0);
    if let Some(bytes) = memory_bytes {
        limit(Resource::Data, bytes);
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE) {
        say(&format!("oom_score_adj: {error}"));
    }
}

fn limit(resource: Resource, most: u64) {
    let both = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    if let Err(error) = setrlimit(resource, both) {
        say(&format!("limit of {resource:?}: {error}"));
    }
}

fn say(line: &str) {
    // Nobody may be reading.
    let _closed = writeln!(std::io::stderr(), "{line}");
}
