//! The cryptography of an NTS request, from cookie to sealed reply, per back end and batch size,
//! beside the `aes-siv` and `aes-gcm-siv` crates used the obvious way in the same run.
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
//! request has its own keys and cookie, drawn in turn from 1024 associations, so that nothing is
//! hot but the code. Per request: open the cookie, verify (associated data 84 + f k bytes, empty
//! plaintext), draw nonces, make k cookies, seal the reply (associated data 84 bytes, text f k
//! bytes); a cookie's field has f = 104 bytes for clients of AEAD 15 and 72 for those of AEAD 30,
//! or 68 if the master key is of AEAD 30 too. Arms take turns within each round, and each round
//! starts with another arm; median and quartiles over the rounds are printed. Time is the thread's
//! CPU time.
//!
//! `--quick` takes fewer rounds, `--only VAES-512:32` one arm beside the crate (for a profiler).
//!
//! The floor is the request's AES blocks, key schedules counted as one block each, at the speed of
//! `aes::Aes128::encrypt_blocks` (one key, no dependencies) in the same run. A block of POLYVAL is
//! counted as half a block of AES: five products against ten rounds.

mod common;

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use aes::cipher::{Array, BlockCipherEncrypt};
use aes_gcm_siv::Aes128GcmSiv;
use aes_siv::aead::AeadInOut;
use aes_siv::siv::Aes128Siv;
use aes_siv::{KeyInit, Tag};
use arrayvec::ArrayVec;
use common::{host_facts, is_asked, publish, quartiles};
use rustix::time::{ClockId, clock_gettime};
use timeball::aead::{
    Aead, Algorithm, Backend, CookieMake, CookieOpen, MasterKey, NonceGenerator, ReplySeal,
    RequestVerify, TAG_BYTES,
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
    for set in SETS {
        section(&mut table, set, rounds, &only);
    }
    table += &nonces(rounds);
    publish(&table);
}

/// What clients and server agree on.
#[derive(Clone, Copy)]
struct Set {
    master: Algorithm,
    client: Algorithm,
    cookies: usize,
}

const SETS: [Set; 5] = {
    const SIV: Algorithm = Algorithm::AesSivCmac256;
    const GCM_SIV: Algorithm = Algorithm::Aes128GcmSiv;
    [
        Set { master: SIV, client: SIV, cookies: 1 },
        Set { master: SIV, client: SIV, cookies: 8 },
        Set { master: SIV, client: GCM_SIV, cookies: 1 },
        Set { master: SIV, client: GCM_SIV, cookies: 8 },
        Set { master: GCM_SIV, client: GCM_SIV, cookies: 1 },
    ]
};

impl Set {
    /// Type and length, key id, nonce, tag, two keys.
    fn field_bytes(self) -> usize {
        4 + 4 + self.master.nonce_bytes() + TAG_BYTES + 2 * self.client.key_bytes()
    }

    /// Bytes of all cookies in a reply, and of cookie and placeholders in a request.
    fn text_bytes(self) -> usize {
        self.field_bytes() * self.cookies
    }

    /// AES blocks of one request, a key schedule counted as a block, one of POLYVAL as half.
    fn aes_blocks(self) -> f64 {
        let blocks = |bytes: usize| bytes.div_ceil(16) as f64;
        let (keys, text) = (blocks(2 * self.client.key_bytes()), blocks(self.text_bytes()));
        let (request, header) = (blocks(HEADER_BYTES + self.text_bytes()), blocks(HEADER_BYTES));
        let cookie = match self.master {
            // Nonce, CMAC, CTR.
            Algorithm::AesSivCmac256 => 1.0 + keys + keys,
            // Derivation, schedule, POLYVAL and lengths, tag, CTR.
            _ => 4.0 + 1.0 + (keys + 1.0) / 2.0 + 1.0 + keys,
        };
        let client = match self.client {
            // Schedules, CMAC of zeros, nonce and itself, messages, CTR.
            Algorithm::AesSivCmac256 => 1.0 + 3.0 + request + 1.0 + 2.0 + 3.0 + header + 2.0 * text,
            // Schedules, derivations, tags, POLYVAL, CTR.
            _ => 2.0 * (2.0 + 4.0 + 1.0) + (request + header + text + 2.0) / 2.0 + text,
        };
        cookie * (1 + self.cookies) as f64 + client
    }
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

fn section(table: &mut String, set: Set, rounds: usize, only: &str) {
    let mut world = World::new(set);
    let mut arms = vec![Arm {
        name: "crates".into(),
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
    let floor = quartiles(&block_times).0 * set.aes_blocks();
    print_section(table, set, &mut arms, floor);
}

fn print_section(table: &mut String, set: Set, arms: &mut [Arm], floor: f64) {
    let (blocks, cookies) = (set.aes_blocks(), set.cookies);
    let (client, master) = (set.client.id(), set.master.id());
    let _ = writeln!(
        table,
        "\nAEAD {client} under master keys of AEAD {master}, {cookies} cookie(s): \
         {blocks} AES blocks a request, floor {floor:.0} ns\n\n\
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
    set: Set,
    master: MasterKey,
    obvious_master: Obvious,
    nonces: NonceGenerator,
    associations: Vec<Association>,
    slots: Vec<Slot>,
}

/// A client's request, as it arrives.
struct Association {
    cookie_nonce: Vec<u8>,
    cookie_sealed: Vec<u8>,
    request: Vec<u8>,
    request_nonce: Vec<u8>,
    request_tag: [u8; TAG_BYTES],
}

/// What a server keeps for each place of a batch and uses again: keys and reply.
#[derive(Clone)]
struct Slot {
    keys: Vec<u8>,
    reply_header: [u8; HEADER_BYTES],
    reply_nonce: Vec<u8>,
    reply_text: Vec<u8>,
}

impl World {
    fn new(set: Set) -> Self {
        let mut nonces = NonceGenerator::from_seed(&[7; 32]);
        let key = vec![0x42; set.master.key_bytes()];
        let master = MasterKey::new(1, set.master, &key).expect("as many bytes");
        let mut obvious_master = Obvious::new(set.master, &key);
        let associations = (0..ASSOCIATIONS)
            .map(|_| Association::new(&mut nonces, &mut obvious_master, set))
            .collect();
        let slot = Slot {
            keys: vec![0; 2 * set.client.key_bytes()],
            reply_header: [0x24; HEADER_BYTES],
            reply_nonce: vec![0; set.client.nonce_bytes()],
            reply_text: vec![0; TAG_BYTES + set.text_bytes()],
        };
        Self { set, master, obvious_master, nonces, associations, slots: vec![slot; BATCH_MAX] }
    }
}

impl Association {
    fn new(random: &mut NonceGenerator, master: &mut Obvious, set: Set) -> Self {
        let mut drawn = |bytes| {
            let mut drawn = vec![0; bytes];
            random.fill(&mut drawn);
            drawn
        };
        let keys = drawn(2 * set.client.key_bytes());
        let mut this = Self {
            cookie_nonce: drawn(set.master.nonce_bytes()),
            cookie_sealed: vec![0; TAG_BYTES + keys.len()],
            request: drawn(HEADER_BYTES + set.text_bytes()),
            request_nonce: drawn(set.client.nonce_bytes()),
            request_tag: [0; TAG_BYTES],
        };
        let (tag, text) = split(set.master, &mut this.cookie_sealed);
        text.copy_from_slice(&keys);
        *tag = master.seal(&this.cookie_nonce, &[], text);
        let mut client = Obvious::new(set.client, &keys[..keys.len() / 2]);
        this.request_tag = client.seal(&this.request_nonce, &this.request, &mut []);
        this
    }
}

/// The tag and the rest of a sealed text.
fn split(algorithm: Algorithm, text: &mut [u8]) -> (&mut [u8; TAG_BYTES], &mut [u8]) {
    let ends = match algorithm {
        Algorithm::Aes128GcmSiv => text.split_last_chunk_mut().map(|(rest, tag)| (tag, rest)),
        _ => text.split_first_chunk_mut(),
    };
    ends.expect("room for the tag")
}

/// A cipher of the crates, ready to use.
enum Obvious {
    Siv(Aes128Siv),
    GcmSiv(Aes128GcmSiv),
}

impl Obvious {
    fn new(algorithm: Algorithm, key: &[u8]) -> Self {
        match algorithm {
            Algorithm::Aes128GcmSiv => {
                Self::GcmSiv(Aes128GcmSiv::new_from_slice(key).expect("16 bytes"))
            }
            _ => Self::Siv(Aes128Siv::new_from_slice(key).expect("32 bytes")),
        }
    }

    fn seal(&mut self, nonce: &[u8], data: &[u8], text: &mut [u8]) -> [u8; TAG_BYTES] {
        let tag = match self {
            Self::Siv(cipher) => cipher.encrypt_inout_detached([data, nonce], text.into()),
            Self::GcmSiv(cipher) => {
                let nonce = nonce.try_into().expect("12 bytes");
                cipher.encrypt_inout_detached(nonce, data, text.into())
            }
        };
        tag.expect("short").into()
    }

    fn open(&mut self, nonce: &[u8], data: &[u8], text: &mut [u8], tag: &[u8; TAG_BYTES]) {
        let tag = Tag::from(*tag);
        let opened = match self {
            Self::Siv(cipher) => cipher.decrypt_inout_detached([data, nonce], text.into(), &tag),
            Self::GcmSiv(cipher) => {
                let nonce = nonce.try_into().expect("12 bytes");
                cipher.decrypt_inout_detached(nonce, data, text.into(), &tag)
            }
        };
        assert!(opened.is_ok());
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
            algorithm: world.set.client,
            key: &slot.keys[..slot.keys.len() / 2],
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
        let (_, text) = split(world.set.client, &mut slot.reply_text);
        for field in text.chunks_exact_mut(world.set.field_bytes()) {
            field[..8].copy_from_slice(&COOKIE_FIELD_HEADER);
            let (nonce, sealed) = field[8..].split_at_mut(world.set.master.nonce_bytes());
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
            algorithm: world.set.client,
            key: &slot.keys[slot.keys.len() / 2..],
            nonce: &slot.reply_nonce,
            associated_data: &slot.reply_header,
            text: &mut slot.reply_text,
        });
    }
    aead.seal_replies(&mut sealing);
}

/// A request through the crates: the master key prepared once, the client's keys for each request.
fn answer_obviously(world: &mut World, first: usize) {
    let World { set, obvious_master: master, nonces, associations, slots, .. } = world;
    let (lane, slot) = (&mut associations[first], &mut slots[first % BATCH_MAX]);
    let (tag, text) = split(set.master, &mut lane.cookie_sealed);
    slot.keys.copy_from_slice(text);
    master.open(&lane.cookie_nonce, &[], &mut slot.keys, tag);
    let (c2s, s2c) = slot.keys.split_at(set.client.key_bytes());
    let mut client = Obvious::new(set.client, c2s);
    client.open(&lane.request_nonce, &lane.request, &mut [], &lane.request_tag);
    let (reply_tag, reply) = split(set.client, &mut slot.reply_text);
    for field in reply.chunks_exact_mut(set.field_bytes()) {
        field[..8].copy_from_slice(&COOKIE_FIELD_HEADER);
        let (nonce, sealed) = field[8..].split_at_mut(set.master.nonce_bytes());
        nonces.fill(nonce);
        let (tag, text) = split(set.master, sealed);
        text.copy_from_slice(&slot.keys);
        *tag = master.seal(nonce, &[], text);
    }
    nonces.fill(&mut slot.reply_nonce);
    *reply_tag = Obvious::new(set.client, s2c).seal(&slot.reply_nonce, &slot.reply_header, reply);
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

/// An NTP header and a unique identifier of 32 bytes.
const HEADER_BYTES: usize = 48 + 4 + 32;

/// NTS Cookie (RFC 8915 section 5.4), 104 bytes, key 1.
const COOKIE_FIELD_HEADER: [u8; 8] = [0x02, 0x04, 0, 104, 0, 0, 0, 1];
