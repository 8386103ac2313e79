//! Leap-seconds files, made for tests.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// From 1900 until 1970, in seconds.
const UNIX_EPOCH_SECONDS: i64 = 2_208_988_800;

/// A list of leap seconds, each the first moment after it in seconds since 1970 and what it does to
/// the last minute of its day, in seconds; with its hash.
pub fn list(leaps: &[(i64, i64)], expires_unix_seconds: i64) -> String {
    let (mut at, mut difference) = (1_483_228_800, 37);
    let mut entries = vec![(at, difference)];
    for (leap, seconds) in leaps {
        (at, difference) = (*leap, difference + seconds);
        entries.push((at, difference));
    }
    let (updated, expires) = (UNIX_EPOCH_SECONDS, expires_unix_seconds + UNIX_EPOCH_SECONDS);
    let mut text = format!("#$ {updated}\n#@ {expires}\n");
    let mut hashed = format!("{updated}{expires}");
    for (at, difference) in entries {
        let at = at + UNIX_EPOCH_SECONDS;
        text += &format!("{at} {difference} # a midnight\n");
        hashed += &format!("{at}{difference}");
    }
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, hashed.as_bytes());
    let words: String = hash
        .as_ref()
        .chunks(4)
        .map(|word| format!(" {:x}", u32::from_be_bytes(word.try_into().expect("four bytes"))))
        .collect();
    format!("{text}#h{words}\n")
}
