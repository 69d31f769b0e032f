//! entail
fn main() {}
