//! timeball-load: the load generator.

fn main() {}
