//! A model run as it lies in its checkpoint, with nobody looking on.

use modelpress_engine::calibrate::{Here, Pace, Source, Visitor};
use modelpress_engine::network::{Cut, State, Weights};
use modelpress_engine::{Checkpoint, Error};

/// Weights as they are in the checkpoint.
pub(super) struct Plain<'a>(pub &'a Checkpoint);

impl Source for Plain<'_> {
    fn load(&self, name: &str, transposed: bool, weights: &mut Weights) -> Result<(), Error> {
        let info = self.0.tensors.iter().find(|t| t.name == name).expect("is there");
        let rows = self.0.rows(info)?;
        if transposed {
            weights.load_transposed(name, &rows, None)
        } else {
            weights.load(name, &rows, &info.shape, None)
        }
    }
}

/// Looks at nothing, waits for nobody.
pub(super) struct Through;

impl Visitor for Through {
    fn replaces(&self) -> bool {
        false
    }

    fn see(&mut self, _at: usize, _cut: &Cut, _state: &State) -> Result<(), Error> {
        Ok(())
    }

    fn settle(&mut self, _here: &mut Here<'_>) -> Result<(), Error> {
        Ok(())
    }
}

impl Pace for Through {
    fn at(&self, _part: f64) {}

    fn should_stop(&self) -> bool {
        false
    }
}
