//! An allocator that ends the program when one input asks for too much at once.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Inputs are small (at most 64 KiB); nothing in them is worth a block of this size.
const LARGEST: usize = 64 << 20;

static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

/// The system's allocator, with a limit on one block while an input is looked at.
struct Bounded;

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

// SAFETY: everything is the system allocator's.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size);
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }
}

fn check(size: usize) {
    if size > LIMIT.load(Relaxed) {
        // What follows may allocate.
        LIMIT.store(usize::MAX, Relaxed);
        panic!("one allocation of {size} bytes for a small input");
    }
}

/// Runs with the limit.
pub(crate) fn bounded(run: impl FnOnce()) {
    LIMIT.store(LARGEST, Relaxed);
    run();
    LIMIT.store(usize::MAX, Relaxed);
}
