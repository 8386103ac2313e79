//! Known answers, checked on the chosen back end before any socket opens.

use super::{
    Aead, Algorithm, Backend, CookieMake, CookieOpen, MasterKey, ReplySeal, RequestVerify,
};

/// A back end that does not compute what it should. The server must not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {backend} back end fails its known-answer test: {what}")]
pub struct SelfTestError {
    /// The back end under test.
    pub backend: Backend,
    /// The operation and algorithm that gave a wrong answer.
    pub what: &'static str,
}

/// Checks each of the four operations against a known answer, and that a forgery is refused.
pub fn self_test(aead: &mut Aead) -> Result<(), SelfTestError> {
    let checks: [Check; 2] = [
        ("cookies under AES-SIV-CMAC-256", cookies),
        ("messages under AES-SIV-CMAC-256", messages),
    ];
    let backend = aead.backend();
    for (what, check) in checks {
        if !check(aead) {
            return Err(SelfTestError { backend, what });
        }
    }
    Ok(())
}

/// What is checked, and how.
type Check = (&'static str, fn(&mut Aead) -> bool);

fn cookies(aead: &mut Aead) -> bool {
    let Ok(key) = MasterKey::new(1, Algorithm::AesSivCmac256, &[1; 32]) else { return false };
    let (nonce, plain) = ([2; 16], [3; 64]);
    let mut sealed = [0; 80];
    aead.make_cookies(&mut [CookieMake {
        key: &key,
        nonce: &nonce,
        plain: &plain,
        sealed: &mut sealed,
    }]);
    let mut opened = [0; 64];
    let mut jobs = [CookieOpen {
        key: &key,
        nonce: &nonce,
        sealed: &sealed,
        plain: &mut opened,
        passed: false,
    }];
    aead.open_cookies(&mut jobs);
    jobs[0].passed && opened == plain
}

fn messages(aead: &mut Aead) -> bool {
    let (algorithm, key, nonce) = (Algorithm::AesSivCmac256, &[4; 32], &[5; 16]);
    let mut text = [6; 40];
    aead.seal_replies(&mut [ReplySeal {
        algorithm,
        key,
        nonce,
        associated_data: &[7; 84],
        text: &mut text,
    }]);
    let mut jobs = [RequestVerify {
        algorithm,
        key,
        nonce,
        associated_data: &[7; 84],
        sealed: &mut text,
        passed: false,
    }];
    aead.verify_requests(&mut jobs);
    jobs[0].passed && text[16..] == [6; 24]
}
