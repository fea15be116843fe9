//! Where a network's operations are carried out, and in which form.
//!
//! Owns: the names of devices, and which form of operations each gets. Must not know: what is computed.
//! Invariant: a device that cannot be used is refused when it is opened, before any work.

use super::{Batch, Ops, Run, Weights};
use crate::error::{Error, Result};
use crate::kernels::linalg::Precision;
use candle_core::Device;
use std::fmt;
use std::str::FromStr;

/// A device as users name it: `cpu`, `cuda`, `cuda:1`, `metal`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceName {
    /// The CPU.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by its number.
    Cuda(usize),
    /// A GPU of Apple's, by its number.
    Metal(usize),
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let (kind, number) = name.split_once(':').unwrap_or((name, "0"));
        match (kind, number.parse()) {
            ("cpu", _) if name == "cpu" => Ok(Self::Cpu),
            ("cuda", Ok(number)) => Ok(Self::Cuda(number)),
            ("metal", Ok(number)) => Ok(Self::Metal(number)),
            _ => Err(format!(
                "{name:?} is no device: give cpu, cuda, cuda:N, metal or metal:N"
            )),
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Metal(number) => write!(f, "metal:{number}"),
        }
    }
}

/// A device that was opened, and the form of operations that runs on it.
#[derive(Clone, Debug)]
pub struct Compute {
    name: DeviceName,
    device: Device,
    ops: Ops,
}

impl Compute {
    /// Our kernels on the CPU.
    pub fn cpu() -> Self {
        Self {
            name: DeviceName::Cpu,
            device: Device::Cpu,
            ops: Ops::Fused,
        }
    }

    /// Candle's own operations, as GPUs carry them out, in the CPU's memory: to compare with.
    pub fn composed() -> Self {
        Self {
            name: DeviceName::Cpu,
            device: Device::Cpu,
            ops: Ops::Composed,
        }
    }

    /// Opens a device; refuses one that this binary was built without or this machine does not have.
    pub fn open(name: DeviceName) -> Result<Self> {
        let (feature, built_in, opened) = match name {
            DeviceName::Cpu => return Ok(Self::cpu()),
            DeviceName::Cuda(n) => (
                "cuda",
                candle_core::utils::cuda_is_available(),
                Device::new_cuda(n),
            ),
            DeviceName::Metal(n) => (
                "metal",
                candle_core::utils::metal_is_available(),
                Device::new_metal(n),
            ),
        };
        if !built_in {
            return Err(Error::unsupported(
                "device_not_built_in",
                format!(
                    "device {name}: this modelpress was built without it; build with --features {feature}"
                ),
            ));
        }
        let device = opened.map_err(|e| {
            Error::unsupported(
                "device_unavailable",
                format!("device {name} cannot be opened on this machine: {e}"),
            )
        })?;
        Ok(Self {
            name,
            device,
            ops: Ops::Composed,
        })
    }

    /// For what calibration sees and learns: the CPU's products are as exact as that.
    #[must_use]
    pub fn calibrating(&self, precision: Precision) -> Self {
        let ops = match (self.ops, precision) {
            (Ops::Composed, _) => Ops::Composed,
            (_, Precision::Full) => Ops::Fused,
            (_, Precision::Split) => Ops::Split,
            (_, Precision::Bf16) => Ops::Bf16,
        };
        Self { ops, ..self.clone() }
    }

    /// The form.
    pub fn ops(&self) -> Ops {
        self.ops
    }

    /// Its name and number.
    pub fn device_name(&self) -> String {
        self.name.to_string()
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A run of a batch in which tokens visit only their own experts.
    pub fn run<'a>(&self, batch: &'a Batch, weights: &'a Weights) -> Run<'a> {
        Run {
            batch,
            weights,
            ops: self.ops,
            all_experts: false,
        }
    }

    /// Room for weights in the device's memory.
    pub fn weights(&self) -> Weights {
        Weights::on(self.device.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_users_name_them() {
        for (name, device) in [
            ("cpu", DeviceName::Cpu),
            ("cuda", DeviceName::Cuda(0)),
            ("cuda:1", DeviceName::Cuda(1)),
            ("metal", DeviceName::Metal(0)),
        ] {
            assert_eq!(name.parse(), Ok(device));
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        for name in ["", "gpu", "cuda:", "cuda:-1", "cpu:0", "tpu:0"] {
            assert!(name.parse::<DeviceName>().is_err(), "{name}");
        }
    }

    #[cfg(not(any(feature = "cuda", feature = "metal")))]
    #[test]
    fn a_device_that_is_not_built_in_is_refused_with_what_would_build_it() {
        let error = Compute::open(DeviceName::Cuda(0)).unwrap_err();
        assert_eq!(error.code, "device_not_built_in");
        assert!(error.message.contains("--features cuda"), "{error}");
    }
}
