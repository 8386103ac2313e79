//! What an operator can change while an engine runs.

use std::sync::Arc;

use super::rate::RateLimits;
use crate::networks::NetworkSet;

/// Who is answered, and how often.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Everybody else is met with silence.
    pub access: Arc<NetworkSet>,
    /// What one client may have.
    pub rates: RateLimits,
}

impl Default for Terms {
    /// Everybody is answered, always.
    fn default() -> Self {
        Self { access: Arc::new(NetworkSet::everybody()), rates: RateLimits::off() }
    }
}
