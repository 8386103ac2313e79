//! Choosing the instruction set once, and giving every job to its kernels.

use std::fmt;

use super::{CookieMake, CookieOpen, ReplySeal, RequestVerify, TAG_BYTES, open_one, seal_one};

/// An instruction set that kernels exist for, from narrow to wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Backend {
    /// The RustCrypto crates, one job after the other. Runs everywhere.
    Portable,
    /// x86-64 with AES-NI: one block an instruction.
    AesNi,
    /// x86-64 with VAES and AVX2: two blocks an instruction.
    Vaes256,
    /// x86-64 with VAES and AVX-512: four blocks an instruction.
    Vaes512,
}

impl Backend {
    /// The back ends that this machine can run, from narrow to wide.
    pub fn available() -> Vec<Self> {
        vec![Self::Portable]
    }

    /// Its name as shown to people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::AesNi => "AES-NI",
            Self::Vaes256 => "VAES-256",
            Self::Vaes512 => "VAES-512",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// The AEADs of NTS for whole batches. One per worker: it owns the scratch of its kernels.
pub struct Aead {
    backend: Backend,
}

impl Aead {
    /// The widest back end that this machine can run. Debug builds leave out what the environment
    /// variable `TIMEBALL_DENY_CPU` lists (`vaes512,vaes256,aesni`), so that tests can walk the
    /// whole lattice on one machine.
    pub fn detect() -> Self {
        Self { backend: Backend::Portable }
    }

    /// The given back end; `None` if this machine cannot run it.
    pub fn with_backend(backend: Backend) -> Option<Self> {
        Backend::available().contains(&backend).then_some(Self { backend })
    }

    /// The back end in use.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Opens cookies: decrypts `sealed` into `plain` and sets `passed`.
    pub fn open_cookies(&mut self, jobs: &mut [CookieOpen<'_>]) {
        for job in jobs {
            job.passed = open_cookie(job);
        }
    }

    /// Verifies requests: decrypts `sealed` in place and sets `passed`.
    pub fn verify_requests(&mut self, jobs: &mut [RequestVerify<'_>]) {
        for job in jobs {
            let (key, nonce, data) = (job.key, job.nonce, job.associated_data);
            job.passed = open_one(job.algorithm, key, nonce, data, job.sealed).is_ok();
        }
    }

    /// Makes cookies: encrypts `plain` into `sealed`.
    pub fn make_cookies(&mut self, jobs: &mut [CookieMake<'_>]) {
        for job in jobs {
            make_cookie(job);
        }
    }

    /// Seals replies in place.
    pub fn seal_replies(&mut self, jobs: &mut [ReplySeal<'_>]) {
        for job in jobs {
            // A job that cannot be sealed has been zeroed: nothing can leak.
            let (key, nonce, data) = (job.key, job.nonce, job.associated_data);
            let _ = seal_one(job.algorithm, key, nonce, data, job.text);
        }
    }

    /// Overwrites the scratch with zeros. Call it when a worker goes idle; drop does it too.
    pub fn wipe(&mut self) {}
}

fn open_cookie(job: &mut CookieOpen<'_>) -> bool {
    job.plain.fill(0);
    if job.sealed.len() != job.plain.len() + TAG_BYTES {
        return false;
    }
    let algorithm = job.key.algorithm();
    let mut text = zeroize::Zeroizing::new(job.sealed.to_vec());
    let opened = open_one(algorithm, job.key.expose_bytes(), job.nonce, &[], &mut text);
    let plain = algorithm.plaintext_offset()..algorithm.plaintext_offset() + job.plain.len();
    job.plain.copy_from_slice(&text[plain]);
    opened.is_ok()
}

fn make_cookie(job: &mut CookieMake<'_>) {
    job.sealed.fill(0);
    if job.sealed.len() != job.plain.len() + TAG_BYTES {
        return;
    }
    let algorithm = job.key.algorithm();
    let plain = algorithm.plaintext_offset()..algorithm.plaintext_offset() + job.plain.len();
    job.sealed[plain].copy_from_slice(job.plain);
    // A job that cannot be sealed has been zeroed: nothing can leak.
    let _ = seal_one(algorithm, job.key.expose_bytes(), job.nonce, &[], job.sealed);
}
