//! Where the cookies of an answer come from.

use arrayvec::ArrayVec;
use thiserror::Error;

use crate::aead::{Aead, Algorithm, MasterKey, NonceGenerator};
use crate::cookie::format::{self, ClientKeys, cookie_bytes};
use crate::limits::{COOKIE_BYTES_MAX, COOKIE_BYTES_MULTIPLE, COOKIES_PER_REPLY, NONCE_BYTES_MAX};

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

/// Seals the cookies of one answer as a batch.
pub struct CookieMaker {
    aead: Aead,
    nonces: NonceGenerator,
}

impl CookieMaker {
    /// With cryptography that has proven itself.
    pub fn new(aead: Aead, nonces: NonceGenerator) -> Self {
        Self { aead, nonces }
    }

    /// What [`CookieSource::cookies`] does, under `master`.
    ///
    /// # Errors
    /// [`CookieError::Unfit`] when the keys are not of the algorithm's length.
    pub fn make(
        &mut self,
        master: &MasterKey,
        algorithm: Algorithm,
        c2s: &[u8],
        s2c: &[u8],
        out: &mut CookieVec,
    ) -> Result<(), CookieError> {
        let keys = ClientKeys::new(algorithm, c2s, s2c).ok_or(CookieError::Unfit)?;
        let bytes = cookie_bytes(master.algorithm(), algorithm);
        out.extend(
            (0..COOKIES_PER_REPLY).map(|_| Cookie::from_iter(std::iter::repeat_n(0, bytes))),
        );
        let mut nonce = [0; NONCE_BYTES_MAX];
        let nonce = &mut nonce[..master.algorithm().nonce_bytes()];
        let mut jobs: ArrayVec<_, COOKIES_PER_REPLY> = out
            .iter_mut()
            .map(|cookie| {
                self.nonces.fill(nonce);
                format::prepare(cookie, master, nonce, &keys)
            })
            .collect();
        self.aead.make_cookies(&mut jobs);
        Ok(())
    }
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
