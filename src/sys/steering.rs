//! Steering of datagrams to the sockets of one address (`SO_ATTACH_REUSEPORT_CBPF`, socket(7)).
//!
//! Clients change their source port at every poll (RFC 9109). The kernel's own choice hashes the
//! port too and would scatter a client over the workers; ours hashes the source address alone, so
//! that one client always meets one worker and state about it needs no sharing.

use std::io;
use std::net::{IpAddr, UdpSocket};

use super::option;

/// Steers what comes to the group that `socket` belongs to, of `sockets` sockets bound to one
/// address in the order of their workers. `multiplier` has to be odd and random, or strangers
/// could choose addresses that all meet one worker.
pub fn steer_by_source_address(
    socket: &UdpSocket,
    sockets: usize,
    multiplier: u32,
) -> io::Result<()> {
    let is_ipv6 = matches!(socket.local_addr()?.ip(), IpAddr::V6(_));
    let mut program = if is_ipv6 { load_ipv6_source() } else { load_ipv4_source() };
    program.extend(choose(sockets as u32, multiplier));
    attach(socket, &mut program)
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

/// Returns (accumulator × multiplier) >> 16 modulo the number of sockets: the high half of a
/// product depends on all bits below it.
fn choose(sockets: u32, multiplier: u32) -> [libc::sock_filter; 4] {
    [
        statement(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, multiplier),
        statement(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 16),
        statement(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, sockets),
        statement(libc::BPF_RET | libc::BPF_A, 0),
    ]
}

/// Accumulator = the word at `offset` of the network header.
fn load_network_word(offset: u32) -> libc::sock_filter {
    let from_network_header = libc::SKF_NET_OFF as u32;
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, from_network_header.wrapping_add(offset))
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
