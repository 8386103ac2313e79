//! Wire formats: parse and emit, both directions, no panic on any input.

pub mod ke;
