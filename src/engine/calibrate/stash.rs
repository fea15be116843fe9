//! What waits between two steps of a walk: tensors in memory, and beyond the budget in a scratch file.
//!
//! Owns: the budget and the file. Must not know: what the tensors are.
//! Invariant: what is taken out is what was put in, to the bit, and on the stash's device; what waits does so in the
//! host's memory.

use crate::error::{Error, Result};
use crate::network::with_values;
use candle_core::{Device, Tensor};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Values that are converted at a time on their way to and from the file.
const CHUNK: usize = 1 << 16;

#[derive(Debug)]
enum Place {
    Empty,
    Memory(Tensor),
    /// Shape of what lies in the slot's region of the file.
    File(Vec<usize>),
}

#[derive(Debug)]
struct Slot {
    place: Place,
    /// Where in the file, and how many bytes of it: kept when the slot is emptied, and used again.
    region: Option<(u64, u64)>,
}

/// A list of tensors.
#[derive(Debug)]
pub struct Stash {
    folder: PathBuf,
    device: Device,
    file: Option<File>,
    end: u64,
    budget: u64,
    held: u64,
    slots: Vec<Slot>,
}

impl Stash {
    /// An empty one that holds at most `budget` bytes in memory.
    pub fn new(folder: &Path, budget: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            device: Device::Cpu,
            file: None,
            end: 0,
            budget,
            held: 0,
            slots: Vec::new(),
        }
    }

    /// Gives tensors back on another device than the CPU.
    #[must_use]
    pub fn giving_to(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Makes room for one more tensor.
    pub fn add(&mut self) -> usize {
        self.slots.push(Slot {
            place: Place::Empty,
            region: None,
        });
        self.slots.len() - 1
    }

    /// Puts a tensor into an empty slot.
    pub fn put(&mut self, slot: usize, tensor: &Tensor) -> Result<()> {
        let bytes = 4 * tensor.elem_count() as u64;
        if self.held + bytes <= self.budget {
            self.held += bytes;
            self.slots[slot].place = Place::Memory(tensor.to_device(&Device::Cpu)?);
            return Ok(());
        }
        let at = self.region(slot, bytes);
        let file = self.file()?;
        with_values(tensor, |values| write(file, at, values))??;
        self.slots[slot].place = Place::File(tensor.dims().to_vec());
        Ok(())
    }

    /// Takes a tensor out.
    pub fn take(&mut self, slot: usize) -> Result<Tensor> {
        let empty = || Error::internal("nothing waits in this slot");
        match std::mem::replace(&mut self.slots[slot].place, Place::Empty) {
            Place::Empty => Err(empty()),
            Place::Memory(tensor) => {
                self.held -= 4 * tensor.elem_count() as u64;
                Ok(tensor.to_device(&self.device)?)
            }
            Place::File(shape) => self.load(slot, &shape),
        }
    }

    /// Reads a tensor and leaves it.
    pub fn read(&self, slot: usize) -> Result<Tensor> {
        match &self.slots[slot].place {
            Place::Empty => Err(Error::internal("nothing waits in this slot")),
            Place::Memory(tensor) => Ok(tensor.to_device(&self.device)?),
            Place::File(shape) => self.load(slot, shape),
        }
    }

    /// Bytes that went to the file at most.
    pub fn spilled(&self) -> u64 {
        self.end
    }

    fn load(&self, slot: usize, shape: &[usize]) -> Result<Tensor> {
        let (Some(file), Some((at, _))) = (&self.file, self.slots[slot].region) else {
            return Err(Error::internal("a slot without its file"));
        };
        let mut values = vec![0f32; shape.iter().product()];
        read(file, at, &mut values)?;
        Ok(Tensor::from_vec(values, shape, &self.device)?)
    }

    fn region(&mut self, slot: usize, bytes: u64) -> u64 {
        if let Some((at, room)) = self.slots[slot].region
            && room >= bytes
        {
            return at;
        }
        let at = self.end;
        self.end += bytes;
        self.slots[slot].region = Some((at, bytes));
        at
    }

    fn file(&mut self) -> Result<&File> {
        if self.file.is_none() {
            let path = self.folder.join("stash");
            let open = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path);
            let file = open.map_err(|e| Error::io("scratch space for activations", &e))?;
            // Without a name nothing is left behind, however this ends.
            std::fs::remove_file(&path).map_err(|e| Error::io("scratch space for activations", &e))?;
            self.file = Some(file);
        }
        self.file
            .as_ref()
            .ok_or_else(|| Error::internal("a scratch file that is not there"))
    }
}

fn write(file: &File, at: u64, values: &[f32]) -> Result<()> {
    let mut bytes = vec![0; 4 * CHUNK.min(values.len())];
    for (i, chunk) in values.chunks(CHUNK).enumerate() {
        let bytes = &mut bytes[..4 * chunk.len()];
        for (bytes, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(chunk) {
            *bytes = value.to_le_bytes();
        }
        file.write_all_at(bytes, at + (4 * CHUNK * i) as u64)
            .map_err(|e| Error::io("writing activations to scratch", &e))?;
    }
    Ok(())
}

fn read(file: &File, at: u64, values: &mut [f32]) -> Result<()> {
    let mut bytes = vec![0; 4 * CHUNK.min(values.len())];
    for (i, chunk) in values.chunks_mut(CHUNK).enumerate() {
        let bytes = &mut bytes[..4 * chunk.len()];
        file.read_exact_at(bytes, at + (4 * CHUNK * i) as u64)
            .map_err(|e| Error::io("reading activations from scratch", &e))?;
        for (value, bytes) in chunk.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *value = f32::from_le_bytes(*bytes);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(seed: usize, rows: usize) -> Tensor {
        let values: Vec<f32> = (0..rows * 3).map(|i| (i * 31 + seed) as f32 / 7.0).collect();
        Tensor::from_vec(values, (rows, 3), &Device::Cpu).unwrap()
    }

    fn values(tensor: &Tensor) -> Vec<Vec<f32>> {
        tensor.to_vec2().unwrap()
    }

    #[test]
    fn beyond_the_budget_tensors_come_back_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut stash = Stash::new(folder.path(), 100);
        let slots: Vec<usize> = (0..4).map(|_| stash.add()).collect();
        for slot in &slots {
            stash.put(*slot, &tensor(*slot, 5 + slot)).unwrap();
        }
        assert!(stash.spilled() > 0);
        for slot in &slots {
            assert_eq!(
                values(&stash.read(*slot).unwrap()),
                values(&tensor(*slot, 5 + slot))
            );
            assert_eq!(
                values(&stash.take(*slot).unwrap()),
                values(&tensor(*slot, 5 + slot))
            );
            assert!(stash.take(*slot).is_err());
        }
        let before = stash.spilled();
        stash.put(0, &tensor(0, 2)).unwrap();
        for slot in &slots[1..] {
            stash.put(*slot, &tensor(9, 4)).unwrap();
        }
        assert_eq!(stash.spilled(), before, "regions of the file are used again");
        assert_eq!(values(&stash.take(3).unwrap()), values(&tensor(9, 4)));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
