//! Stage 1, admit: whoever is not to be answered is not read either.

use super::batch::{Datagram, Verdict, Verdicts};
use super::outcome::Outcome;
use crate::networks::NetworkSet;

/// Drops what comes from other addresses than those that have access.
pub(super) fn admit(batch: &[Datagram<'_>], access: &NetworkSet, verdicts: &mut Verdicts) {
    for (datagram, verdict) in batch.iter().zip(verdicts) {
        if !access.contains(&datagram.source) {
            *verdict = Verdict::drop(Outcome::DroppedDenied);
        }
    }
}
