//! From jobs to groups of lanes: which jobs run together, and which run alone.

use std::marker::PhantomData;

use zeroize::Zeroize;

use super::arch::{AesNi, Blocks128, LANES_MAX, Lanes, SPARE_BYTES, Sinks, Sources, Task};
use super::gcm_siv::GcmSiv;
use super::group::{
    ASSOCIATED_BYTES_MIN, Group, Make, Mode, Nonces, Open, PLAIN_BYTES_MIN, Scratch, Seal, Spare,
    Tags, Unseal, Verify,
};
use super::siv::Siv;
use super::{
    Algorithm, CookieMake, CookieOpen, ReplyOpen, ReplySeal, RequestSeal, RequestVerify, TAG_BYTES,
};

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

    /// Answers all jobs: those that are alike together, those that no kernel takes alone.
    pub(super) fn run<J: Job>(&mut self, jobs: &mut [J]) {
        for jobs in jobs.chunks_mut(WINDOW_JOBS) {
            let mut waiting = Members::all(jobs.len());
            while let Some(first) = waiting.first() {
                let done = if jobs[first].fits() {
                    self.run_group(jobs, waiting)
                } else {
                    jobs[first].run_alone();
                    Members::one(first)
                };
                waiting.remove(done);
            }
        }
    }

    /// Answers the first job of those `waiting`, and all that are like it as far as the lanes go;
    /// returns which.
    fn run_group<J: Job>(&mut self, jobs: &mut [J], waiting: Members) -> Members {
        let mut tags = Tags::default();
        let members = self.gather_and_run(jobs, waiting, &mut tags);
        for ((_, job), tag) in members.of(jobs).zip(&tags) {
            job.finish(tag);
        }
        members
    }

    fn gather_and_run<J: Job>(
        &mut self,
        jobs: &mut [J],
        waiting: Members,
        tags: &mut Tags,
    ) -> Members {
        let mut candidates = waiting.of(jobs);
        let Some((first, founder)) = candidates.next() else { return waiting };
        let mut members = Members::one(first);
        let mut lanes = 1;
        let mut group = founder.found(&mut self.spare);
        for (index, job) in candidates {
            if job.is_like(&group) {
                job.join(&mut group, lanes);
                members.insert(index);
                lanes += 1;
                if lanes == V::WIDTH * V::VECTORS {
                    break;
                }
            }
        }
        let (wide, narrow) = (&mut *self.scratch, &mut *self.narrow_scratch);
        match (lanes, lanes.div_ceil(V::WIDTH)) {
            (1, _) => enter::<_, _, 1>(self.narrow_token, &mut group, narrow, tags),
            (2, _) => enter::<_, _, 2>(self.narrow_token, &mut group, narrow, tags),
            (_, 1) => enter::<V, _, 1>(self.token, &mut group, wide, tags),
            (_, 2) => enter::<V, _, 2>(self.token, &mut group, wide, tags),
            (_, 3..=4) => enter::<V, _, 4>(self.token, &mut group, wide, tags),
            _ if V::VECTORS > 4 => enter::<V, _, 8>(self.token, &mut group, wide, tags),
            _ => unreachable!("a group has at most VECTORS registers"),
        }
        members
    }
}

/// Runs a group that fits `N` registers, with the instruction set enabled.
fn enter<V: Lanes, G: Group, const N: usize>(
    token: V::Token,
    group: &mut G,
    scratch: &mut Scratch<V>,
    tags: &mut Tags,
) {
    match group.algorithm() {
        Algorithm::AesSivCmac256 => {
            V::enter(token, Run::<Siv, V, G, N> { group, scratch, tags, mode: PhantomData });
        }
        Algorithm::Aes128GcmSiv => {
            V::enter(token, Run::<GcmSiv, V, G, N> { group, scratch, tags, mode: PhantomData });
        }
        Algorithm::AesSivCmac512 => unreachable!("no kernel takes it"),
    }
}

struct Run<'r, M, V, G, const N: usize> {
    group: &'r mut G,
    scratch: &'r mut Scratch<V>,
    tags: &'r mut Tags,
    mode: PhantomData<M>,
}

impl<M: Mode, V: Lanes, G: Group, const N: usize> Task<V> for Run<'_, M, V, G, N> {
    #[inline(always)]
    fn run(self, token: V::Token) {
        self.group.run::<M, V, N>(token, self.scratch, &mut Sinks::of_all(self.tags));
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

/// Some jobs of a window, by their indices.
#[derive(Clone, Copy, Default)]
struct Members(u64);

impl Members {
    fn all(jobs: usize) -> Self {
        Self(u64::MAX >> (WINDOW_JOBS - jobs))
    }

    fn one(index: usize) -> Self {
        Self(1 << index)
    }

    fn first(self) -> Option<usize> {
        (self.0 != 0).then(|| self.0.trailing_zeros() as usize)
    }

    fn insert(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    fn remove(&mut self, others: Self) {
        self.0 &= !others.0;
    }

    /// These jobs, with their indices.
    #[inline(always)]
    fn of<J>(self, jobs: &mut [J]) -> impl Iterator<Item = (usize, &mut J)> {
        let first = self.0.trailing_zeros() as usize;
        jobs.iter_mut().enumerate().skip(first).filter(move |(index, _)| self.0 >> index & 1 != 0)
    }
}

/// A job that can run in a group or alone.
pub(super) trait Job {
    /// Messages of jobs that are alike, a lane each.
    type Group<'g>: Group
    where
        Self: 'g;

    /// Whether the kernels take this job.
    fn fits(&self) -> bool;

    /// A group of this job alone, in lane 0.
    fn found<'g>(&'g mut self, spare: &'g mut Spare) -> Self::Group<'g>;

    /// Whether key or algorithm and all lengths are those of the group.
    fn is_like(&self, group: &Self::Group<'_>) -> bool;

    /// Takes the next lane of a group that it is like.
    fn join<'g>(&'g mut self, group: &mut Self::Group<'g>, lane: usize);

    /// Learns the tag that its message should have; jobs that seal a text have it already.
    fn finish(&mut self, tag: &[u8; TAG_BYTES]);

    /// Answers this job with the portable code, whatever its lengths.
    fn run_alone(&mut self);
}

impl Job for CookieOpen<'_> {
    type Group<'g>
        = Open<'g>
    where
        Self: 'g;

    fn fits(&self) -> bool {
        self.nonce.len() == self.key.algorithm().nonce_bytes()
            && self.plain.len() >= PLAIN_BYTES_MIN
            && self.sealed.len() <= SPARE_BYTES
            && self.sealed.len() == self.plain.len() + TAG_BYTES
    }

    #[inline(always)]
    fn found<'g>(&'g mut self, spare: &'g mut Spare) -> Open<'g> {
        Open {
            key: self.key,
            plain_bytes: self.plain.len(),
            nonces: Nonces::new(self.nonce),
            sealed: Sources::new(self.sealed),
            plain: Sinks::new(self.plain, spare),
        }
    }

    #[inline(always)]
    fn is_like(&self, group: &Open<'_>) -> bool {
        std::ptr::eq(self.key, group.key)
            & (self.nonce.len() == group.nonces.bytes())
            & (self.plain.len() == group.plain_bytes)
            & (self.sealed.len() == group.plain_bytes + TAG_BYTES)
    }

    #[inline(always)]
    fn join<'g>(&'g mut self, group: &mut Open<'g>, lane: usize) {
        group.nonces.set(lane, self.nonce);
        group.sealed.set(lane, self.sealed);
        group.plain.set(lane, self.plain);
    }

    #[inline(always)]
    fn finish(&mut self, tag: &[u8; TAG_BYTES]) {
        self.passed = same_tag(self.key.algorithm(), self.sealed, tag);
        if !self.passed {
            self.plain.fill(0);
        }
    }

    fn run_alone(&mut self) {
        super::portable::open_cookie(self);
    }
}

impl Job for RequestVerify<'_> {
    type Group<'g>
        = Verify<'g>
    where
        Self: 'g;

    fn fits(&self) -> bool {
        self.algorithm != Algorithm::AesSivCmac512
            && self.key.len() == self.algorithm.key_bytes()
            && self.nonce.len() == self.algorithm.nonce_bytes()
            && self.sealed.len() == TAG_BYTES
            && self.associated_data.len() >= ASSOCIATED_BYTES_MIN
    }

    #[inline(always)]
    fn found<'g>(&'g mut self, _: &'g mut Spare) -> Verify<'g> {
        Verify {
            algorithm: self.algorithm,
            keys: Sources::new(self.key),
            nonces: Nonces::new(self.nonce),
            associated: Sources::new(self.associated_data),
            associated_bytes: self.associated_data.len(),
        }
    }

    #[inline(always)]
    fn is_like(&self, group: &Verify<'_>) -> bool {
        (self.algorithm == group.algorithm)
            & (self.key.len() == group.keys.bytes())
            & (self.nonce.len() == group.nonces.bytes())
            & (self.sealed.len() == TAG_BYTES)
            & (self.associated_data.len() == group.associated_bytes)
    }

    #[inline(always)]
    fn join<'g>(&'g mut self, group: &mut Verify<'g>, lane: usize) {
        group.keys.set(lane, self.key);
        group.nonces.set(lane, self.nonce);
        group.associated.set(lane, self.associated_data);
    }

    #[inline(always)]
    fn finish(&mut self, tag: &[u8; TAG_BYTES]) {
        self.passed = same_tag(self.algorithm, self.sealed, tag);
    }

    fn run_alone(&mut self) {
        super::portable::verify_request(self);
    }
}

impl Job for CookieMake<'_> {
    type Group<'g>
        = Make<'g>
    where
        Self: 'g;

    fn fits(&self) -> bool {
        self.nonce.len() == self.key.algorithm().nonce_bytes()
            && self.plain.len() >= PLAIN_BYTES_MIN
            && self.sealed.len() <= SPARE_BYTES
            && self.sealed.len() == self.plain.len() + TAG_BYTES
    }

    #[inline(always)]
    fn found<'g>(&'g mut self, spare: &'g mut Spare) -> Make<'g> {
        Make {
            key: self.key,
            plain_bytes: self.plain.len(),
            nonces: Nonces::new(self.nonce),
            plain: Sources::new(self.plain),
            sealed: Sinks::new(self.sealed, spare),
        }
    }

    #[inline(always)]
    fn is_like(&self, group: &Make<'_>) -> bool {
        std::ptr::eq(self.key, group.key)
            & (self.nonce.len() == group.nonces.bytes())
            & (self.plain.len() == group.plain_bytes)
            & (self.sealed.len() == group.plain_bytes + TAG_BYTES)
    }

    #[inline(always)]
    fn join<'g>(&'g mut self, group: &mut Make<'g>, lane: usize) {
        group.nonces.set(lane, self.nonce);
        group.plain.set(lane, self.plain);
        group.sealed.set(lane, self.sealed);
    }

    #[inline(always)]
    fn finish(&mut self, _: &[u8; TAG_BYTES]) {}

    fn run_alone(&mut self) {
        super::portable::make_cookie(self);
    }
}

impl Job for ReplySeal<'_> {
    type Group<'g>
        = Seal<'g>
    where
        Self: 'g;

    fn fits(&self) -> bool {
        self.algorithm != Algorithm::AesSivCmac512
            && self.key.len() == self.algorithm.key_bytes()
            && self.nonce.len() == self.algorithm.nonce_bytes()
            && self.text.len() >= PLAIN_BYTES_MIN + TAG_BYTES
            && self.text.len() <= SPARE_BYTES
            && self.associated_data.len() >= ASSOCIATED_BYTES_MIN
    }

    #[inline(always)]
    fn found<'g>(&'g mut self, spare: &'g mut Spare) -> Seal<'g> {
        Seal {
            algorithm: self.algorithm,
            keys: Sources::new(self.key),
            nonces: Nonces::new(self.nonce),
            associated: Sources::new(self.associated_data),
            associated_bytes: self.associated_data.len(),
            plain_bytes: self.text.len() - TAG_BYTES,
            text: Sinks::new(self.text, spare),
        }
    }

    #[inline(always)]
    fn is_like(&self, group: &Seal<'_>) -> bool {
        (self.algorithm == group.algorithm)
            & (self.key.len() == group.keys.bytes())
            & (self.nonce.len() == group.nonces.bytes())
            & (self.text.len() == group.plain_bytes + TAG_BYTES)
            & (self.associated_data.len() == group.associated_bytes)
    }

    #[inline(always)]
    fn join<'g>(&'g mut self, group: &mut Seal<'g>, lane: usize) {
        group.keys.set(lane, self.key);
        group.nonces.set(lane, self.nonce);
        group.associated.set(lane, self.associated_data);
        group.text.set(lane, self.text);
    }

    #[inline(always)]
    fn finish(&mut self, _: &[u8; TAG_BYTES]) {}

    fn run_alone(&mut self) {
        super::portable::seal_reply(self);
    }
}

/// In the lanes as [`RequestVerify`]; what that compares is written here.
impl Job for RequestSeal<'_> {
    type Group<'g>
        = Verify<'g>
    where
        Self: 'g;

    fn fits(&self) -> bool {
        self.algorithm != Algorithm::AesSivCmac512
            && self.key.len() == self.algorithm.key_bytes()
            && self.nonce.len() == self.algorithm.nonce_bytes()
            && self.tag.len() == TAG_BYTES
            && self.associated_data.len() >= ASSOCIATED_BYTES_MIN
    }

    #[inline(always)]
    fn found<'g>(&'g mut self, _: &'g mut Spare) -> Verify<'g> {
        Verify {
            algorithm: self.algorithm,
            keys: Sources::new(self.key),
            nonces: Nonces::new(self.nonce),
            associated: Sources::new(self.associated_data),
            associated_bytes: self.associated_data.len(),
        }
    }

    #[inline(always)]
    fn is_like(&self, group: &Verify<'_>) -> bool {
        (self.algorithm == group.algorithm)
            & (self.key.len() == group.keys.bytes())
            & (self.nonce.len() == group.nonces.bytes())
            & (self.tag.len() == TAG_BYTES)
            & (self.associated_data.len() == group.associated_bytes)
    }

    #[inline(always)]
    fn join<'g>(&'g mut self, group: &mut Verify<'g>, lane: usize) {
        group.keys.set(lane, self.key);
        group.nonces.set(lane, self.nonce);
        group.associated.set(lane, self.associated_data);
    }

    #[inline(always)]
    fn finish(&mut self, tag: &[u8; TAG_BYTES]) {
        self.tag.copy_from_slice(tag);
    }

    fn run_alone(&mut self) {
        super::portable::seal_request(self);
    }
}

/// In the lanes as [`ReplySeal`], the other way round.
impl Job for ReplyOpen<'_> {
    type Group<'g>
        = Unseal<'g>
    where
        Self: 'g;

    fn fits(&self) -> bool {
        self.algorithm != Algorithm::AesSivCmac512
            && self.key.len() == self.algorithm.key_bytes()
            && self.nonce.len() == self.algorithm.nonce_bytes()
            && self.sealed.len() >= PLAIN_BYTES_MIN + TAG_BYTES
            && self.sealed.len() <= SPARE_BYTES
            && self.associated_data.len() >= ASSOCIATED_BYTES_MIN
    }

    #[inline(always)]
    fn found<'g>(&'g mut self, spare: &'g mut Spare) -> Unseal<'g> {
        Unseal(Seal {
            algorithm: self.algorithm,
            keys: Sources::new(self.key),
            nonces: Nonces::new(self.nonce),
            associated: Sources::new(self.associated_data),
            associated_bytes: self.associated_data.len(),
            plain_bytes: self.sealed.len() - TAG_BYTES,
            text: Sinks::new(self.sealed, spare),
        })
    }

    #[inline(always)]
    fn is_like(&self, Unseal(group): &Unseal<'_>) -> bool {
        (self.algorithm == group.algorithm)
            & (self.key.len() == group.keys.bytes())
            & (self.nonce.len() == group.nonces.bytes())
            & (self.sealed.len() == group.plain_bytes + TAG_BYTES)
            & (self.associated_data.len() == group.associated_bytes)
    }

    #[inline(always)]
    fn join<'g>(&'g mut self, Unseal(group): &mut Unseal<'g>, lane: usize) {
        group.keys.set(lane, self.key);
        group.nonces.set(lane, self.nonce);
        group.associated.set(lane, self.associated_data);
        group.text.set(lane, self.sealed);
    }

    #[inline(always)]
    fn finish(&mut self, tag: &[u8; TAG_BYTES]) {
        self.passed = same_tag(self.algorithm, self.sealed, tag);
        if !self.passed {
            self.sealed.fill(0);
        }
    }

    fn run_alone(&mut self) {
        super::portable::open_reply(self);
    }
}

/// Compares without a branch or an early end.
#[inline]
fn same_tag(algorithm: Algorithm, sealed: &[u8], tag: &[u8; TAG_BYTES]) -> bool {
    let found = sealed[algorithm.tag_offset(sealed.len())..].first_chunk();
    let found = found.expect("a job that runs in a group has a tag");
    u128::from_ne_bytes(*found) ^ u128::from_ne_bytes(*tag) == 0
}

/// Jobs that are searched for one shape: the bits of a word, and twice the batch of a worker.
const WINDOW_JOBS: usize = 64;

const _: () = assert!(LANES_MAX <= WINDOW_JOBS);
