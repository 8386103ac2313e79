//! Steering of datagrams to the sockets of one address (`SO_ATTACH_REUSEPORT_CBPF`, socket(7)).
//!
//! Clients change their source port at every poll (RFC 9109). The kernel's own choice hashes the
//! port too and would scatter a client over the workers; ours hashes the source address alone, so
//! that one client always meets one worker and state about it needs no sharing.
//!
//! And it tells NTS requests from all else, by what can be seen without a key: each worker has a
//! socket for either, so that a flood of plain requests or of junk fills a queue that no NTS
//! request waits in. Who wants to be in the other queue can; nothing is believed or refused because
//! of it.

use std::io;
use std::net::{IpAddr, UdpSocket};

use super::option;
use crate::wire::extension::{FIELD_HEADER_BYTES, field_type};
use crate::wire::ntp::HEADER_BYTES;

/// What a worker has sockets for, at one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queues {
    /// One for all datagrams.
    Shared,
    /// One for NTS requests and one for all else. In the group those of all workers for all else
    /// come first.
    Apart,
}

/// Steers what comes to the group that `socket` belongs to, bound to one address in the order of
/// its `workers`. `multiplier` has to be odd and random, or strangers could choose addresses that
/// all meet one worker.
pub fn steer(
    socket: &UdpSocket,
    workers: usize,
    queues: Queues,
    multiplier: u32,
) -> io::Result<()> {
    let is_ipv6 = matches!(socket.local_addr()?.ip(), IpAddr::V6(_));
    let mut program = match queues {
        Queues::Shared => vec![constant(0)],
        Queues::Apart => tell_nts_requests(workers as u32),
    };
    program.push(statement(libc::BPF_ST, 0));
    program.extend(if is_ipv6 { load_ipv6_source() } else { load_ipv4_source() });
    program.extend(choose(workers as u32, multiplier));
    attach(socket, &mut program)
}

/// Accumulator = `workers` if an NTS extension field stands behind the header, and 0 if not. Every
/// client that we know puts its Unique Identifier or its cookie there; RFC 8915 section 5.7 leaves
/// the order open, so that another one's requests wait with all else. What is too short to have
/// any ends the look, since a load beyond the end would end the program.
fn tell_nts_requests(workers: u32) -> Vec<libc::sock_filter> {
    let (unique_identifier, cookie) = (field_type::UNIQUE_IDENTIFIER, field_type::NTS_COOKIE);
    vec![
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_LEN, 0),
        jump(libc::BPF_JGE, (HEADER_BYTES + FIELD_HEADER_BYTES) as u32, 0, 5),
        // The kernel has pulled the headers of IP and UDP off.
        statement(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, HEADER_BYTES as u32),
        jump(libc::BPF_JEQ, unique_identifier.into(), 1, 0),
        jump(libc::BPF_JEQ, cookie.into(), 0, 2),
        constant(workers),
        statement(libc::BPF_JMP | libc::BPF_JA, 1),
        constant(0),
    ]
}

/// Accumulator = source address (RFC 791 section 3.1).
fn load_ipv4_source() -> Vec<libc::sock_filter> {
    vec![load_network_word(12)]
}

/// Accumulator = the four words of the source address (RFC 8200 section 3), each mixed into the
/// next: hosts of one network differ in the last words only, and in more than one bit.
fn load_ipv6_source() -> Vec<libc::sock_filter> {
    let mut program = vec![load_network_word(8)];
    for offset in [12, 16, 20] {
        program.push(statement(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, MIXER));
        program.push(statement(libc::BPF_MISC | libc::BPF_TAX, 0));
        program.push(load_network_word(offset));
        program.push(statement(libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X, 0));
    }
    program
}

/// Returns what was stored + (accumulator × multiplier) >> 16 modulo the number of workers: the
/// high half of a product depends on all bits below it.
fn choose(workers: u32, multiplier: u32) -> [libc::sock_filter; 6] {
    [
        statement(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, multiplier),
        statement(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 16),
        statement(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, workers),
        statement(libc::BPF_LDX | libc::BPF_MEM, 0),
        statement(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X, 0),
        statement(libc::BPF_RET | libc::BPF_A, 0),
    ]
}

/// Accumulator = the word at `offset` of the network header.
fn load_network_word(offset: u32) -> libc::sock_filter {
    let from_network_header = libc::SKF_NET_OFF as u32;
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, from_network_header.wrapping_add(offset))
}

fn constant(number: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_IMM, number)
}

/// Skips so many statements if the accumulator and `k` compare so, or else.
fn jump(comparison: u32, k: u32, if_true: u8, if_false: u8) -> libc::sock_filter {
    let code = libc::BPF_JMP | comparison | libc::BPF_K;
    libc::sock_filter { jt: if_true, jf: if_false, ..statement(code, k) }
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn attach(socket: &UdpSocket, program: &mut [libc::sock_filter]) -> io::Result<()> {
    // The kernel reads the program through this pointer, and copies it, within the call.
    let filter =
        libc::sock_fprog { len: program.len() as libc::c_ushort, filter: program.as_mut_ptr() };
    // "defines how packets are assigned to the sockets in the reuseport group"
    option::set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &filter)
}

/// An odd number without pattern (2³² divided by the golden ratio).
const MIXER: u32 = 0x9e37_79b1;
