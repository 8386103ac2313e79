//! Section `interleaved` as it holds.

use super::raw::{ConfigError, RawInterleaved};
use crate::limits::{INTERLEAVED_ENTRIES_DEFAULT, INTERLEAVED_ENTRIES_MAX};

/// Pairs of timestamps that each worker keeps.
pub(super) fn entries(text: &str, raw: &RawInterleaved) -> Result<usize, ConfigError> {
    let Some(entries) = &raw.entries else { return Ok(INTERLEAVED_ENTRIES_DEFAULT) };
    let found = usize::try_from(*entries.get_ref()).ok();
    found.filter(|entries| *entries <= INTERLEAVED_ENTRIES_MAX).ok_or_else(|| {
        let what = format!("entries must be 0 to {INTERLEAVED_ENTRIES_MAX}");
        ConfigError::at(text, entries, what)
    })
}

#[cfg(test)]
mod tests {
    use crate::config::checked::parse;
    use crate::limits::{INTERLEAVED_ENTRIES_DEFAULT, INTERLEAVED_ENTRIES_MAX};

    #[test]
    fn c117_entries_are_bounded_and_can_be_none() {
        let entries = |text: &str| parse(text).map(|settings| settings.interleaved_entries);
        assert_eq!(entries(""), Ok(INTERLEAVED_ENTRIES_DEFAULT));
        assert_eq!(entries("[interleaved]\nentries = 0"), Ok(0));
        let most = INTERLEAVED_ENTRIES_MAX;
        assert_eq!(entries(&format!("[interleaved]\nentries = {most}")), Ok(most));
        for wrong in [-1, most as i64 + 1] {
            let error =
                entries(&format!("[interleaved]\nentries = {wrong}")).expect_err("too many");
            assert_eq!(error.to_string(), "line 2: entries must be 0 to 2097152");
        }
    }
}
