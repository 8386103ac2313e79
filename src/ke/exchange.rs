//! The protocol of the client role without its sockets: what to ask, and whether the answer is one
//! to it. Shared by the client and the load generator.

use arrayvec::ArrayVec;
use thiserror::Error;

use super::cookies::{Cookie, CookieVec};
use crate::aead::Algorithm;
use crate::limits::KE_ALGORITHMS;
use crate::wire::ke::{
    Agreement, BodyTooLong, ErrorCode, Ids, NTPV4, Request, Response, ResponseError,
};

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Algorithms, best first; not empty.
    pub algorithms: ArrayVec<Algorithm, KE_ALGORITHMS>,
    /// Say with record 1024 that we put 30 into the exporter context of AEAD 30.
    pub compliant_128gcm: bool,
    /// A server to wish for.
    pub server: Option<String>,
    /// A port to wish for.
    pub port: Option<u16>,
}

impl Default for Offer {
    /// AEAD 15 and nothing else: what every server has.
    fn default() -> Self {
        Self {
            algorithms: [Algorithm::AesSivCmac256].into_iter().collect(),
            compliant_128gcm: true,
            server: None,
            port: None,
        }
    }
}

/// What a server agreed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The AEAD; one of those offered.
    pub algorithm: Algorithm,
    /// Its number in the exporter context: always its own (RFC 8915 section 5.1).
    pub exporter_id: u16,
    /// The server echoed record 1024.
    pub compliant_128gcm: bool,
    /// One to eight cookies.
    pub cookies: CookieVec,
    /// The NTP server named; the host of the NTS-KE server when absent.
    pub server: Option<String>,
    /// The NTP port named; 123 when absent.
    pub port: Option<u16>,
}

impl Agreed {
    /// The number that the server may have put into the exporter context instead: chrony before
    /// 4.6.1 has 15 for AEAD 30, and does not know record 1024. Its answer to a request under the
    /// keys of the right number is an NTS NAK.
    pub fn legacy_exporter_id(&self) -> Option<u16> {
        let is_doubtful = self.algorithm == Algorithm::Aes128GcmSiv && !self.compliant_128gcm;
        is_doubtful.then_some(Algorithm::AesSivCmac256.id())
    }
}

impl Offer {
    /// Appends the request to `out`.
    ///
    /// # Errors
    /// [`BodyTooLong`] for a server name of more than 65535 bytes.
    pub fn emit(&self, out: &mut Vec<u8>) -> Result<(), BodyTooLong> {
        let protocols = NTPV4.to_be_bytes();
        let aeads: ArrayVec<u8, { 2 * KE_ALGORITHMS }> =
            self.algorithms.iter().flat_map(|algorithm| algorithm.id().to_be_bytes()).collect();
        let offers_30 = self.algorithms.contains(&Algorithm::Aes128GcmSiv);
        Request {
            next_protocols: Ids::new(&protocols).unwrap_or_default(),
            aeads: Ids::new(&aeads),
            compliant_128gcm: self.compliant_128gcm && offers_30,
            server: self.server.as_deref(),
            port: self.port,
        }
        .emit(out)
    }

    /// Takes a complete response and holds it to this offer (RFC 8915 sections 4.1.2 to 4.1.6).
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn accept(&self, response: &[u8]) -> Result<Agreed, AnswerError> {
        let agreement = match Response::parse(response)? {
            Response::Error(code) => return Err(AnswerError::Refused(code)),
            Response::Agreement(agreement) => agreement,
        };
        let algorithm = self.algorithm(&agreement)?;
        let cookies: CookieVec =
            agreement.cookies.iter().filter_map(|cookie| Cookie::try_from(*cookie).ok()).collect();
        if cookies.is_empty() {
            return Err(AnswerError::NoCookies);
        }
        Ok(Agreed {
            algorithm,
            exporter_id: algorithm.id(),
            compliant_128gcm: agreement.compliant_128gcm,
            cookies,
            server: agreement.server.map(str::to_owned),
            port: agreement.port,
        })
    }

    fn algorithm(&self, agreement: &Agreement<'_>) -> Result<Algorithm, AnswerError> {
        let mut protocols = agreement.next_protocols.iter();
        match (protocols.next(), protocols.next()) {
            (None, _) => return Err(AnswerError::NoProtocol),
            (Some(NTPV4), None) => {}
            (Some(id), _) => return Err(AnswerError::ForeignProtocol(id)),
        }
        let aeads = agreement.aeads.ok_or(AnswerError::NoAeadRecord)?;
        let mut ids = aeads.iter();
        let id = ids.next().ok_or(AnswerError::NoAlgorithm)?;
        let offered = Algorithm::from_id(id).filter(|id| self.algorithms.contains(id));
        match (offered, ids.next()) {
            (Some(algorithm), None) => Ok(algorithm),
            _ => Err(AnswerError::ForeignAlgorithm(id)),
        }
    }
}

/// Why an answer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// The records do not make a response.
    #[error("its answer is malformed ({0}): it is not a working NTS server")]
    Malformed(#[from] ResponseError),
    /// An Error record.
    #[error("it refused the request with error {0}: see its log")]
    Refused(ErrorCode),
    /// No protocol in common.
    #[error("it does not offer NTPv4: it serves another protocol over NTS")]
    NoProtocol,
    /// A protocol that was not asked for, or more than one.
    #[error("it chose protocol {0}, which was not asked for: it is not a working NTS server")]
    ForeignProtocol(u16),
    /// NTPv4 without an AEAD record.
    #[error("its answer has no AEAD record: it is not a working NTS server")]
    NoAeadRecord,
    /// No algorithm in common.
    #[error("it has none of the AEAD algorithms offered: offer 15, which every server has")]
    NoAlgorithm,
    /// An algorithm that was not offered, or more than one.
    #[error("it chose AEAD {0}, which was not offered: it is not a working NTS server")]
    ForeignAlgorithm(u16),
    /// Everything but cookies.
    #[error("it sent no cookies: see its log")]
    NoCookies,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ke::{AEAD, COOKIE, END_OF_MESSAGE, NEXT_PROTOCOL, WARNING, push_record};

    #[test]
    fn an_answer_is_held_to_the_offer() {
        let next = (true, NEXT_PROTOCOL, &[0, 0][..]);
        let aead = (true, AEAD, &[0, 15][..]);
        let cookie = (false, COOKIE, &[7; 100][..]);
        let accept = |records: &[(bool, u16, &[u8])]| Offer::default().accept(&message(records));
        let agreed = accept(&[next, aead, cookie, (false, 0x4001, &[1])]).unwrap();
        assert_eq!((agreed.algorithm, agreed.cookies.len()), (Algorithm::AesSivCmac256, 1));

        for (records, error) in [
            (&[(true, NEXT_PROTOCOL, &[][..])][..], AnswerError::NoProtocol),
            (
                &[(true, NEXT_PROTOCOL, &[0x80, 1]), aead, cookie],
                AnswerError::ForeignProtocol(0x8001),
            ),
            (
                &[(true, NEXT_PROTOCOL, &[0, 0, 0, 1]), aead, cookie],
                AnswerError::ForeignProtocol(0),
            ),
            (&[next, cookie], AnswerError::NoAeadRecord),
            (&[next, (true, AEAD, &[]), cookie], AnswerError::NoAlgorithm),
            (&[next, (true, AEAD, &[0, 30]), cookie], AnswerError::ForeignAlgorithm(30)),
            (&[next, (true, AEAD, &[0, 15, 0, 15]), cookie], AnswerError::ForeignAlgorithm(15)),
            (&[next, aead], AnswerError::NoCookies),
            (&[(true, 2, &[0, 1])], AnswerError::Refused(ErrorCode::BAD_REQUEST)),
        ] {
            assert_eq!(accept(records), Err(error));
        }
        for bad in [(true, 0x4001, &[][..]), (true, WARNING, &[0, 0]), (false, COOKIE, &[])] {
            assert!(matches!(accept(&[next, aead, cookie, bad]), Err(AnswerError::Malformed(_))));
        }
    }

    #[test]
    fn record_1024_is_sent_only_with_aead_30() {
        let asked = |algorithms: &[Algorithm]| {
            let algorithms = algorithms.iter().copied().collect();
            let mut out = Vec::new();
            Offer { algorithms, ..Offer::default() }.emit(&mut out).unwrap();
            Request::parse(&out).unwrap().compliant_128gcm
        };
        assert!(asked(&[Algorithm::Aes128GcmSiv, Algorithm::AesSivCmac256]));
        assert!(!asked(&[Algorithm::AesSivCmac256]));
    }

    fn message(records: &[(bool, u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (critical, kind, body) in records {
            push_record(&mut bytes, *critical, *kind, body).unwrap();
        }
        push_record(&mut bytes, true, END_OF_MESSAGE, &[]).unwrap();
        bytes
    }
}
