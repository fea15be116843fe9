//! separable
