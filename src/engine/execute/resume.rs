//! Where a calibrated stage is, on disk, so that a killed attempt goes on behind its last finished block.
//!
//! Owns: the mark and the hidden states beside it. Must not know: what stages do.
//! Invariant: a mark names only what is completely written; one of another plan counts for nothing.

use super::Site;
use crate::calibrate::Walk;
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::network::with_values;
use crate::plan::Plan;
use crate::tensor::{DType, decode, encode_dense};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

const MARK: &str = "mark.json";
/// The folder of weights that calibrated stages made.
pub(super) const WEIGHTS: &str = "weights";
/// The folder of tensors that are encoded already.
pub(super) const PIECES: &str = "tensors";
/// What a file is called until it is whole.
const PART: &str = "part";
/// Values that are written at a time.
const PIECE: usize = 1 << 16;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Mark {
    /// Of the plan, in which recipe, model, data and version are, and of the device.
    fingerprint: String,
    stage: usize,
    /// Blocks that are finished; none are counted once the stage has ended.
    blocks: usize,
    /// States that no replaced weight has touched lie behind the others.
    untouched: bool,
    ended: bool,
}

/// Of everything that the bytes depend on: the plan, in which recipe, model, data and version are, and the device.
pub(super) fn fingerprint(plan: &Plan, site: &Site<'_>) -> Result<String> {
    let on = (plan, site.compute.device_name());
    let bytes = serde_json::to_vec(&on).map_err(|e| Error::internal(e.to_string()))?;
    Ok(sha256(&bytes))
}

fn mark(scratch: &Path) -> Option<Mark> {
    let read = std::fs::read(scratch.join(MARK)).ok()?;
    serde_json::from_slice(&read).ok()
}

/// What another machine needs of a scratch folder to go on where this one is: names relative to it, the mark last. Each
/// is whole and is never changed in place, but may be gone a moment later, when the work has gone on. Nothing is named
/// that would be made again even so: weights count from the first mark on.
pub fn kept_files(scratch: &Path) -> std::io::Result<Vec<String>> {
    let mut names = files_in(scratch, PIECES)?;
    if let Some(mark) = mark(scratch) {
        names.extend(files_in(scratch, WEIGHTS)?);
        if mark.blocks > 0 {
            names.push(states(mark.blocks));
        }
        names.push(MARK.to_owned());
    }
    Ok(names)
}

/// The whole files of a folder, in order.
fn files_in(scratch: &Path, folder: &str) -> std::io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(scratch.join(folder)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(name) = name.filter(|_| path.extension().is_none_or(|end| end != PART)) {
            names.push(format!("{folder}/{name}"));
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn states(blocks: usize) -> String {
    format!("hidden-{blocks}")
}

/// Progress of calibrated stages.
pub(super) struct Resume {
    folder: PathBuf,
    fingerprint: String,
    mark: Option<Mark>,
}

impl Resume {
    pub(super) fn open(plan: &Plan, site: &Site<'_>) -> Result<Self> {
        let fingerprint = fingerprint(plan, site)?;
        let mark = mark(site.scratch);
        Ok(Self {
            folder: site.scratch.to_owned(),
            mark: mark.filter(|m| m.fingerprint == fingerprint),
            fingerprint,
        })
    }

    pub(super) fn has_ended(&self, stage: usize) -> bool {
        self.mark
            .as_ref()
            .is_some_and(|m| m.stage > stage || m.stage == stage && m.ended)
    }

    /// Puts the hidden states back; answers the first block that is still to do.
    pub(super) fn restore(&self, stage: usize, walk: &mut Walk<'_>) -> Result<usize> {
        let Some(mark) = self.mark.as_ref().filter(|m| m.stage == stage && m.blocks > 0) else {
            return Ok(0);
        };
        let io = |e: std::io::Error| Error::io("hidden states of an earlier attempt", &e);
        let mut file = BufReader::new(File::open(self.states(mark.blocks)).map_err(io)?);
        let mut next = |walk: &Walk<'_>, batch: usize| -> Result<Tensor> {
            let shape = walk.hidden(batch)?.1.dims().to_vec();
            let mut bytes = vec![0; 4 * shape.iter().product::<usize>()];
            file.read_exact(&mut bytes).map_err(io)?;
            let mut values = vec![0.0; bytes.len() / 4];
            decode(DType::F32, &bytes, &mut values);
            Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
        };
        for batch in 0..walk.batches() {
            let hidden = next(walk, batch)?;
            walk.restore(batch, hidden)?;
        }
        for batch in (0..walk.batches()).filter(|_| mark.untouched) {
            walk.restore_untouched(batch, &next(walk, batch)?)?;
        }
        Ok(mark.blocks)
    }

    /// Notes that a block is finished.
    pub(super) fn keep(&mut self, stage: usize, block: usize, walk: &Walk<'_>) -> Result<()> {
        let io = |e: std::io::Error| Error::io("writing hidden states to scratch", &e);
        let blocks = block + 1;
        let mut file = File::create(self.states(blocks)).map_err(io)?;
        let mut bytes = Vec::new();
        let mut put = |hidden: &Tensor| -> Result<()> {
            with_values(hidden, |values| {
                values.chunks(PIECE).try_for_each(|values| {
                    bytes.clear();
                    let _dense = encode_dense(DType::F32, values, &mut bytes);
                    file.write_all(&bytes)
                })
            })?
            .map_err(io)
        };
        for batch in 0..walk.batches() {
            put(&walk.hidden(batch)?.1)?;
        }
        let mut untouched = false;
        for batch in 0..walk.batches() {
            if let Some(hidden) = walk.untouched(batch)? {
                put(&hidden)?;
                untouched = true;
            }
        }
        drop(file);
        self.write(Mark {
            fingerprint: self.fingerprint.clone(),
            stage,
            blocks,
            untouched,
            ended: false,
        })?;
        match std::fs::remove_file(self.states(blocks - 1)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io(e)),
            _ => Ok(()),
        }
    }

    /// Notes that a stage has ended.
    pub(super) fn end(&mut self, stage: usize) -> Result<()> {
        let blocks = self.mark.as_ref().map_or(0, |m| m.blocks);
        self.write(Mark {
            fingerprint: self.fingerprint.clone(),
            stage,
            blocks: 0,
            untouched: false,
            ended: true,
        })?;
        // Gone already where the stage had no block.
        let _gone = std::fs::remove_file(self.states(blocks));
        Ok(())
    }

    fn states(&self, blocks: usize) -> PathBuf {
        self.folder.join(states(blocks))
    }

    fn write(&mut self, mark: Mark) -> Result<()> {
        let io = |e: std::io::Error| Error::io("writing the mark of a stage", &e);
        let bytes = serde_json::to_vec(&mark).map_err(|e| Error::internal(e.to_string()))?;
        let part = self.folder.join(MARK).with_extension(PART);
        std::fs::write(&part, bytes).map_err(io)?;
        std::fs::rename(&part, self.folder.join(MARK)).map_err(io)?;
        self.mark = Some(mark);
        Ok(())
    }
}
