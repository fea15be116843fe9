//! modelpress
fn main() {}
