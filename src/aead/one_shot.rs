//! One message at a time, any algorithm, no instruction set assumed: for clients, key files and
//! everything rare. Also the oracle that the batched kernels are compared with.

use aes_gcm_siv::Aes128GcmSiv;
use aes_siv::aead::AeadInOut;
use aes_siv::siv::{Aes128Siv, Aes256Siv};
use aes_siv::{KeyInit, Tag};

use super::{Algorithm, TAG_BYTES};

/// Why one message could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OneShotError {
    /// The key, the nonce or the text has a length that the algorithm cannot take.
    #[error("the key, the nonce or the text has a length that the algorithm cannot take")]
    Length,
    /// The text is not authentic under this key, nonce and associated data.
    #[error("the text is not authentic")]
    Forged,
}

/// Seals `text` in place: the plaintext lies at [`Algorithm::plaintext_offset`] and 16 bytes of
/// room for the tag beside it. The components of S2V are associated data and nonce, in this order
/// (RFC 5297 section 3, RFC 8915 section 5.6). On failure `text` is zeroed.
pub fn seal_one(
    algorithm: Algorithm,
    key: &[u8],
    nonce: &[u8],
    associated_data: &[u8],
    text: &mut [u8],
) -> Result<(), OneShotError> {
    let sealed = match split(algorithm, key, nonce, text) {
        None => Err(OneShotError::Length),
        Some((tag, plain)) => tag_of(algorithm, key, nonce, associated_data, plain)
            .map(|fresh| tag.copy_from_slice(&fresh)),
    };
    sealed.inspect_err(|_| text.fill(0))
}

/// Opens `text` in place; the plaintext then lies at [`Algorithm::plaintext_offset`]. On failure
/// `text` is zeroed.
pub fn open_one(
    algorithm: Algorithm,
    key: &[u8],
    nonce: &[u8],
    associated_data: &[u8],
    text: &mut [u8],
) -> Result<(), OneShotError> {
    let opened = match split(algorithm, key, nonce, text) {
        None => Err(OneShotError::Length),
        Some((tag, sealed)) => {
            check(algorithm, key, nonce, associated_data, sealed, &Tag::from(*tag))
        }
    };
    opened.inspect_err(|_| text.fill(0))
}

/// Opens `sealed`, tag and text, into `plain`, which is 16 bytes shorter. On failure `plain` is
/// zeroed.
pub(super) fn open_into(
    algorithm: Algorithm,
    key: &[u8],
    nonce: &[u8],
    sealed: &[u8],
    plain: &mut [u8],
) -> Result<(), OneShotError> {
    if sealed.len() != plain.len() + TAG_BYTES {
        plain.fill(0);
        return Err(OneShotError::Length);
    }
    let tag = sealed[algorithm.tag_offset(sealed.len())..].first_chunk::<TAG_BYTES>();
    let tag = Tag::from(*tag.expect("the lengths were compared"));
    plain.copy_from_slice(&sealed[algorithm.plaintext_offset()..][..plain.len()]);
    let opened = check(algorithm, key, nonce, &[], plain, &tag);
    opened.inspect_err(|_| plain.fill(0))
}

/// The tag and the rest of `text`; `None` if a length cannot be.
fn split<'a>(
    algorithm: Algorithm,
    key: &[u8],
    nonce: &[u8],
    text: &'a mut [u8],
) -> Option<(&'a mut [u8; TAG_BYTES], &'a mut [u8])> {
    if key.len() != algorithm.key_bytes() || !algorithm.accepts_nonce_bytes(nonce.len()) {
        return None;
    }
    match algorithm {
        Algorithm::AesSivCmac256 | Algorithm::AesSivCmac512 => text.split_first_chunk_mut(),
        Algorithm::Aes128GcmSiv => text.split_last_chunk_mut().map(|(rest, tag)| (tag, rest)),
    }
}

/// Encrypts `plain` in place and gives its tag.
fn tag_of(
    algorithm: Algorithm,
    key: &[u8],
    nonce: &[u8],
    associated_data: &[u8],
    plain: &mut [u8],
) -> Result<Tag, OneShotError> {
    let components = [associated_data, nonce];
    match algorithm {
        Algorithm::AesSivCmac256 => {
            prepare::<Aes128Siv>(key)?.encrypt_inout_detached(components, plain.into())
        }
        Algorithm::AesSivCmac512 => {
            prepare::<Aes256Siv>(key)?.encrypt_inout_detached(components, plain.into())
        }
        Algorithm::Aes128GcmSiv => prepare::<Aes128GcmSiv>(key)?.encrypt_inout_detached(
            nonce.try_into().map_err(|_| OneShotError::Length)?,
            associated_data,
            plain.into(),
        ),
    }
    .map_err(|_| OneShotError::Length)
}

/// Decrypts `sealed` in place and compares its tag.
fn check(
    algorithm: Algorithm,
    key: &[u8],
    nonce: &[u8],
    associated_data: &[u8],
    sealed: &mut [u8],
    tag: &Tag,
) -> Result<(), OneShotError> {
    let components = [associated_data, nonce];
    match algorithm {
        Algorithm::AesSivCmac256 => {
            prepare::<Aes128Siv>(key)?.decrypt_inout_detached(components, sealed.into(), tag)
        }
        Algorithm::AesSivCmac512 => {
            prepare::<Aes256Siv>(key)?.decrypt_inout_detached(components, sealed.into(), tag)
        }
        Algorithm::Aes128GcmSiv => prepare::<Aes128GcmSiv>(key)?.decrypt_inout_detached(
            nonce.try_into().map_err(|_| OneShotError::Length)?,
            associated_data,
            sealed.into(),
            tag,
        ),
    }
    .map_err(|_| OneShotError::Forged)
}

/// A cipher of the RustCrypto crates, ready to use.
fn prepare<C: KeyInit>(key: &[u8]) -> Result<C, OneShotError> {
    C::new_from_slice(key).map_err(|_| OneShotError::Length)
}
