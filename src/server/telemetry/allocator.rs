//! Where memory comes from, and what is done with what is freed.
//!
//! Owns: which allocator has which blocks, and two settings of the C library's.
//! Must not know: who allocates.
//! Invariant: a block goes back to where its size says it came from; a variable of the environment
//! (`MALLOC_TRIM_THRESHOLD_`) is not overruled.

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

/// The program's allocator. Small blocks are jemalloc's: the C library keeps a thread's own store of them only up to
/// 1 KiB, and a request's futures are larger, which cost a quarter of all that the server could answer. Large blocks, the
/// engine's, stay the C library's, set as [`keep_freed_blocks`] says: plans of memory reckon with that.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[derive(Debug, Clone, Copy)]
pub struct BySize;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod by_size {
    use std::alloc::{GlobalAlloc, Layout, System};

    use tikv_jemallocator::Jemalloc;

    use super::BySize;

    /// Largest small block, bytes.
    const SMALL: usize = 32 << 10;

    fn is_small(layout: Layout) -> bool {
        layout.size() <= SMALL
    }

    #[expect(unsafe_code, reason = "an allocator is unsafe to be")]
    // SAFETY: each block is handed out, resized and taken back by one of two sound allocators. Which one is told by the
    // size in its layout, which is the same whenever a caller names the block; a block that grows or shrinks over the
    // bound is moved.
    unsafe impl GlobalAlloc for BySize {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller's promises are passed on.
            unsafe {
                if is_small(layout) {
                    Jemalloc.alloc(layout)
                } else {
                    System.alloc(layout)
                }
            }
        }

        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            // SAFETY: as above.
            unsafe {
                if is_small(layout) {
                    Jemalloc.alloc_zeroed(layout)
                } else {
                    System.alloc_zeroed(layout)
                }
            }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: as above; `layout` is the one that the block was allocated with.
            unsafe {
                if is_small(layout) {
                    Jemalloc.dealloc(block, layout);
                } else {
                    System.dealloc(block, layout);
                }
            }
        }

        unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            // SAFETY: as above; the caller promises that the new size makes a valid layout. Both blocks are valid for
            // the smaller of both sizes, and no two blocks overlap.
            unsafe {
                let wanted = Layout::from_size_align_unchecked(size, layout.align());
                match (is_small(layout), is_small(wanted)) {
                    (true, true) => Jemalloc.realloc(block, layout, size),
                    (false, false) => System.realloc(block, layout, size),
                    _ => {
                        let moved = self.alloc(wanted);
                        if !moved.is_null() {
                            std::ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                            self.dealloc(block, layout);
                        }
                        moved
                    }
                }
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// Blocks on either side of the bound, and over it in both directions, keep what is in them.
        #[test]
        fn a_block_that_moves_between_allocators_keeps_its_bytes() {
            let sizes = [1, SMALL - 1, SMALL, SMALL + 1, 4 * SMALL, SMALL + 1, SMALL, 100];
            for align in [1, 64, 4096] {
                let layout = |size| Layout::from_size_align(size, align).unwrap();
                // SAFETY: each block is used within its size and freed once, with its layout.
                #[expect(unsafe_code, reason = "calls an allocator")]
                unsafe {
                    let mut block = BySize.alloc_zeroed(layout(sizes[0]));
                    assert_eq!(*block, 0);
                    block.write(7);
                    for pair in sizes.windows(2) {
                        block = BySize.realloc(block, layout(pair[0]), pair[1]);
                        assert!(!block.is_null() && (block as usize).is_multiple_of(align));
                        let kept = pair[0].min(pair[1]);
                        assert_eq!((*block, *block.add(kept - 1)), (7, 7));
                        block.write_bytes(7, pair[1]);
                    }
                    BySize.dealloc(block, layout(sizes[sizes.len() - 1]));
                }
            }
        }
    }
}
