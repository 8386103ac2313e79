//! How many requests one core writes and seals, without sending them, in a batch as the pump does.

use std::hint::black_box;
use std::time::{Duration, Instant};

use timeball::aead::{Algorithm, NonceGenerator};
use timeball::cookie::ring::KeyRing;
use timeball_load::associations::mint;
use timeball_load::flight::Flight;
use timeball_load::limits::BATCH_REQUESTS;
use timeball_load::plan::{CookieUse, Placeholders};
use timeball_load::request::{Clients, Writer};

fn main() {
    // Cargo passes `--bench`, and `--test` where benches are only to be tried.
    let is_trial = !std::env::args().any(|argument| argument == "--bench");
    let time = Duration::from_millis(if is_trial { 1 } else { 1000 });
    println!("requests built per second on one core, batches of {BATCH_REQUESTS}:");
    println!("{:<32}{:>10.0}", "plain NTP", rate(&mut Clients::Plain(CLIENTS), time));
    for algorithm in [Algorithm::AesSivCmac256, Algorithm::AesSivCmac512, Algorithm::Aes128GcmSiv] {
        let mut random = NonceGenerator::new().expect("random numbers");
        let ring = KeyRing::generate(Algorithm::AesSivCmac256, |bytes| random.fill(bytes));
        for placeholders in [0, 7] {
            let minted = mint(&ring, algorithm, CLIENTS, 1, &mut random).expect("memory");
            let mut clients =
                Clients::Nts(minted, Placeholders::Fixed(placeholders), CookieUse::Replay);
            let name = format!("{algorithm}, {placeholders} placeholders");
            println!("{name:<32}{:>10.0}", rate(&mut clients, time));
        }
    }
}

/// As many as the pump simulates unless told.
const CLIENTS: usize = 16_384;

fn rate(clients: &mut Clients, time: Duration) -> f64 {
    let mut writer = Writer::new().expect("random numbers");
    let mut flight = Flight::new(1000.0, 0, 1_000_000, writer.flight_keys());
    let begin = Instant::now();
    let (mut built, mut client) = (0, 0);
    while begin.elapsed() < time {
        writer.clear();
        while !writer.is_full() {
            if !flight.has_room() {
                flight.forget_oldest();
            }
            writer.add(clients, client, 0, None, &mut flight);
            client = (client + 1) % CLIENTS;
        }
        writer.seal(clients);
        black_box(writer.requests().count());
        built += BATCH_REQUESTS;
    }
    built as f64 / begin.elapsed().as_secs_f64()
}
