//! The cryptography of an NTS request, from cookie to sealed reply, per back end and batch size,
//! beside the `aes-siv` crate used the obvious way in the same run.
//!
//! ```text
//! cargo bench --bench aead
//! RUSTFLAGS="-C target-cpu=native" cargo bench --bench aead -- --record <name>
//! ```
//!
//! The second form is what the targets in the documentation compare with: the crate gains by a
//! native build, our kernels (which choose at run time) do not. `--record` writes the table to
//! `benches/record/<name>`.
//!
//! What is measured: a batch of requests with one cookie and `k - 1` placeholders each; every
//! request has its own keys and cookie, drawn in turn from 1024 associations, so that
//! nothing is hot but the code. Per request: open the cookie, verify (associated data 84 + 104 k
//! bytes, empty plaintext), draw nonces, make k cookies, seal the reply (associated data 84 bytes,
//! text 104 k bytes). Arms take turns within each round, and each round starts with another arm;
//! median and quartiles over the rounds are printed. Time is the thread's CPU time.
//!
//! `--quick` takes fewer rounds, `--only VAES-512:32` one arm beside the crate (for a profiler).
//!
//! The floor is the request's AES blocks, key schedules counted as one block each, at the speed of
//! `aes::Aes128::encrypt_blocks` (one key, no dependencies) in the same run.

mod common;

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use aes::cipher::{Array, BlockCipherEncrypt};
use aes_siv::siv::Aes128Siv;
use aes_siv::{KeyInit, Tag};
use arrayvec::ArrayVec;
use common::{host_facts, is_asked, publish, quartiles};
use rustix::time::{ClockId, clock_gettime};
use timeball::aead::{
    Aead, Algorithm, Backend, CookieMake, CookieOpen, MasterKey, NonceGenerator, ReplySeal,
    RequestVerify,
};

fn main() {
    let rounds = if is_asked("--quick") { 7 } else { 41 };
    let only = std::env::args().skip_while(|word| word != "--only").nth(1).unwrap_or_default();
    let mut table = host_facts();
    let _ = writeln!(
        table,
        "set       {ASSOCIATIONS} associations, windows of {} ms",
        WINDOW.as_millis()
    );
    for cookies in [1, 8] {
        section(&mut table, cookies, rounds, &only);
    }
    table += &nonces(rounds);
    publish(&table);
}

/// One way to answer, and the times of its windows in nanoseconds a request.
struct Arm {
    name: String,
    batch: usize,
    answer: Answer,
    times: Vec<f64>,
}

/// Answers the batch that starts at an association.
type Answer = Box<dyn FnMut(&mut World, usize)>;

fn section(table: &mut String, cookies: usize, rounds: usize, only: &str) {
    let mut world = World::new(cookies);
    let mut arms = vec![Arm {
        name: "aes-siv crate".into(),
        batch: 1,
        answer: Box::new(answer_obviously),
        times: vec![],
    }];
    for backend in Backend::available() {
        for batch in if backend == Backend::Portable { &[32][..] } else { &BATCHES } {
            if !format!("{backend}:{batch}").starts_with(only) {
                continue;
            }
            let mut aead = Aead::with_backend(backend).expect("available");
            arms.push(Arm {
                name: backend.to_string(),
                batch: *batch,
                answer: Box::new(move |world, first| answer(&mut aead, world, first, *batch)),
                times: vec![],
            });
        }
    }
    for (stage, run) in STAGES {
        let backend = Aead::detect().backend();
        if !format!("{backend}:32").starts_with(only) {
            continue;
        }
        let mut aead = Aead::with_backend(backend).expect("available");
        arms.push(Arm {
            name: format!("  {stage} only"),
            batch: 32,
            answer: Box::new(move |world, first| {
                if first == 0 {
                    answer(&mut aead, world, 0, 32);
                }
                run(&mut aead, world, 0, 32);
            }),
            times: vec![],
        });
    }
    let mut block_times = vec![];
    for round in 0..rounds {
        let count = arms.len();
        for index in 0..count {
            let arm = &mut arms[(index + round) % count];
            arm.times.push(window(arm.batch, |first| (arm.answer)(&mut world, first)));
        }
        block_times.push(block_time());
    }
    let floor = quartiles(&block_times).0 * aes_blocks(cookies) as f64;
    print_section(table, cookies, &mut arms, floor);
}

fn print_section(table: &mut String, cookies: usize, arms: &mut [Arm], floor: f64) {
    let blocks = aes_blocks(cookies);
    let _ = writeln!(
        table,
        "\n{cookies} cookie(s): {blocks} AES blocks a request, floor {floor:.0} ns\n\n\
         {:<14} {:>5} {:>11} {:>15} {:>8} {:>8}",
        "back end", "batch", "ns/request", "quartiles", "ratio", "floor %"
    );
    let (baseline, ..) = quartiles(&arms[0].times);
    for arm in arms {
        let (time, low, high) = quartiles(&arm.times);
        let _ = writeln!(
            table,
            "{:<14} {:>5} {time:>11.1} {:>15} {:>7.1}x {:>8.0}",
            arm.name,
            arm.batch,
            format!("{low:.1}-{high:.1}"),
            baseline / time,
            100.0 * floor / time,
        );
    }
}

/// Nanoseconds a request: all associations, as often as fit the window.
fn window(batch: usize, mut answer: impl FnMut(usize)) -> f64 {
    let (start, mut requests) = (CpuTime::now(), 0);
    while start.elapsed() < WINDOW {
        for first in (0..ASSOCIATIONS).step_by(batch) {
            answer(first);
        }
        requests += ASSOCIATIONS;
    }
    start.elapsed().as_nanos() as f64 / requests as f64
}

/// The CPU time of this thread: other processes may take the core away, but not count.
struct CpuTime(Duration);

impl CpuTime {
    fn now() -> Self {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Self(Duration::new(now.tv_sec as u64, now.tv_nsec as u32))
    }

    fn elapsed(&self) -> Duration {
        Self::now().0 - self.0
    }
}

/// Everything that requests and replies are made of.
struct World {
    master: MasterKey,
    obvious_master: Aes128Siv,
    nonces: NonceGenerator,
    associations: Vec<Association>,
    slots: Vec<Slot>,
}

/// A client's request, as it arrives.
struct Association {
    cookie_nonce: [u8; 16],
    cookie_sealed: [u8; 80],
    request: Vec<u8>,
    request_nonce: [u8; 16],
    request_tag: [u8; 16],
}

/// What a server keeps for each place of a batch and uses again: keys and reply.
#[derive(Clone)]
struct Slot {
    keys: [u8; 64],
    reply_header: [u8; 84],
    reply_nonce: [u8; 16],
    reply_text: Vec<u8>,
}

impl World {
    fn new(cookies: usize) -> Self {
        let mut nonces = NonceGenerator::from_seed(&[7; 32]);
        let key = [0x42; 32];
        let master = MasterKey::new(1, Algorithm::AesSivCmac256, &key).expect("32 bytes");
        let mut obvious_master = Aes128Siv::new(&key.into());
        let associations = (0..ASSOCIATIONS)
            .map(|_| Association::new(&mut nonces, &mut obvious_master, cookies))
            .collect();
        let slot = Slot {
            keys: [0; 64],
            reply_header: [0x24; 84],
            reply_nonce: [0; 16],
            reply_text: vec![0; 16 + COOKIE_FIELD_BYTES * cookies],
        };
        Self { master, obvious_master, nonces, associations, slots: vec![slot; BATCH_MAX] }
    }
}

impl Association {
    fn new(random: &mut NonceGenerator, master: &mut Aes128Siv, cookies: usize) -> Self {
        let mut this = Self {
            cookie_nonce: [0; 16],
            cookie_sealed: [0; 80],
            request: vec![0; 84 + COOKIE_FIELD_BYTES * cookies],
            request_nonce: [0; 16],
            request_tag: [0; 16],
        };
        let mut keys = [0; 64];
        random.fill(&mut keys);
        random.fill(&mut this.cookie_nonce);
        random.fill(&mut this.request);
        random.fill(&mut this.request_nonce);
        let sealed = &mut this.cookie_sealed[16..];
        sealed.copy_from_slice(&keys);
        let tag = master
            .encrypt_inout_detached([&[][..], &this.cookie_nonce], sealed.into())
            .expect("two components");
        this.cookie_sealed[..16].copy_from_slice(&tag);
        let c2s = keys[..32].try_into().expect("32 bytes");
        let tag = Aes128Siv::new(c2s)
            .encrypt_inout_detached([&this.request[..], &this.request_nonce], (&mut [][..]).into())
            .expect("two components");
        this.request_tag = tag.into();
        this
    }
}

/// A batch through the interface of timeball.
fn answer(aead: &mut Aead, world: &mut World, first: usize, batch: usize) {
    for (_, stage) in STAGES {
        stage(aead, world, first, batch);
    }
}

fn open(aead: &mut Aead, world: &mut World, first: usize, batch: usize) {
    let mut opening = ArrayVec::<_, BATCH_MAX>::new();
    let lanes = &world.associations[first..first + batch];
    for (lane, slot) in lanes.iter().zip(&mut world.slots) {
        opening.push(CookieOpen {
            key: &world.master,
            nonce: &lane.cookie_nonce,
            sealed: &lane.cookie_sealed,
            plain: &mut slot.keys,
            passed: false,
        });
    }
    aead.open_cookies(&mut opening);
    assert!(opening.iter().all(|job| job.passed));
}

fn verify(aead: &mut Aead, world: &mut World, first: usize, batch: usize) {
    let mut verifying = ArrayVec::<_, BATCH_MAX>::new();
    let lanes = &mut world.associations[first..first + batch];
    for (lane, slot) in lanes.iter_mut().zip(&world.slots) {
        verifying.push(RequestVerify {
            algorithm: Algorithm::AesSivCmac256,
            key: &slot.keys[..32],
            nonce: &lane.request_nonce,
            associated_data: &lane.request,
            sealed: &mut lane.request_tag,
            passed: false,
        });
    }
    aead.verify_requests(&mut verifying);
    assert!(verifying.iter().all(|job| job.passed));
}

/// Fresh cookies, written where the reply's text wants them.
fn renew(aead: &mut Aead, world: &mut World, _: usize, batch: usize) {
    let mut making = ArrayVec::<_, { 8 * BATCH_MAX }>::new();
    for slot in &mut world.slots[..batch] {
        for field in slot.reply_text[16..].chunks_exact_mut(COOKIE_FIELD_BYTES) {
            field[..8].copy_from_slice(&COOKIE_FIELD_HEADER);
            let (nonce, sealed) = field[8..].split_at_mut(16);
            world.nonces.fill(nonce);
            making.push(CookieMake { key: &world.master, nonce, plain: &slot.keys, sealed });
        }
    }
    aead.make_cookies(&mut making);
}

fn seal(aead: &mut Aead, world: &mut World, _: usize, batch: usize) {
    let mut sealing = ArrayVec::<_, BATCH_MAX>::new();
    for slot in &mut world.slots[..batch] {
        world.nonces.fill(&mut slot.reply_nonce);
        sealing.push(ReplySeal {
            algorithm: Algorithm::AesSivCmac256,
            key: &slot.keys[32..],
            nonce: &slot.reply_nonce,
            associated_data: &slot.reply_header,
            text: &mut slot.reply_text,
        });
    }
    aead.seal_replies(&mut sealing);
}

/// A request through the crate: the master key prepared once, the client's keys for each request.
fn answer_obviously(world: &mut World, first: usize) {
    let (master, lane) = (&mut world.obvious_master, &world.associations[first]);
    let slot = &mut world.slots[first % BATCH_MAX];
    slot.keys.copy_from_slice(&lane.cookie_sealed[16..]);
    let tag = Tag::from(*lane.cookie_sealed.first_chunk().expect("16 bytes"));
    let components = [&[][..], &lane.cookie_nonce];
    let opened = master.decrypt_inout_detached(components, slot.keys.as_mut_slice().into(), &tag);
    assert!(opened.is_ok());
    let (c2s, s2c) = slot.keys.split_at(32);
    let verified = Aes128Siv::new_from_slice(c2s).expect("32 bytes").decrypt_inout_detached(
        [&lane.request[..], &lane.request_nonce],
        (&mut [][..]).into(),
        &Tag::from(lane.request_tag),
    );
    assert!(verified.is_ok());
    for field in slot.reply_text[16..].chunks_exact_mut(COOKIE_FIELD_BYTES) {
        field[..8].copy_from_slice(&COOKIE_FIELD_HEADER);
        let (nonce, sealed) = field[8..].split_at_mut(16);
        world.nonces.fill(nonce);
        let (tag, text) = sealed.split_at_mut(16);
        text.copy_from_slice(&slot.keys);
        let made = master.encrypt_inout_detached([&[][..], nonce], text.into());
        tag.copy_from_slice(&made.expect("two components"));
    }
    world.nonces.fill(&mut slot.reply_nonce);
    let (tag, text) = slot.reply_text.split_at_mut(16);
    let sealed = Aes128Siv::new_from_slice(s2c)
        .expect("32 bytes")
        .encrypt_inout_detached([&slot.reply_header[..], &slot.reply_nonce], text.into());
    tag.copy_from_slice(&sealed.expect("two components"));
}

/// AES blocks of one request, a key schedule counted as a block.
fn aes_blocks(cookies: usize) -> usize {
    let text = (COOKIE_FIELD_BYTES * cookies).div_ceil(16);
    let cookie = 1 + 4 + 4; // nonce, CMAC and CTR of 64 bytes
    let verify = 1 + 3 + (84 + COOKIE_FIELD_BYTES * cookies).div_ceil(16) + 1;
    let seal = 2 + 3 + 84usize.div_ceil(16) + 2 * text;
    cookie + verify + cookies * cookie + seal
}

/// Nanoseconds of one AES block where nothing waits for anything.
fn block_time() -> f64 {
    let cipher = aes::Aes128::new(&[1; 16].into());
    let mut blocks = vec![Array::from([0; 16]); 1024];
    let (start, repeats) = (CpuTime::now(), 100);
    for _ in 0..repeats {
        cipher.encrypt_blocks(black_box(&mut blocks));
    }
    start.elapsed().as_nanos() as f64 / (repeats * blocks.len()) as f64
}

/// The nonce generator alone.
fn nonces(rounds: usize) -> String {
    let mut generator = NonceGenerator::new().expect("the kernel has random bytes");
    let mut times = vec![];
    for _ in 0..rounds {
        let (start, count, mut nonce) = (CpuTime::now(), 100_000, [0; 16]);
        for _ in 0..count {
            generator.fill(black_box(&mut nonce));
        }
        times.push(start.elapsed().as_nanos() as f64 / f64::from(count));
    }
    let (time, low, high) = quartiles(&times);
    format!("\nnonces of 16 bytes: {time:.2} ns ({low:.2}-{high:.2})\n")
}

/// Different keys, cookies and requests: ten times the first-level cache. Keys and replies lie in
/// buffers that every batch uses again, as in the server.
const ASSOCIATIONS: usize = 1024;

/// The stages of the engine, and how to run one of them alone (the others having run before).
const STAGES: [(&str, Stage); 4] =
    [("open", open), ("verify", verify), ("renew", renew), ("seal", seal)];

type Stage = fn(&mut Aead, &mut World, usize, usize);

const BATCHES: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
const BATCH_MAX: usize = 64;

/// Long enough for the clock, short enough that a disturbance spoils one window only.
const WINDOW: Duration = Duration::from_millis(3);

/// Type and length, key id, nonce, tag, two keys of 32 bytes.
const COOKIE_FIELD_BYTES: usize = 4 + 4 + 16 + 16 + 64;

/// NTS Cookie (RFC 8915 section 5.4), 104 bytes, key 1.
const COOKIE_FIELD_HEADER: [u8; 8] = [0x02, 0x04, 0, 104, 0, 0, 0, 1];
