//! tucker
