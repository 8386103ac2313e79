//! Nonces never repeat, across threads, processes and forks, and look like nothing but noise.

#![allow(unsafe_code, reason = "fork(2) has no safe form; the child only draws and exits")]

use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use timeball::aead::NonceGenerator;

type Nonce = [u8; 16];

#[test]
fn generators_of_threads_and_processes_never_repeat() {
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(|| draw_fresh(20_000))).collect();
    let children: Vec<_> = (0..3).map(|_| spawn_child()).collect();
    let mut all: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        let nonces = lines.lines().filter_map(|line| line.split_once("nonce ")).map(|(_, hex)| {
            u128::from_str_radix(hex, 16).expect("the child writes hexadecimal").to_be_bytes()
        });
        let before = all.len();
        all.extend(nonces);
        assert_eq!(all.len() - before, CHILD_NONCES);
    }
    assert_all_differ(&all);
}

/// Not a test of its own: what the spawned children run.
#[test]
fn child_prints_nonces() {
    if std::env::var_os(CHILD_VARIABLE).is_some() {
        let mut lines = String::from("\n");
        for nonce in draw_fresh(CHILD_NONCES) {
            lines += &format!("nonce {:032x}\n", u128::from_be_bytes(nonce));
        }
        std::io::stdout().write_all(lines.as_bytes()).unwrap();
    }
}

#[test]
fn a_forked_child_goes_its_own_way() {
    let mut generator = NonceGenerator::new().unwrap();
    draw(&mut generator, 3);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    // SAFETY: between fork and _exit the child draws nonces and writes to a socket: neither takes
    // a lock that another thread of this test process could hold.
    let process = unsafe { libc::fork() };
    assert!(process >= 0);
    if process == 0 {
        let mut nonces = [0; 16 * FORK_NONCES];
        generator.fill(&mut nonces);
        let status = i32::from((&theirs).write_all(&nonces).is_err());
        // SAFETY: ends the child at once, without the parent's destructors.
        unsafe { libc::_exit(status) };
    }
    drop(theirs);
    let mut all = draw(&mut generator, FORK_NONCES);
    let mut from_child = vec![];
    ours.read_to_end(&mut from_child).unwrap();
    all.extend(from_child.as_chunks::<16>().0);
    assert_eq!(all.len(), 2 * FORK_NONCES);
    assert_all_differ(&all);
}

/// A counter, or a counter under a mask, shows in the distances between neighbours: few bits
/// change, or the same difference comes back.
#[test]
fn nonces_cannot_be_linked() {
    let nonces = draw_fresh(4096);
    assert!(!looks_linkable(&nonces));
    // The check itself can fail: a bare counter, a counter from a random start, one step masked.
    let counter = |start: u128, step: u128| -> Vec<Nonce> {
        (0..4096u128).map(|n| start.wrapping_add(n.wrapping_mul(step)).to_be_bytes()).collect()
    };
    assert!(looks_linkable(&counter(0, 1)));
    assert!(looks_linkable(&counter(u128::from_be_bytes(nonces[0]), 1)));
    assert!(looks_linkable(&counter(u128::from_be_bytes(nonces[1]), 0x9e37_79b9_7f4a_7c15 << 64)));
}

#[test]
fn bits_are_balanced() {
    let nonces = draw_fresh(1 << 16);
    for bit in 0..128 {
        let ones = nonces.iter().filter(|nonce| nonce[bit / 8] >> (bit % 8) & 1 == 1).count();
        // Eight standard deviations (128) around 32768.
        assert!(ones.abs_diff(1 << 15) < 1024, "bit {bit} is set {ones} times in 65536");
    }
}

#[test]
fn any_length_is_filled_and_a_seed_repeats() {
    let mut generator = NonceGenerator::from_seed(&[3; 32]);
    let mut again = NonceGenerator::from_seed(&[3; 32]);
    for count in (0..70).chain([4095, 4096, 4097, 20_000]) {
        let (mut one, mut two) = (vec![0; count], vec![0; count]);
        generator.fill(&mut one);
        again.fill(&mut two);
        assert_eq!(one, two);
        assert!(count < 16 || one[count - 16..] != [0; 16]);
    }
    let other = draw(&mut NonceGenerator::from_seed(&[4; 32]), 10);
    assert_ne!(draw(&mut NonceGenerator::from_seed(&[3; 32]), 10), other);
}

/// Whether neighbours, or neighbours' differences, are closer than chance allows.
fn looks_linkable(nonces: &[Nonce]) -> bool {
    let numbers: Vec<_> = nonces.iter().map(|nonce| u128::from_be_bytes(*nonce)).collect();
    // 64 ± 5.7 bits of 128 differ by chance; below 20 has a probability under 10⁻¹⁴.
    let near = numbers.windows(2).any(|pair| (pair[0] ^ pair[1]).count_ones() < 20);
    let steps: Vec<_> = numbers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    let repeated = steps.iter().collect::<HashSet<_>>().len() < steps.len();
    near || repeated
}

fn assert_all_differ(nonces: &[Nonce]) {
    assert_eq!(nonces.iter().collect::<HashSet<_>>().len(), nonces.len());
}

fn draw_fresh(count: usize) -> Vec<Nonce> {
    draw(&mut NonceGenerator::new().unwrap(), count)
}

fn draw(generator: &mut NonceGenerator, count: usize) -> Vec<Nonce> {
    let mut nonces = vec![[0; 16]; count];
    nonces.iter_mut().for_each(|nonce| generator.fill(nonce));
    nonces
}

fn spawn_child() -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_prints_nonces", "--nocapture"])
        .env(CHILD_VARIABLE, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

const CHILD_VARIABLE: &str = "TIMEBALL_TEST_NONCE_CHILD";
const CHILD_NONCES: usize = 5_000;
const FORK_NONCES: usize = 300;
