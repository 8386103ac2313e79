//! Where the cookies of an answer come from.

use arrayvec::ArrayVec;
use thiserror::Error;

use crate::aead::Algorithm;
use crate::limits::{COOKIE_BYTES_MAX, COOKIE_BYTES_MULTIPLE, COOKIES_PER_REPLY};

/// One cookie, 4 to 256 bytes and a multiple of 4.
pub type Cookie = ArrayVec<u8, COOKIE_BYTES_MAX>;

/// The cookies of one answer.
pub type CookieVec = ArrayVec<Cookie, COOKIES_PER_REPLY>;

/// Makes cookies; implemented over the ring of master keys.
pub trait CookieSource {
    /// Fills `out`, which is empty, with cookies for a client that uses `algorithm` with the keys
    /// `c2s` and `s2c`, each of `algorithm.key_bytes()` bytes. All eight, all different, all of
    /// the same length (RFC 8915 section 4.1.6).
    ///
    /// # Errors
    /// [`CookieError`] when there is no key to make them with; the client is answered with Error 2.
    fn cookies(
        &mut self,
        algorithm: Algorithm,
        c2s: &[u8],
        s2c: &[u8],
        out: &mut CookieVec,
    ) -> Result<(), CookieError>;
}

/// Why there are no cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CookieError {
    /// There is no master key.
    #[error("there is no master key to make cookies with")]
    NoKey,
    /// The cookies that came out are not fit for a client.
    #[error("the cookies made are none, doubled, or of a length that clients refuse")]
    Unfit,
}

/// Holds what a source made to what clients need: chrony's takes lengths up to 256 that are
/// multiples of 4, NTPsec's wants them all equal, and a doubled cookie would link two requests.
///
/// # Errors
/// [`CookieError::Unfit`].
pub fn check(cookies: &CookieVec) -> Result<(), CookieError> {
    let bytes = cookies.first().ok_or(CookieError::Unfit)?.len();
    let fits = bytes > 0 && bytes.is_multiple_of(COOKIE_BYTES_MULTIPLE);
    let same = cookies.iter().all(|cookie| cookie.len() == bytes);
    let doubled = (1..cookies.len()).any(|index| cookies[index..].contains(&cookies[index - 1]));
    if fits && same && !doubled { Ok(()) } else { Err(CookieError::Unfit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c031_cookies_are_distinct_of_equal_length_and_a_multiple_of_4() {
        let cookie = |byte, bytes| Cookie::from_iter(std::iter::repeat_n(byte, bytes));
        let check = |list: &[Cookie]| super::check(&list.iter().cloned().collect());
        assert_eq!(check(&[cookie(1, 100), cookie(2, 100)]), Ok(()));
        assert_eq!(check(&[cookie(1, 256)]), Ok(()));
        for bad in [
            &[][..],
            &[cookie(1, 0)],
            &[cookie(1, 98)],
            &[cookie(1, 100), cookie(2, 96)],
            &[cookie(1, 100), cookie(2, 100), cookie(1, 100)],
        ] {
            assert_eq!(check(bad), Err(CookieError::Unfit), "{bad:?}");
        }
    }
}
