//! From jobs to groups of lanes: which jobs run together, and which run alone.

use arrayvec::ArrayVec;
use zeroize::Zeroize;

use super::arch::{AesNi, Blocks128, LANES_MAX, Lanes, SPARE_BYTES, Sinks, Sources};
use super::master::SivConstants;
use super::siv::{
    ASSOCIATED_BYTES_MIN, Make, Open, PLAIN_BYTES_MIN, Scratch, Seal, Spare, Tags, Verify,
};
use super::{Algorithm, CookieMake, CookieOpen, MasterKey, ReplySeal, RequestVerify, TAG_BYTES};

/// The kernels of one instruction set, with their scratch, and AES-NI for groups of one or two:
/// a wide register would carry dummies there, and takes longer to fill.
pub(super) struct Kernels<V: Lanes> {
    token: V::Token,
    scratch: Box<Scratch<V>>,
    narrow_token: AesNi,
    narrow_scratch: Box<Scratch<Blocks128>>,
    spare: Box<Spare>,
}

impl<V: Lanes> Kernels<V> {
    pub(super) fn new(token: V::Token, narrow_token: AesNi) -> Self {
        Self {
            token,
            scratch: Box::new(Scratch::new(token)),
            narrow_token,
            narrow_scratch: Box::new(Scratch::new(narrow_token)),
            spare: Box::new([0; SPARE_BYTES]),
        }
    }

    /// Answers all jobs: groups of one shape together, shapes that no kernel takes alone.
    pub(super) fn run<J: Job>(&mut self, jobs: &mut [J]) {
        for jobs in jobs.chunks_mut(WINDOW_JOBS) {
            let mut done = 0u64;
            for first in 0..jobs.len() {
                if done >> first & 1 != 0 {
                    continue;
                }
                let Some(shape) = jobs[first].shape() else {
                    jobs[first].run_alone();
                    continue;
                };
                let mut group = ArrayVec::<&mut J, LANES_MAX>::new();
                for (index, job) in jobs.iter_mut().enumerate().skip(first) {
                    if done >> index & 1 == 0 && job.shape() == Some(shape) {
                        done |= 1 << index;
                        group.push(job);
                        if group.len() == V::WIDTH * V::VECTORS {
                            break;
                        }
                    }
                }
                self.run_group(&mut group);
            }
        }
    }

    fn run_group<J: Job>(&mut self, group: &mut [&mut J]) {
        let (token, scratch, spare) = (self.token, &mut self.scratch, &mut *self.spare);
        match (group.len(), group.len().div_ceil(V::WIDTH)) {
            (1, _) => J::run::<_, 1>(self.narrow_token, &mut self.narrow_scratch, spare, group),
            (2, _) => J::run::<_, 2>(self.narrow_token, &mut self.narrow_scratch, spare, group),
            (_, 1) => J::run::<V, 1>(token, scratch, spare, group),
            (_, 2) => J::run::<V, 2>(token, scratch, spare, group),
            (_, 3..=4) => J::run::<V, 4>(token, scratch, spare, group),
            _ if V::VECTORS > 4 => J::run::<V, 8>(token, scratch, spare, group),
            _ => unreachable!("a group has at most VECTORS registers"),
        }
    }
}

impl<V: Lanes> Zeroize for Kernels<V> {
    fn zeroize(&mut self) {
        self.scratch.zeroize();
        self.narrow_scratch.zeroize();
        self.spare.zeroize();
    }
}

impl<V: Lanes> Drop for Kernels<V> {
    fn drop(&mut self) {
        self.zeroize();
    }
}

/// A job that can run in a group or alone.
pub(super) trait Job {
    /// What the jobs of a group must have in common.
    type Shape: Copy + PartialEq;

    /// The shape of this job; `None` if it has to run alone.
    fn shape(&self) -> Option<Self::Shape>;

    /// Answers this job with the portable code, whatever its lengths.
    fn run_alone(&mut self);

    /// Answers a group of one shape, which fits `N` registers.
    fn run<V: Lanes, const N: usize>(
        token: V::Token,
        scratch: &mut Scratch<V>,
        spare: &mut Spare,
        group: &mut [&mut Self],
    );
}

impl<'a> Job for CookieOpen<'a> {
    type Shape = (*const MasterKey, usize);

    #[inline]
    fn shape(&self) -> Option<Self::Shape> {
        let fits = self.nonce.len() == NONCE_BYTES
            && self.plain.len() >= PLAIN_BYTES_MIN
            && self.sealed.len() <= SPARE_BYTES
            && self.sealed.len() == self.plain.len() + TAG_BYTES
            && self.key.siv().is_some();
        fits.then_some((std::ptr::from_ref(self.key), self.plain.len()))
    }

    fn run_alone(&mut self) {
        super::portable::open_cookie(self);
    }

    fn run<V: Lanes, const N: usize>(
        token: V::Token,
        _: &mut Scratch<V>,
        spare: &mut Spare,
        group: &mut [&mut Self],
    ) {
        let mut tags = Tags::default();
        let mut tag_sinks = Sinks::of_all(&mut tags);
        let master = siv(group[0].key);
        let plain_bytes = group[0].plain.len();
        let mut nonces = Sources::new(group[0].nonce);
        nonces.extend(group[1..].iter().map(|job| job.nonce));
        let mut sealed = Sources::new(group[0].sealed);
        sealed.extend(group[1..].iter().map(|job| job.sealed));
        let (first, rest) = group.split_first_mut().expect("a lane");
        let mut plain = Sinks::new(first.plain, spare);
        plain.extend(rest.iter_mut().map(|job| &mut *job.plain));
        let task = Open::<N> {
            master,
            plain_bytes,
            nonces: &nonces,
            sealed: &sealed,
            plain: &mut plain,
            tags: &mut tag_sinks,
        };
        V::enter(token, task);
        for (job, tag) in group.iter_mut().zip(&tags) {
            job.passed = same_tag(job.sealed, tag);
            if !job.passed {
                job.plain.fill(0);
            }
        }
    }
}

impl<'a> Job for RequestVerify<'a> {
    type Shape = usize;

    #[inline]
    fn shape(&self) -> Option<Self::Shape> {
        let fits = self.algorithm == Algorithm::AesSivCmac256
            && self.key.len() == KEY_BYTES
            && self.nonce.len() == NONCE_BYTES
            && self.sealed.len() == TAG_BYTES
            && self.associated_data.len() >= ASSOCIATED_BYTES_MIN;
        fits.then_some(self.associated_data.len())
    }

    fn run_alone(&mut self) {
        super::portable::verify_request(self);
    }

    fn run<V: Lanes, const N: usize>(
        token: V::Token,
        scratch: &mut Scratch<V>,
        _: &mut Spare,
        group: &mut [&mut Self],
    ) {
        let mut tags = Tags::default();
        let mut tag_sinks = Sinks::of_all(&mut tags);
        let associated_bytes = group[0].associated_data.len();
        let mut keys = Sources::new(group[0].key);
        keys.extend(group[1..].iter().map(|job| job.key));
        let mut nonces = Sources::new(group[0].nonce);
        nonces.extend(group[1..].iter().map(|job| job.nonce));
        let mut associated = Sources::new(group[0].associated_data);
        associated.extend(group[1..].iter().map(|job| job.associated_data));
        let task = Verify::<V, N> {
            scratch,
            keys: &keys,
            nonces: &nonces,
            associated: &associated,
            associated_bytes,
            tags: &mut tag_sinks,
        };
        V::enter(token, task);
        for (job, tag) in group.iter_mut().zip(&tags) {
            job.passed = same_tag(job.sealed, tag);
        }
    }
}

impl<'a> Job for CookieMake<'a> {
    type Shape = (*const MasterKey, usize);

    #[inline]
    fn shape(&self) -> Option<Self::Shape> {
        let fits = self.nonce.len() == NONCE_BYTES
            && self.plain.len() >= PLAIN_BYTES_MIN
            && self.sealed.len() <= SPARE_BYTES
            && self.sealed.len() == self.plain.len() + TAG_BYTES
            && self.key.siv().is_some();
        fits.then_some((std::ptr::from_ref(self.key), self.plain.len()))
    }

    fn run_alone(&mut self) {
        super::portable::make_cookie(self);
    }

    fn run<V: Lanes, const N: usize>(
        token: V::Token,
        _: &mut Scratch<V>,
        spare: &mut Spare,
        group: &mut [&mut Self],
    ) {
        let master = siv(group[0].key);
        let plain_bytes = group[0].plain.len();
        let mut nonces = Sources::new(group[0].nonce);
        nonces.extend(group[1..].iter().map(|job| job.nonce));
        let mut plain = Sources::new(group[0].plain);
        plain.extend(group[1..].iter().map(|job| job.plain));
        let (first, rest) = group.split_first_mut().expect("a lane");
        let mut sealed = Sinks::new(first.sealed, spare);
        sealed.extend(rest.iter_mut().map(|job| &mut *job.sealed));
        let task =
            Make::<N> { master, nonces: &nonces, plain: &plain, plain_bytes, sealed: &mut sealed };
        V::enter(token, task);
    }
}

impl<'a> Job for ReplySeal<'a> {
    type Shape = (usize, usize);

    #[inline]
    fn shape(&self) -> Option<Self::Shape> {
        let fits = self.algorithm == Algorithm::AesSivCmac256
            && self.key.len() == KEY_BYTES
            && self.nonce.len() == NONCE_BYTES
            && self.text.len() >= PLAIN_BYTES_MIN + TAG_BYTES
            && self.text.len() <= SPARE_BYTES
            && self.associated_data.len() >= ASSOCIATED_BYTES_MIN;
        fits.then_some((self.associated_data.len(), self.text.len()))
    }

    fn run_alone(&mut self) {
        super::portable::seal_reply(self);
    }

    fn run<V: Lanes, const N: usize>(
        token: V::Token,
        scratch: &mut Scratch<V>,
        spare: &mut Spare,
        group: &mut [&mut Self],
    ) {
        let associated_bytes = group[0].associated_data.len();
        let plain_bytes = group[0].text.len() - TAG_BYTES;
        let mut keys = Sources::new(group[0].key);
        keys.extend(group[1..].iter().map(|job| job.key));
        let mut nonces = Sources::new(group[0].nonce);
        nonces.extend(group[1..].iter().map(|job| job.nonce));
        let mut associated = Sources::new(group[0].associated_data);
        associated.extend(group[1..].iter().map(|job| job.associated_data));
        let (first, rest) = group.split_first_mut().expect("a lane");
        let mut text = Sinks::new(first.text, spare);
        text.extend(rest.iter_mut().map(|job| &mut *job.text));
        let task = Seal::<V, N> {
            scratch,
            keys: &keys,
            nonces: &nonces,
            associated: &associated,
            associated_bytes,
            plain_bytes,
            text: &mut text,
        };
        V::enter(token, task);
    }
}

fn siv(key: &MasterKey) -> &SivConstants {
    key.siv().expect("the shape asks for it")
}

/// Compares without a branch or an early end.
#[inline]
fn same_tag(sealed: &[u8], tag: &[u8; TAG_BYTES]) -> bool {
    let found = sealed.first_chunk().expect("the shape asks for a tag");
    u128::from_ne_bytes(*found) ^ u128::from_ne_bytes(*tag) == 0
}

/// Jobs that are searched for one shape: the bits of a word, and twice the batch of a worker.
const WINDOW_JOBS: usize = 64;

/// Bytes of a key of AEAD 15.
const KEY_BYTES: usize = Algorithm::AesSivCmac256.key_bytes();

/// Bytes of the nonces that the kernels take: one block.
const NONCE_BYTES: usize = 16;
