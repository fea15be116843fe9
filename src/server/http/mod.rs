//! The HTTP face.

pub mod conditional;
pub mod input;
pub mod limits;
pub mod listen;
pub mod observe;
pub mod page;
pub mod problem;
pub mod tar;
