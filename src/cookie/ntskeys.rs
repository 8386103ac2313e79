//! chrony's `ntskeys` text: the ring of master keys as a file.
//!
//! ```text
//! NKS1
//! <age of the newest key in seconds, one decimal>
//! <identifier, 8 hexadecimal digits> <key, hexadecimal> <algorithm, 15 or 30>     (four lines)
//! ```
//!
//! Oldest key first; the third is current. The older form `NKS0` names one algorithm for all
//! keys, in front of the age. Both are read; `NKS1` is written.

use std::fmt::Write as _;

use zeroize::Zeroizing;

use super::ring::{KeyRing, OrderError};
use crate::aead::{Algorithm, MasterKey};
use crate::limits::RING_KEYS;

/// What an `ntskeys` text says.
#[derive(Debug)]
pub struct Ntskeys {
    /// The four keys.
    pub ring: KeyRing,
    /// Age of the newest key when the text was written, never negative.
    pub age_seconds: f64,
}

/// Why a text is no `ntskeys`. Names the line, never a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The first line is neither `NKS1` nor `NKS0`.
    #[error("line 1 is neither NKS1 nor NKS0")]
    Magic,
    /// The second line does not hold the age in seconds.
    #[error("line 2 does not hold the age of the newest key")]
    Age,
    /// A key's line cannot be read.
    #[error("line {line} is not a key: {what}")]
    Key {
        /// Counted from one.
        line: usize,
        /// The part at fault.
        what: &'static str,
    },
    /// More or fewer lines than four keys take.
    #[error("there must be exactly 4 keys, 6 lines in all")]
    Count,
    /// The identifiers do not follow each other.
    #[error(transparent)]
    Order(#[from] OrderError),
}

/// Reads the text.
pub fn parse(text: &str) -> Result<Ntskeys, ParseError> {
    let mut lines = text.lines();
    let per_key_algorithm = match lines.next() {
        Some("NKS1") => true,
        Some("NKS0") => false,
        _ => return Err(ParseError::Magic),
    };
    let second_line = lines.next().ok_or(ParseError::Age)?;
    let (common_algorithm, age_text) = if per_key_algorithm {
        (None, second_line)
    } else {
        let (algorithm, age) = second_line.split_once(' ').ok_or(ParseError::Age)?;
        (Some(master_algorithm(algorithm).ok_or(ParseError::Age)?), age)
    };
    let age_seconds: f64 = age_text.parse().map_err(|_| ParseError::Age)?;
    if !age_seconds.is_finite() {
        return Err(ParseError::Age);
    }
    let keys: Vec<MasterKey> = lines
        .enumerate()
        .map(|(index, line)| parse_key(index + 3, line, common_algorithm))
        .collect::<Result<_, _>>()?;
    let keys: [MasterKey; RING_KEYS] = keys.try_into().map_err(|_| ParseError::Count)?;
    Ok(Ntskeys { ring: KeyRing::new(keys)?, age_seconds: age_seconds.max(0.0) })
}

fn parse_key(
    line: usize,
    text: &str,
    common_algorithm: Option<Algorithm>,
) -> Result<MasterKey, ParseError> {
    let error = |what| ParseError::Key { line, what };
    let mut words = text.split(' ');
    let id = words
        .next()
        .filter(|word| (1..=8).contains(&word.len()))
        .filter(|word| word.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .and_then(|word| u32::from_str_radix(word, 16).ok())
        .ok_or(error("the identifier is not 8 hexadecimal digits"))?;
    let key_text = words.next().ok_or(error("the key is missing"))?;
    let algorithm = match common_algorithm {
        Some(algorithm) => algorithm,
        None => {
            words.next().and_then(master_algorithm).ok_or(error("the algorithm is not 15 or 30"))?
        }
    };
    if words.next().is_some() {
        return Err(error("something follows it"));
    }
    let bytes = Zeroizing::new(
        base16ct::mixed::decode_vec(key_text).map_err(|_| error("the key is not hexadecimal"))?,
    );
    MasterKey::new(id, algorithm, &bytes)
        .map_err(|_| error("the key's length is not its algorithm's"))
}

/// A master key is of algorithm 15 or 30: chrony knows no other.
fn master_algorithm(text: &str) -> Option<Algorithm> {
    match text {
        "15" => Some(Algorithm::AesSivCmac256),
        "30" => Some(Algorithm::Aes128GcmSiv),
        _ => None,
    }
}

/// Writes the text as chrony does.
pub fn emit(ring: &KeyRing, age_seconds: f64) -> Zeroizing<String> {
    // Reserved in full: a growing string would leave copies of keys behind.
    let mut text = Zeroizing::new(String::with_capacity(512));
    let mut put = |arguments: std::fmt::Arguments<'_>| {
        text.write_fmt(arguments).expect("writing to a string cannot fail");
    };
    put(format_args!("NKS1\n{age_seconds:.1}\n"));
    for key in ring.keys() {
        let bytes = Zeroizing::new(base16ct::upper::encode_string(key.expose_bytes()));
        put(format_args!("{:08X} {} {}\n", key.id(), *bytes, key.algorithm().id()));
    }
    text
}

/// Writes the older text, for chrony before 4.4. `None` if the keys are not all of one algorithm:
/// that text names one for all.
pub fn emit_old(ring: &KeyRing, age_seconds: f64) -> Option<Zeroizing<String>> {
    let algorithm = ring.current().algorithm();
    if ring.keys().iter().any(|key| key.algorithm() != algorithm) {
        return None;
    }
    let mut text = Zeroizing::new(String::with_capacity(512));
    let mut put = |arguments: std::fmt::Arguments<'_>| {
        text.write_fmt(arguments).expect("writing to a string cannot fail");
    };
    put(format_args!("NKS0\n{} {age_seconds:.1}\n", algorithm.id()));
    for key in ring.keys() {
        let bytes = Zeroizing::new(base16ct::upper::encode_string(key.expose_bytes()));
        put(format_args!("{:08X} {}\n", key.id(), *bytes));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIV_KEY: &str = "000102030405060708090A0B0C0D0E0FF0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF";
    const GCM_KEY: &str = "000102030405060708090A0B0C0D0E0F";

    fn text() -> String {
        format!(
            "NKS1\n86400.5\n1234567C {SIV_KEY} 15\n0A0B0C0D {GCM_KEY} 30\n\
             FFFFFFFE {GCM_KEY} 30\n00000003 {SIV_KEY} 15\n"
        )
    }

    #[test]
    fn c125_the_text_survives_byte_for_byte() {
        let read = parse(&text()).expect("well-formed");
        assert_eq!(read.ring.current().id(), 0xFFFF_FFFE);
        assert_eq!(*emit(&read.ring, read.age_seconds), text());
    }

    #[test]
    fn c125_the_old_form_is_read() {
        let old = format!(
            "NKS0\n15 10.0\n00000000 {SIV_KEY}\n00000001 {SIV_KEY}\n\
             00000002 {SIV_KEY}\n00000003 {SIV_KEY}\n"
        );
        let read = parse(&old).expect("well-formed");
        assert_eq!(read.age_seconds, 10.0);
        assert_eq!(emit_old(&read.ring, read.age_seconds).as_deref(), Some(&old));
        let mixed = parse(&text()).expect("well-formed").ring;
        assert!(emit_old(&mixed, 0.0).is_none());
        assert_eq!(read.ring.current().algorithm(), Algorithm::AesSivCmac256);
    }

    #[test]
    fn c125_what_chrony_refuses_is_refused() {
        let refused = |broken: String| parse(&broken).expect_err(&broken).to_string();
        assert_eq!(refused(String::new()), "line 1 is neither NKS1 nor NKS0");
        assert_eq!(refused(text().replace("NKS1", "NKS2")), "line 1 is neither NKS1 nor NKS0");
        assert!(refused(text().replace("86400.5", "NaN")).starts_with("line 2"));
        assert!(refused(text().replace("86400.5", "soon")).starts_with("line 2"));
        assert!(refused(text().replace("1234567C", "1234567G")).starts_with("line 3"));
        assert!(refused(text().replace("1234567C", "1234567CC")).starts_with("line 3"));
        assert!(refused(text().replace("1234567C", "+234567C")).starts_with("line 3"));
        assert!(refused(text().replacen(SIV_KEY, &SIV_KEY[2..], 1)).contains("length"));
        assert!(
            refused(text().replacen(SIV_KEY, &SIV_KEY.replace('F', "g"), 1))
                .contains("hexadecimal")
        );
        assert!(refused(text().replace(" 30\n", " 17\n")).contains("15 or 30"));
        assert!(refused(text().replace(" 30\n", " 30 1\n")).contains("follows"));
        assert!(refused(text().replace("00000003", "00000002")).contains("does not follow"));
        let without_last = text().lines().take(5).collect::<Vec<_>>().join("\n");
        assert!(refused(without_last).contains("exactly 4 keys"));
        let with_fifth = format!("{}00000000 {SIV_KEY} 15\n", text());
        assert!(refused(with_fifth).contains("exactly 4 keys"));
    }

    #[test]
    fn errors_never_show_a_key() {
        let broken = text().replacen(SIV_KEY, "SECRET", 1);
        assert!(!parse(&broken).expect_err("no key").to_string().contains("SECRET"));
    }
}
