//! The few commands of bpf(2) that the generator needs.
#![allow(unsafe_code, reason = "no crate in use wraps BPF_PROG_TEST_RUN with live frames")]

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use crate::program::Instruction;

/// An array map.
pub(crate) struct Map {
    descriptor: OwnedFd,
    value_bytes: usize,
}

/// A loaded XDP program, attached to nothing.
pub(crate) struct Program {
    descriptor: OwnedFd,
}

/// Frames that the test runner hands over together, as an interface's interrupt would.
const BATCH_FRAMES: u32 = 64;

impl Map {
    /// `entries` values of `value_bytes`, all zero.
    pub(crate) fn array(value_bytes: usize, entries: u32) -> io::Result<Self> {
        let mut attributes = MapCreate {
            map_type: MAP_TYPE_ARRAY,
            key_size: 4,
            value_size: value_bytes as u32,
            max_entries: entries,
            map_flags: 0,
        };
        let descriptor = descriptor(bpf(MAP_CREATE, &mut attributes)?);
        Ok(Self { descriptor, value_bytes })
    }

    pub(crate) fn write(&self, index: u32, value: &[u8]) -> io::Result<()> {
        assert_eq!(value.len(), self.value_bytes);
        bpf(MAP_UPDATE_ELEM, &mut self.element(&index, value.as_ptr()))?;
        Ok(())
    }

    pub(crate) fn read(&self, index: u32) -> io::Result<Vec<u8>> {
        // The kernel writes whole words of 8 bytes.
        let mut value = vec![0; self.value_bytes.next_multiple_of(8)];
        bpf(MAP_LOOKUP_ELEM, &mut self.element(&index, value.as_mut_ptr()))?;
        Ok(value)
    }

    pub(crate) fn descriptor(&self) -> i32 {
        self.descriptor.as_raw_fd()
    }

    fn element(&self, index: &u32, value: *const u8) -> MapElement {
        MapElement {
            map_fd: self.descriptor.as_raw_fd() as u32,
            padding: 0,
            key: std::ptr::from_ref(index) as u64,
            value: value as u64,
            flags: 0,
        }
    }
}

impl Program {
    /// Loads an XDP program; the error carries what the kernel's verifier says.
    pub(crate) fn load_xdp(instructions: &[Instruction]) -> io::Result<Self> {
        let license = c"MIT OR Apache-2.0";
        let mut log = vec![0_u8; 65_536];
        let mut attributes = ProgramLoad {
            prog_type: PROG_TYPE_XDP,
            insn_cnt: instructions.len() as u32,
            insns: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            log_level: 1,
            log_size: log.len() as u32,
            log_buf: log.as_mut_ptr() as u64,
        };
        match bpf(PROG_LOAD, &mut attributes) {
            Ok(number) => Ok(Self { descriptor: descriptor(number) }),
            Err(error) => {
                let end = log.iter().position(|byte| *byte == 0).unwrap_or(0);
                let log = String::from_utf8_lossy(&log[..end]);
                Err(io::Error::new(error.kind(), format!("BPF program: {error}\n{log}")))
            }
        }
    }

    /// Runs the program over one frame after the other until a signal comes. A call costs the
    /// kernel some milliseconds before and after.
    pub(crate) fn run_live(&self, frame_bytes: usize) -> io::Result<()> {
        let frame = vec![0_u8; frame_bytes];
        let mut attributes = ProgramTestRun {
            prog_fd: self.descriptor.as_raw_fd() as u32,
            data_size_in: frame_bytes as u32,
            data_in: frame.as_ptr() as u64,
            repeat: u32::MAX,
            flags: TEST_XDP_LIVE_FRAMES,
            batch_size: BATCH_FRAMES,
            ..ProgramTestRun::default()
        };
        match bpf(PROG_TEST_RUN, &mut attributes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result.map(|_| ()),
        }
    }
}

// `enum bpf_cmd`, `enum bpf_map_type`, `enum bpf_prog_type` and flags (`linux/bpf.h`).
const MAP_CREATE: i32 = 0;
const MAP_LOOKUP_ELEM: i32 = 1;
const MAP_UPDATE_ELEM: i32 = 2;
const PROG_LOAD: i32 = 5;
const PROG_TEST_RUN: i32 = 10;
const MAP_TYPE_ARRAY: u32 = 2;
const PROG_TYPE_XDP: u32 = 6;
const TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;

// The leading fields of the members of `union bpf_attr`; the kernel takes the rest as zero.

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

#[repr(C)]
struct MapElement {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgramLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
}

#[derive(Default)]
#[repr(C)]
struct ProgramTestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// The call itself. Every address in `attributes` is that of a buffer which the caller holds, of
/// the length that the other fields (or the map's creation) say.
fn bpf<T>(command: i32, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `attributes` is a member of `union bpf_attr` with its own size, and the functions
    // above, its only callers, keep what it points to alive over the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>())
    };
    i32::try_from(result).ok().filter(|number| *number >= 0).ok_or_else(io::Error::last_os_error)
}

fn descriptor(number: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(number) }
}
