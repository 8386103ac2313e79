//! The worker loop and its ports.
