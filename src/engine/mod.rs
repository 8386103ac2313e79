//! The packet core: a batch of requests becomes a batch of replies, without I/O.
