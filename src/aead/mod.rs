//! Authenticated encryption of a whole batch.
