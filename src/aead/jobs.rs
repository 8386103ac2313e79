//! What the engine's stages ask for: four kinds of jobs, one job a request. And the client's sides
//! of two of them, for whoever asks a server by the batch.
//!
//! No job panics because of a length: a job with lengths that its algorithm cannot have fails. A
//! job that opens then has `passed == false`; a job that seals leaves zeros, so that a reply can
//! never carry plaintext or what an earlier packet left in the buffer.

use super::{Algorithm, MasterKey};

/// Open a cookie of ours: AEAD under a master key, associated data empty.
pub struct CookieOpen<'a> {
    /// The master key that the cookie names.
    pub key: &'a MasterKey,
    /// The cookie's nonce.
    pub nonce: &'a [u8],
    /// Tag and ciphertext, as they lie in the cookie.
    pub sealed: &'a [u8],
    /// Takes the C2S and S2C keys: 16 bytes shorter than `sealed`. Zeros unless the job passed.
    pub plain: &'a mut [u8],
    /// The answer: `sealed` is authentic.
    pub passed: bool,
}

/// Verify a request, and decrypt the extension fields it encloses (RFC 8915 section 5.6).
pub struct RequestVerify<'a> {
    /// The client's algorithm.
    pub algorithm: Algorithm,
    /// The C2S key.
    pub key: &'a [u8],
    /// The nonce of the Authenticator field.
    pub nonce: &'a [u8],
    /// The packet from its first byte up to the Authenticator field.
    pub associated_data: &'a [u8],
    /// The ciphertext of the Authenticator field, tag included. Decrypted in place: the plaintext
    /// lies at [`Algorithm::plaintext_offset`]. Zeros in its place unless the job passed.
    pub sealed: &'a mut [u8],
    /// The answer: the request is authentic.
    pub passed: bool,
}

/// Make a cookie: AEAD under a master key, associated data empty.
pub struct CookieMake<'a> {
    /// The master key that the cookie will name.
    pub key: &'a MasterKey,
    /// A fresh nonce, from [`super::NonceGenerator`].
    pub nonce: &'a [u8],
    /// The C2S and S2C keys.
    pub plain: &'a [u8],
    /// Takes tag and ciphertext: 16 bytes longer than `plain`.
    pub sealed: &'a mut [u8],
}

/// Seal a reply's enclosed extension fields (RFC 8915 section 5.6).
pub struct ReplySeal<'a> {
    /// The client's algorithm.
    pub algorithm: Algorithm,
    /// The S2C key.
    pub key: &'a [u8],
    /// A fresh nonce, from [`super::NonceGenerator`].
    pub nonce: &'a [u8],
    /// The reply from its first byte up to the Authenticator field.
    pub associated_data: &'a [u8],
    /// The plaintext at [`Algorithm::plaintext_offset`], and 16 bytes of room for the tag. Sealed
    /// in place.
    pub text: &'a mut [u8],
}

/// Seal a request that encloses no extension fields (RFC 8915 section 5.6): a tag over nothing. The
/// client's side of [`RequestVerify`].
pub struct RequestSeal<'a> {
    /// The client's algorithm.
    pub algorithm: Algorithm,
    /// The C2S key.
    pub key: &'a [u8],
    /// A fresh nonce, from [`super::NonceGenerator`].
    pub nonce: &'a [u8],
    /// The packet from its first byte up to the Authenticator field.
    pub associated_data: &'a [u8],
    /// Takes the tag: 16 bytes.
    pub tag: &'a mut [u8],
}

/// Open a reply's enclosed extension fields (RFC 8915 section 5.7). The client's side of
/// [`ReplySeal`].
pub struct ReplyOpen<'a> {
    /// The client's algorithm.
    pub algorithm: Algorithm,
    /// The S2C key.
    pub key: &'a [u8],
    /// The nonce of the Authenticator field.
    pub nonce: &'a [u8],
    /// The packet from its first byte up to the Authenticator field.
    pub associated_data: &'a [u8],
    /// The ciphertext of the Authenticator field, tag included. Decrypted in place: the plaintext
    /// lies at [`Algorithm::plaintext_offset`]. Zeros in its place unless the job passed.
    pub sealed: &'a mut [u8],
    /// The answer: the reply is authentic.
    pub passed: bool,
}
