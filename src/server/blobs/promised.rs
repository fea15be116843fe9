//! Room on the disk that is promised to bytes on their way.
//!
//! Owns: how many bytes all intakes of this process may still write.
//! Must not know: where bytes come from.
//! Invariant: what is free, less what is promised, never falls below the reserve, however many bodies come at once. Other
//! processes on the same disk are seen by what they have written.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::layout::Layout;
use super::partial::check_space;

/// What a body of unknown length is promised at a time.
const STEP: u64 = 64 << 20;

/// What all intakes may still write.
#[derive(Debug, Clone, Default)]
pub(super) struct Promised(Arc<Mutex<u64>>);

/// What one intake may still write.
#[derive(Debug)]
pub(super) struct Promise {
    promised: Promised,
    layout: Layout,
    reserve: u64,
    left: u64,
}

impl Promised {
    /// Room for so many bytes, so that `reserve` of them stay free; what cannot be promised is refused.
    pub(super) fn promise(&self, layout: &Layout, reserve: u64, bytes: u64) -> io::Result<Promise> {
        let mut promise = Promise {
            promised: self.clone(),
            layout: layout.clone(),
            reserve,
            left: 0,
        };
        promise.grow(bytes)?;
        Ok(promise)
    }

    /// The lock is held while the disk is asked: two that ask at once are not promised the same room.
    fn change(&self, by: impl FnOnce(&mut u64) -> io::Result<()>) -> io::Result<()> {
        by(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Promise {
    /// These bytes are about to be written: there is room for them, or they are refused.
    pub(super) fn cover(&mut self, bytes: u64) -> io::Result<()> {
        match bytes.checked_sub(self.left) {
            None | Some(0) => Ok(()),
            Some(more) => self.grow(more.max(STEP)).or_else(|_full| self.grow(more)),
        }
    }

    /// These bytes are on the disk, where they are seen.
    pub(super) fn kept(&mut self, bytes: u64) {
        let bytes = bytes.min(self.left);
        self.left -= bytes;
        self.give_back(bytes);
    }

    fn grow(&mut self, more: u64) -> io::Result<()> {
        let (layout, reserve) = (&self.layout, self.reserve);
        self.promised.change(|all| {
            let with = all.saturating_add(more);
            check_space(layout, reserve.saturating_add(with))?;
            *all = with;
            Ok(())
        })?;
        self.left += more;
        Ok(())
    }

    fn give_back(&self, bytes: u64) {
        // This change cannot fail.
        let _done = self.promised.change(|all| {
            *all = all.saturating_sub(bytes);
            Ok(())
        });
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.give_back(self.left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many at once are promised what there is, together, and not a byte more.
    #[test]
    fn together_they_get_what_there_is() {
        let folder = tempfile::tempdir().expect("temp folder");
        let layout = Layout::open(folder.path()).expect("opens");
        let free = fs4::available_space(folder.path()).expect("a disk");
        // Whoever else uses this disk meanwhile takes less than a quarter of what is shared out here.
        let (promised, each) = (Promised::default(), free / 8);
        let reserve = free / 2;
        let threads: Vec<_> = (0..16)
            .map(|_| {
                let (promised, layout) = (promised.clone(), layout.clone());
                std::thread::spawn(move || promised.promise(&layout, reserve, each).ok())
            })
            .collect();
        let held: Vec<Promise> = threads
            .into_iter()
            .filter_map(|thread| thread.join().expect("no panic"))
            .collect();
        assert!(
            (3..=4).contains(&held.len()),
            "{} of 16 were promised an eighth each",
            held.len()
        );
        assert!(promised.promise(&layout, reserve, 2 * each).is_err());
        drop(held);
        let mut one = promised
            .promise(&layout, reserve, 2 * each)
            .expect("all was given back");
        one.kept(each);
        one.cover(each).expect("is left");
        assert_eq!(*promised.0.lock().expect("whole"), each);
        one.cover(each + 1).expect("a little more");
        assert!(one.cover(free).is_err());
        drop(one);
        assert_eq!(*promised.0.lock().expect("whole"), 0);
    }
}
