//! Configuration: as written, then checked.
