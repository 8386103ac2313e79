//! The NTS keys of an association, derived from its TLS connection.

use std::fmt;

use rustls::ConnectionCommon;
use zeroize::Zeroizing;

use crate::aead::Algorithm;
use crate::limits::KE_KEY_BYTES_MAX;
use crate::wire::ke::NTPV4;

/// C2S and S2C, of the same length; wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKeys {
    c2s: Zeroizing<[u8; KE_KEY_BYTES_MAX]>,
    s2c: Zeroizing<[u8; KE_KEY_BYTES_MAX]>,
    key_bytes: usize,
}

impl SessionKeys {
    /// Derives the keys for `algorithm` from a finished handshake (RFC 8915 section 5.1).
    ///
    /// `exporter_id` is the algorithm's number in the exporter context: the algorithm's own, but
    /// for the clients of old that put 15 for AEAD 30.
    ///
    /// # Errors
    /// rustls' own, when the handshake is not complete.
    pub fn export<Data>(
        connection: &ConnectionCommon<Data>,
        algorithm: Algorithm,
        exporter_id: u16,
    ) -> Result<Self, rustls::Error> {
        let key_bytes = algorithm.key_bytes();
        let mut keys = Self {
            c2s: Zeroizing::new([0; KE_KEY_BYTES_MAX]),
            s2c: Zeroizing::new([0; KE_KEY_BYTES_MAX]),
            key_bytes,
        };
        for (key, direction) in [(&mut keys.c2s, CONTEXT_C2S), (&mut keys.s2c, CONTEXT_S2C)] {
            let context = exporter_context(exporter_id, direction);
            connection.export_keying_material(&mut key[..key_bytes], LABEL, Some(&context))?;
        }
        Ok(keys)
    }

    /// The key of requests.
    pub fn c2s(&self) -> &[u8] {
        &self.c2s[..self.key_bytes]
    }

    /// The key of responses.
    pub fn s2c(&self) -> &[u8] {
        &self.s2c[..self.key_bytes]
    }
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SessionKeys({} bytes each)", self.key_bytes)
    }
}

/// Next protocol (2), AEAD (2), direction (1).
fn exporter_context(exporter_id: u16, direction: u8) -> [u8; 5] {
    let [protocol_high, protocol_low] = NTPV4.to_be_bytes();
    let [aead_high, aead_low] = exporter_id.to_be_bytes();
    [protocol_high, protocol_low, aead_high, aead_low, direction]
}

const LABEL: &[u8] = b"EXPORTER-network-time-security";
const CONTEXT_C2S: u8 = 0;
const CONTEXT_S2C: u8 = 1;
