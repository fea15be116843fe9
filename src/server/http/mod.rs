//! The HTTP face.

pub mod conditional;
pub mod page;
pub mod problem;
