//! The BPF program that turns each frame of the test runner into the next request.
//!
//! ```text
//! for each stream:
//!     elapsed = now − start                 in bursts: rounded down to 2¹⁶ ns
//!     due = elapsed × rate / 2³⁰            requests that should have left by now
//!     if sent ≥ due: the next stream        (not yet)
//!     if sent + patience < due: start = now − sent × 2³⁰ / rate
//!     copy frames[sent mod count] into the frame; sent += 1
//!     redirect the frame to the interface
//! drop the frame
//! ```
//!
//! The first stream goes first: a flood fills what it leaves.

use std::io;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::Arrivals;
use crate::bpf::Map;

/// What the program sends, and where.
pub(crate) struct Task<'a> {
    pub(crate) streams: &'a [&'a Deck],
    /// A [`Pace`] of each stream, one behind the other.
    pub(crate) pace: &'a Map,
    /// How the requests follow each other.
    pub(crate) arrivals: Arrivals,
    /// Requests that may be late and leave together then; those beyond never leave. None for all.
    pub(crate) patience: Option<i32>,
    /// Index of the interface to send to.
    pub(crate) interface: u32,
}

/// Frames of one length that are sent in turn, each with the time when it was sent last.
pub(crate) struct Deck {
    map: Map,
    /// Frames, a power of two.
    count: usize,
    frame_bytes: usize,
}

impl Deck {
    /// Of a power of two of frames.
    pub(crate) fn of<'a>(frames: impl ExactSizeIterator<Item = &'a [u8]>) -> io::Result<Self> {
        let mut frames = frames.enumerate().peekable();
        let frame_bytes = frames.peek().expect("a frame").1.len();
        let value_bytes = frame_bytes.next_multiple_of(8) + 8;
        let count = frames.len();
        let deck = Self { map: Map::array(value_bytes, count as u32)?, count, frame_bytes };
        frames.try_for_each(|(index, frame)| deck.write(index, frame))?;
        Ok(deck)
    }

    pub(crate) fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// Changes a frame.
    pub(crate) fn write(&self, index: usize, frame: &[u8]) -> io::Result<()> {
        assert_eq!(frame.len(), self.frame_bytes);
        let mut value = frame.to_vec();
        value.resize(self.departure_at() + 8, 0);
        self.map.write(index as u32, &value)
    }

    /// When the frame was sent last, by the monotonic clock.
    pub(crate) fn departure(&self, index: usize) -> io::Result<Duration> {
        let value = self.map.read(index as u32)?;
        let nanoseconds = value[self.departure_at()..].first_chunk().expect("it has one");
        Ok(Duration::from_nanos(u64::from_ne_bytes(*nanoseconds)))
    }

    /// Where in a value the departure stands.
    fn departure_at(&self) -> usize {
        self.frame_bytes.next_multiple_of(8)
    }
}

/// What the program counts and obeys of a stream: three numbers of 64 bits.
pub(crate) struct Pace {
    sent: u64,
    start_ns: u64,
    /// Requests in 2³⁰ ns.
    rate: u64,
}

pub(crate) const PACE_BYTES: usize = 24;

/// So that `elapsed × rate` fits 64 bits for minutes.
const RATE_MAX: u64 = 100_000_000;

impl Pace {
    /// `per_second` requests from now on; 0 is without limit.
    pub(crate) fn starting_now(per_second: u64) -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
        let per_second = if per_second == 0 { RATE_MAX } else { per_second.min(RATE_MAX) };
        let rate = (u128::from(per_second) << 30) / 1_000_000_000;
        Self { sent: 0, start_ns: now.as_nanos() as u64, rate: rate as u64 }
    }

    pub(crate) fn to_bytes(&self) -> [u8; PACE_BYTES] {
        let mut bytes = [0; PACE_BYTES];
        for (place, number) in bytes.chunks_exact_mut(8).zip([self.sent, self.start_ns, self.rate])
        {
            place.copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }

    /// How many of each stream were sent, by the bytes of their paces.
    pub(crate) fn sent(bytes: &[u8]) -> Vec<u64> {
        let paces = bytes.chunks_exact(PACE_BYTES);
        paces.map(|pace| u64::from_ne_bytes(*pace.first_chunk().expect("a pace"))).collect()
    }
}

/// One instruction (`struct bpf_insn`).
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Instruction {
    code: u8,
    /// Destination in the low, source in the high four bits.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn code(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: source << 4 | destination, offset, immediate }
}

// Registers: arguments and results 0 to 5, ours 6 to 9, the stack's end 10.
const CONTEXT: u8 = 6;
const PACE: u8 = 7;
const SENT: u8 = 8;
const NOW: u8 = 9;
const STACK: u8 = 10;

// Operations (`linux/bpf_common.h`, `linux/bpf.h`), each with the operands used here.
const fn move_register(to: u8, from: u8) -> Instruction {
    code(0xbf, to, from, 0, 0)
}
const fn move_number(to: u8, number: i32) -> Instruction {
    code(0xb7, to, 0, 0, number)
}
const fn load(to: u8, from: u8, offset: i16) -> Instruction {
    code(0x79, to, from, offset, 0)
}
const fn store(to: u8, offset: i16, from: u8) -> Instruction {
    code(0x7b, to, from, offset, 0)
}
const fn store_32(to: u8, offset: i16, from: u8) -> Instruction {
    code(0x63, to, from, offset, 0)
}
const fn call(helper: i32) -> Instruction {
    code(0x85, 0, 0, 0, helper)
}
const EXIT: Instruction = code(0x95, 0, 0, 0, 0);

/// A map, or the address of the first value of an array: 1 or 2 in the place of the source.
fn load_map(to: u8, kind: u8, map: &Map) -> [Instruction; 2] {
    [code(0x18, to, kind, 0, map.descriptor()), code(0, 0, 0, 0, 0)]
}

const HELPER_MAP_LOOKUP: i32 = 1;
const HELPER_KTIME_GET_NS: i32 = 5;
const HELPER_REDIRECT: i32 = 23;
const HELPER_XDP_STORE_BYTES: i32 = 190;
const XDP_DROP: i32 = 1;

pub(crate) fn assemble(task: &Task<'_>) -> Vec<Instruction> {
    let mut program = vec![move_register(CONTEXT, 1)];
    program.extend(load_map(PACE, 2, task.pace));
    program.extend([call(HELPER_KTIME_GET_NS), move_register(NOW, 0)]);
    for (place, stream) in task.streams.iter().enumerate() {
        program.extend(send_if_due(task, stream, (place * PACE_BYTES) as i16));
    }
    program.extend([move_number(0, XDP_DROP), EXIT]);
    program
}

/// Sends the next frame of a stream, whose pace is at `pace`, or goes on behind itself.
fn send_if_due(task: &Task<'_>, stream: &Deck, pace: i16) -> Vec<Instruction> {
    let tick = match task.arrivals {
        Arrivals::Steady => -1,
        Arrivals::Bursts => -1 << 16,
    };
    let mut then = hurry(task.patience, pace);
    then.extend([
        move_register(1, SENT),
        code(0x07, 1, 0, 0, 1),
        store(PACE, pace, 1), // one sender: no need for an atomic addition
        code(0x57, SENT, 0, 0, stream.count as i32 - 1),
        store_32(STACK, -4, SENT),
    ]);
    then.extend(load_map(1, 1, &stream.map));
    then.extend([
        move_register(2, STACK),
        code(0x07, 2, 0, 0, -4),
        call(HELPER_MAP_LOOKUP),
        code(0x15, 0, 0, 10, 0), // no such entry: to the end
        store(0, stream.departure_at() as i16, NOW),
        move_register(1, CONTEXT),
        move_number(2, 0),
        move_register(3, 0),
        move_number(4, stream.frame_bytes as i32),
        call(HELPER_XDP_STORE_BYTES),
        move_number(1, task.interface as i32),
        move_number(2, 0),
        call(HELPER_REDIRECT),
        EXIT,
    ]);
    let mut program = vec![
        move_register(0, NOW),
        load(1, PACE, pace + 8),
        code(0x1f, 0, 1, 0, 0), // elapsed = now - start
        code(0x57, 0, 0, 0, tick),
        load(1, PACE, pace + 16),
        code(0x2f, 0, 1, 0, 0),  // × rate
        code(0x77, 0, 0, 0, 30), // / 2^30
        load(SENT, PACE, pace),
        code(0x3d, SENT, 0, then.len() as i16, 0), // sent ≥ due: to the end
    ];
    program.extend(then);
    program
}

/// Lets the stream begin anew, as if it had sent at its pace so far, if more are due than may be
/// late. The rate is in register 1, what is due in register 0.
fn hurry(patience: Option<i32>, pace: i16) -> Vec<Instruction> {
    let Some(patience) = patience else { return Vec::new() };
    vec![
        code(0x1f, 0, SENT, 0, 0),     // due - sent
        code(0xb5, 0, 0, 6, patience), // ≤ patience: behind this
        move_register(0, SENT),
        code(0x67, 0, 0, 0, 30),  // × 2^30
        code(0x3f, 0, 1, 0, 0),   // / rate
        code(0x87, 0, 0, 0, 0),   // its negative
        code(0x0f, 0, NOW, 0, 0), // + now
        store(PACE, pace + 8, 0),
    ]
}
