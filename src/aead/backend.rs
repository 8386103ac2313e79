//! Choosing the instruction set once, and giving every job to its kernels.

use std::fmt;

use zeroize::Zeroize;

use super::arch::{AesNi, Blocks128, Blocks256, Blocks512, Vaes256, Vaes512};
use super::kernels::{Job, Kernels};
use super::{CookieMake, CookieOpen, ReplyOpen, ReplySeal, RequestSeal, RequestVerify};

/// An instruction set that kernels exist for, from narrow to wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Backend {
    /// The RustCrypto crates, one job after the other. Runs everywhere.
    Portable,
    /// x86-64 with AES-NI and PCLMULQDQ: one block an instruction.
    AesNi,
    /// x86-64 with VAES, VPCLMULQDQ and AVX2: two blocks an instruction.
    Vaes256,
    /// x86-64 with VAES, VPCLMULQDQ and AVX-512: four blocks an instruction.
    Vaes512,
}

impl Backend {
    /// The back ends that this machine can run, from narrow to wide.
    pub fn available() -> Vec<Self> {
        let all = [Self::Portable, Self::AesNi, Self::Vaes256, Self::Vaes512];
        all.into_iter().filter(|backend| Engine::new(*backend).is_some()).collect()
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
    engine: Engine,
}

impl Aead {
    /// The widest back end that this machine can run. Debug builds leave out what the environment
    /// variable `TIMEBALL_DENY_CPU` lists (`vaes512,vaes256,aesni`), so that tests can walk the
    /// whole lattice on one machine.
    pub fn detect() -> Self {
        let mut engines = [Backend::Vaes512, Backend::Vaes256, Backend::AesNi]
            .into_iter()
            .filter(|backend| !denied(*backend))
            .filter_map(Engine::new);
        Self { engine: engines.next().unwrap_or(Engine::Portable) }
    }

    /// The given back end; `None` if this machine cannot run it.
    pub fn with_backend(backend: Backend) -> Option<Self> {
        Some(Self { engine: Engine::new(backend)? })
    }

    /// The back end in use.
    pub fn backend(&self) -> Backend {
        match self.engine {
            Engine::Portable => Backend::Portable,
            Engine::AesNi(_) => Backend::AesNi,
            Engine::Vaes256(_) => Backend::Vaes256,
            Engine::Vaes512(_) => Backend::Vaes512,
        }
    }

    /// Opens cookies: decrypts `sealed` into `plain` and sets `passed`.
    pub fn open_cookies(&mut self, jobs: &mut [CookieOpen<'_>]) {
        self.engine.run(jobs);
    }

    /// Verifies requests: decrypts `sealed` in place and sets `passed`.
    pub fn verify_requests(&mut self, jobs: &mut [RequestVerify<'_>]) {
        self.engine.run(jobs);
    }

    /// Makes cookies: encrypts `plain` into `sealed`.
    pub fn make_cookies(&mut self, jobs: &mut [CookieMake<'_>]) {
        self.engine.run(jobs);
    }

    /// Seals replies in place.
    pub fn seal_replies(&mut self, jobs: &mut [ReplySeal<'_>]) {
        self.engine.run(jobs);
    }

    /// Seals requests that enclose nothing: writes their tags.
    pub fn seal_requests(&mut self, jobs: &mut [RequestSeal<'_>]) {
        self.engine.run(jobs);
    }

    /// Opens replies: decrypts `sealed` in place and sets `passed`.
    pub fn open_replies(&mut self, jobs: &mut [ReplyOpen<'_>]) {
        self.engine.run(jobs);
    }

    /// Overwrites the scratch with zeros. Call it when a worker goes idle; drop does it too.
    /// Copies that the compiler keeps in registers or on the stack are out of reach.
    pub fn wipe(&mut self) {
        self.engine.wipe();
    }
}

/// The kernels of the chosen instruction set.
enum Engine {
    Portable,
    AesNi(Kernels<Blocks128>),
    Vaes256(Kernels<Blocks256>),
    Vaes512(Kernels<Blocks512>),
}

impl Engine {
    fn new(backend: Backend) -> Option<Self> {
        Some(match backend {
            Backend::Portable => Self::Portable,
            Backend::AesNi => Self::AesNi(Kernels::new(AesNi::detect()?, AesNi::detect()?)),
            Backend::Vaes256 => Self::Vaes256(Kernels::new(Vaes256::detect()?, AesNi::detect()?)),
            Backend::Vaes512 => Self::Vaes512(Kernels::new(Vaes512::detect()?, AesNi::detect()?)),
        })
    }

    fn run<J: Job>(&mut self, jobs: &mut [J]) {
        match self {
            Self::Portable => jobs.iter_mut().for_each(Job::run_alone),
            Self::AesNi(kernels) => kernels.run(jobs),
            Self::Vaes256(kernels) => kernels.run(jobs),
            Self::Vaes512(kernels) => kernels.run(jobs),
        }
    }

    fn wipe(&mut self) {
        match self {
            Self::Portable => {}
            Self::AesNi(kernels) => kernels.zeroize(),
            Self::Vaes256(kernels) => kernels.zeroize(),
            Self::Vaes512(kernels) => kernels.zeroize(),
        }
    }
}

/// Whether the environment of a debug build denies this back end.
fn denied(backend: Backend) -> bool {
    let word = match backend {
        Backend::Portable => return false,
        Backend::AesNi => "aesni",
        Backend::Vaes256 => "vaes256",
        Backend::Vaes512 => "vaes512",
    };
    cfg!(debug_assertions)
        && std::env::var("TIMEBALL_DENY_CPU").is_ok_and(|list| list.split(',').any(|it| it == word))
}
