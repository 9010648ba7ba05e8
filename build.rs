//! Build script.
#![allow(missing_docs)]
fn main() {}
