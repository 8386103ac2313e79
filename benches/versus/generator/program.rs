//! The BPF program that turns each frame of the test runner into the next request.
//!
//! ```text
//! elapsed = now − start                     in bursts: rounded down to 2¹⁶ ns
//! due = elapsed × rate / 2³⁰                requests that should have left by now
//! if pace.sent ≥ due: drop this frame       (not yet)
//! copy frames[pace.sent mod count] into the frame; pace.sent += 1
//! redirect the frame to the interface
//! ```

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::Arrivals;
use crate::bpf::Map;

/// What the program sends, and where.
pub(crate) struct Frames<'a> {
    /// One frame an entry.
    pub(crate) frames: &'a Map,
    /// Entries, a power of two.
    pub(crate) count: u32,
    /// Length of each frame.
    pub(crate) bytes: u32,
    /// One [`Pace`].
    pub(crate) pace: &'a Map,
    /// How the requests follow each other.
    pub(crate) arrivals: Arrivals,
    /// Index of the interface to send to.
    pub(crate) interface: u32,
}

/// What the program counts and obeys: three numbers of 64 bits.
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

    /// How many were sent, by the bytes of a pace.
    pub(crate) fn sent(bytes: &[u8]) -> u64 {
        u64::from_ne_bytes(*bytes.first_chunk().expect("a pace"))
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

pub(crate) fn assemble(what: &Frames<'_>) -> Vec<Instruction> {
    let tick = match what.arrivals {
        Arrivals::Steady => -1,
        Arrivals::Bursts => -1 << 16,
    };
    let mut program = vec![move_register(CONTEXT, 1)];
    program.extend(load_map(PACE, 2, what.pace));
    program.extend([
        call(HELPER_KTIME_GET_NS),
        load(1, PACE, 8),
        code(0x1f, 0, 1, 0, 0), // elapsed = now - start
        code(0x57, 0, 0, 0, tick),
        load(1, PACE, 16),
        code(0x2f, 0, 1, 0, 0),  // × rate
        code(0x77, 0, 0, 0, 30), // / 2^30
        load(SENT, PACE, 0),
        code(0x3d, SENT, 0, 20, 0), // sent ≥ due: to the drop at the end
        move_register(1, SENT),
        code(0x07, 1, 0, 0, 1),
        store(PACE, 0, 1), // one sender: no need for an atomic addition
        code(0x57, SENT, 0, 0, what.count as i32 - 1),
        store_32(STACK, -4, SENT),
    ]);
    program.extend(load_map(1, 1, what.frames));
    program.extend([
        move_register(2, STACK),
        code(0x07, 2, 0, 0, -4),
        call(HELPER_MAP_LOOKUP),
        code(0x15, 0, 0, 9, 0), // no such entry: to the drop
        move_register(1, CONTEXT),
        move_number(2, 0),
        move_register(3, 0),
        move_number(4, what.bytes as i32),
        call(HELPER_XDP_STORE_BYTES),
        move_number(1, what.interface as i32),
        move_number(2, 0),
        call(HELPER_REDIRECT),
        EXIT,
        move_number(0, XDP_DROP),
        EXIT,
    ]);
    program
}
