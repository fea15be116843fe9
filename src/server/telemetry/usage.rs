//! Time, CPU and memory of this process and its children, read from /proc (zeros where there is none), and ages
//! of files.
//!
//! Owns: the reading.
//! Must not know: who asks.
//! Invariant: never fails; a figure that cannot be read is 0.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// Clock ticks of `/proc/self/stat`: `USER_HZ`, 100 on every Linux architecture in use.
const TICKS_A_SECOND: f64 = 100.0;

/// Start of a piece of work, to say later what it cost.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    begun: Instant,
    cpu_seconds: f64,
}

/// What a piece of work cost so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spent {
    /// Wall clock.
    pub elapsed: Duration,
    /// User and system time of all threads.
    pub cpu_seconds: f64,
    /// High-water mark of the process's resident memory.
    pub peak_rss_bytes: u64,
}

/// What a process used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Used {
    /// User and system time of all its threads.
    pub cpu_seconds: f64,
    /// High-water mark of its resident memory.
    pub peak_rss_bytes: u64,
}

/// What another process used so far; nothing of one that is gone.
pub fn of_process(id: u32) -> Option<Used> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    Some(Used {
        cpu_seconds: cpu_seconds(&stat),
        // Of one that ended and was not waited for there is no memory any more.
        peak_rss_bytes: kilobytes(&status, "VmHWM:")?,
    })
}

impl Meter {
    /// Starts measuring and resets the memory high-water mark where the kernel allows it.
    pub fn start() -> Self {
        // "5" resets VmHWM; refused inside some containers, and then the mark covers the whole process.
        if let Err(error) = std::fs::write("/proc/self/clear_refs", "5") {
            tracing::debug!(%error, "memory high-water mark cannot be reset");
        }
        Self {
            begun: Instant::now(),
            cpu_seconds: own_cpu_seconds(),
        }
    }

    /// What was spent since the start.
    pub fn read(&self) -> Spent {
        Spent {
            elapsed: self.begun.elapsed(),
            cpu_seconds: own_cpu_seconds() - self.cpu_seconds,
            peak_rss_bytes: status_bytes("VmHWM:"),
        }
    }
}

/// Resident memory now.
pub fn resident_bytes() -> u64 {
    status_bytes("VmRSS:")
}

/// When a file was last written, in seconds since 1970.
pub fn modified_seconds(path: &Path) -> Option<f64> {
    let modified = std::fs::metadata(path).and_then(|file| file.modified()).ok()?;
    let since = modified.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(since.as_secs_f64())
}

/// Memory this process may use: the machine's, or the container's limit when that is lower.
pub fn machine_memory_bytes() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let machine = kilobytes(&meminfo, "MemTotal:").unwrap_or(4 << 30);
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").unwrap_or_default();
    limit
        .trim()
        .parse::<u64>()
        .map_or(machine, |limit| limit.min(machine))
}

fn status_bytes(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    kilobytes(&status, key).unwrap_or(0)
}

fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    let number: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(number * 1024)
}

fn own_cpu_seconds() -> f64 {
    cpu_seconds(&std::fs::read_to_string("/proc/self/stat").unwrap_or_default())
}

fn cpu_seconds(stat: &str) -> f64 {
    // The command name may hold spaces and brackets: fields are counted after the last ')'.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name
        .split_ascii_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum::<f64>();
    ticks / TICKS_A_SECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_process() {
        let meter = Meter::start();
        let spent = meter.read();
        assert!(spent.peak_rss_bytes > 1 << 20);
        assert!(spent.cpu_seconds >= 0.0);
        assert!(machine_memory_bytes() > 1 << 28);
        let used = of_process(std::process::id()).expect("is there");
        assert!(used.peak_rss_bytes > 1 << 20);
    }
}
