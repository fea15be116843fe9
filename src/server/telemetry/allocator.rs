//! What the C library's allocator does with memory that is freed.
//!
//! Owns: two of its settings. Must not know: who allocates.
//! Invariant: a variable of the environment (`MALLOC_TRIM_THRESHOLD_`) is not overruled.

/// Largest block that is kept; the C library takes no larger number.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BLOCK: i32 = 32 << 20;

/// Keeps freed activations for the next batch: otherwise their pages would be given back, asked for again and zeroed for
/// every layer, a twentieth of a calibrated job's time. To be called before there are other threads.
pub fn keep_freed_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if std::env::var_os("MALLOC_TRIM_THRESHOLD_").is_none() {
        #[expect(unsafe_code, reason = "settings of the C library")]
        // SAFETY: plain numbers.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT_BLOCK);
            libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        }
    }
}
