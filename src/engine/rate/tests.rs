//! The limiter alone: what passes, what leaks, and that memory stays what it was.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::clock::SimulatedClock;
use crate::limits::{BATCH_DATAGRAMS, COOKIES_PER_REPLY};
use crate::wire::timestamp::NtpTimestamp;

const SECRET: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344];
const NOW: NtpTimestamp = NtpTimestamp::from_unix(1_800_000_000, 0);

/// A limiter with its clock and chance.
struct Bench {
    limiter: Limiter,
    clock: SimulatedClock,
    nonces: NonceGenerator,
}

impl Bench {
    fn new(limits: &RateLimits) -> Self {
        let mut limiter = Limiter::new(SECRET);
        limiter.adopt(limits);
        let clock = SimulatedClock::synchronised(NOW);
        Self { limiter, clock, nonces: NonceGenerator::from_seed(&[7; 32]) }
    }

    fn pass_milliseconds(&mut self, milliseconds: i64) {
        self.clock.advance((milliseconds << 32) / 1000);
    }

    /// What becomes of a plain request of each of these clients.
    fn plain(&mut self, clients: &[IpAddr]) -> Vec<Outcome> {
        self.decide(clients, Outcome::AnsweredPlain, Limiter::plain)
    }

    /// How many of these clients get the NAK that is due to each of them.
    fn naks(&mut self, clients: &[IpAddr]) -> usize {
        let outcomes = self.decide(clients, Outcome::NtsNak, Limiter::naks);
        outcomes.iter().filter(|outcome| **outcome == Outcome::NtsNak).count()
    }

    /// What the limiter makes of so many answers, batch by batch.
    fn decide(
        &mut self,
        clients: &[IpAddr],
        due: Outcome,
        by: impl Fn(&mut Limiter, &[Datagram<'_>], &mut NonceGenerator, &mut Verdicts),
    ) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for clients in clients.chunks(BATCH_DATAGRAMS) {
            let mut buffers = [[0; 48]; BATCH_DATAGRAMS];
            let batch: Vec<Datagram<'_>> = clients
                .iter()
                .zip(&mut buffers)
                .map(|(client, bytes)| Datagram {
                    bytes,
                    arrival: NOW,
                    source: (*client, 123).into(),
                    truncated: false,
                })
                .collect();
            let mut verdicts: Verdicts = batch.iter().map(|_| Verdict::reply(due, 48)).collect();
            self.limiter.begin(&self.clock);
            by(&mut self.limiter, &batch, &mut self.nonces, &mut verdicts);
            outcomes.extend(verdicts.iter().map(|verdict| verdict.outcome));
        }
        outcomes
    }

    /// How many of so many requests of one client are answered.
    fn answered(&mut self, client: IpAddr, requests: usize) -> usize {
        let outcomes = self.plain(&vec![client; requests]);
        outcomes.iter().filter(|outcome| **outcome == Outcome::AnsweredPlain).count()
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Ten a second, and one in 1024 beyond.
fn ten() -> RateLimits {
    RateLimits { requests_per_second: Some(10.0), leak: 1024, ..RateLimits::off() }
}

#[test]
fn a_client_has_its_burst_and_then_its_rate() {
    let mut bench = Bench::new(&ten());
    let client = address("192.0.2.1");
    assert_eq!(bench.answered(client, 20), 20, "what comes in two seconds");
    assert_eq!(bench.answered(client, 20), 0);
    bench.pass_milliseconds(99);
    assert_eq!(bench.answered(client, 20), 0);
    bench.pass_milliseconds(2);
    assert_eq!(bench.answered(client, 20), 1);
    bench.pass_milliseconds(3_600_000);
    assert_eq!(bench.answered(client, 20), 20, "no more than the burst");
    assert_eq!(bench.answered(client, 20), 0);
    assert_eq!(bench.answered(address("192.0.2.2"), 20), 20, "a neighbour");
    assert_eq!(bench.answered(address("::ffff:192.0.2.1"), 20), 0, "the same address");
}

/// `iburst` sends eight, however low the rate is.
#[test]
fn the_lowest_rate_still_has_eight_at_once() {
    let limits = RateLimits { requests_per_second: Some(1.0 / 60.0), ..ten() };
    let mut bench = Bench::new(&limits);
    assert_eq!(bench.answered(address("192.0.2.1"), 20), 8);
    bench.pass_milliseconds(60_001);
    assert_eq!(bench.answered(address("192.0.2.1"), 20), 1);
}

/// A debt of eight minutes is paid after eight minutes, and does not come back: not after 2⁴⁰ units
/// of time (1,048,576 s), modulo which moments were once kept.
#[test]
fn whoever_comes_back_after_however_long_has_a_whole_burst() {
    let limits = RateLimits { requests_per_second: Some(1.0 / 60.0), ..ten() };
    for seconds in [481, 4_096, 1_048_476, 1_048_576, 1_048_776] {
        let mut bench = Bench::new(&limits);
        assert_eq!(bench.answered(address("192.0.2.1"), 20), 8);
        bench.pass_milliseconds(seconds * 1000);
        assert_eq!(bench.answered(address("192.0.2.1"), 20), 8, "after {seconds} s");
    }
}

/// Of the clients of one network, each within its own limit, as many are answered as the network
/// may have.
#[test]
fn networks_have_limits_of_their_own() {
    for (network, hosts, shift, times) in [
        ("192.0.2.0", 256, 0, RATE_WIDE_IPV4),
        ("2001:db8:0:100::", 256, 64, RATE_WIDE_IPV6),
        ("2001:db8::", 65_536, 64 + 8, RATE_WIDER_IPV6),
    ] {
        let host = |number: u128| match address(network) {
            IpAddr::V4(address) => IpAddr::V4((address.to_bits() + number as u32).into()),
            IpAddr::V6(address) => IpAddr::V6((address.to_bits() + (number << shift)).into()),
        };
        let mut bench = Bench::new(&ten());
        let clients: Vec<IpAddr> = (0..4000).map(|number| host(number % hosts % 256)).collect();
        let outcomes = bench.plain(&clients);
        let answered = outcomes.iter().filter(|outcome| **outcome == Outcome::AnsweredPlain);
        let answered = answered.count() as u32;
        assert!((20 * times..20 * times + 20).contains(&answered), "{network}: {answered}");
        let stranger = if clients[0].is_ipv4() { "192.0.3.1" } else { "2001:db8:1::1" };
        assert_eq!(bench.answered(address(stranger), 20), 20);
    }
}

#[test]
fn whoever_is_exempt_has_no_limits() {
    let unlimited = ["192.0.2.0/24", "::1/128"].map(|text| text.parse().expect("good")).into();
    let mut bench = Bench::new(&RateLimits { unlimited, ..ten() });
    for client in ["192.0.2.1", "::1", "::ffff:192.0.2.1"] {
        assert_eq!(bench.answered(address(client), 1000), 1000, "{client}");
    }
    assert_eq!(bench.answered(address("192.0.3.1"), 20), 20);
}

/// The share that leaks is what was asked for, within five standard deviations of a fair chance.
#[test]
fn what_leaks_is_the_share_asked_for() {
    for leak in [1, 2, 16, 1024] {
        let mut bench = Bench::new(&RateLimits { leak, ..ten() });
        let client = address("192.0.2.1");
        bench.answered(client, 20);
        bench.limiter.take_leaked();
        let requests = 200_000;
        let answered = bench.answered(client, requests) as f64;
        let expected = requests as f64 / f64::from(leak);
        let deviation = (expected * (1.0 - 1.0 / f64::from(leak))).sqrt();
        assert!((answered - expected).abs() <= 5.0 * deviation, "one in {leak}: {answered}");
        assert_eq!(bench.limiter.take_leaked() as f64, answered);
        assert_eq!(bench.limiter.take_leaked(), 0, "they are counted once");
    }
}

/// Somebody asks in the name of a client without end; the client itself, which asks ten times, has
/// an answer nearly every time (leak 2: all but once in a thousand times).
#[test]
fn a_client_whose_address_is_forged_is_not_locked_out() {
    let mut bench = Bench::new(&RateLimits { leak: 2, ..ten() });
    let client = address("192.0.2.1");
    let with_an_answer = (0..200).filter(|_| {
        let outcomes = bench.plain(&[client; 320]);
        // Every 32nd is the client's.
        outcomes.iter().step_by(32).any(|outcome| *outcome == Outcome::AnsweredPlain)
    });
    assert!(with_an_answer.count() >= 196);
}

#[test]
fn kisses_are_limited_too() {
    let mut bench = Bench::new(&RateLimits { kiss: true, ..ten() });
    let client = address("192.0.2.1");
    let outcomes = bench.plain(&[client; 200]);
    let kisses = |outcomes: &[Outcome]| {
        outcomes.iter().filter(|outcome| **outcome == Outcome::KissRate).count()
    };
    assert_eq!(kisses(&outcomes), 8, "the least burst");
    assert!(outcomes[20..28].iter().all(|outcome| *outcome == Outcome::KissRate));
    for _ in 0..3 {
        bench.pass_milliseconds(1_001);
        bench.answered(client, 10);
        assert_eq!(kisses(&bench.plain(&[client; 200])), 1);
    }
}

/// A table that overflows errs in favour of those who ask: whoever comes for the first time is
/// answered, and whoever floods is still held to his limit.
#[test]
fn a_flood_from_everywhere_keeps_no_newcomer_out() {
    let mut bench = Bench::new(&ten());
    let flooder = address("198.51.100.1");
    bench.answered(flooder, 20);
    let clients: Vec<IpAddr> =
        (0..400_000_u32).map(|number| IpAddr::V4((0x0b00_0000 + number * 259).into())).collect();
    let before = bench.limiter.strangers.bytes();
    let outcomes = bench.plain(&clients);
    let late = outcomes.iter().filter(|outcome| **outcome != Outcome::AnsweredPlain).count();
    // One would be if it met the flooder's bucket: its set, and all 32 bits of its tag.
    assert_eq!(late, 0, "newcomers were refused");
    assert_eq!(bench.answered(flooder, 20), 0, "its debt is the largest");
    assert_eq!((before, bench.limiter.strangers.bytes()), (512 << 10, 512 << 10));
    assert_eq!(bench.limiter.clients.bytes(), 256 << 10);
}

/// A storm of NAKs from forged addresses, each of which would have its own.
#[test]
fn naks_of_all_together_are_limited() {
    let limits = RateLimits { naks_per_second: Some(4.0), ..RateLimits::off() };
    let mut bench = Bench::new(&RateLimits {
        unlimited: vec!["10.0.0.0/8".parse().expect("a network")],
        ..limits
    });
    let storm: Vec<IpAddr> = (0..40_000_u32)
        .map(|number| IpAddr::from((0xb000_0000 + (number << 8)).to_be_bytes()))
        .collect();
    let all = RATE_NAKS_PER_SECOND_ALL as usize;
    assert_eq!(bench.naks(&storm), all);
    assert_eq!(bench.naks(&storm), 0);
    let exempt = [address("10.0.0.1"); 3 * BATCH_DATAGRAMS];
    assert_eq!(bench.naks(&exempt), exempt.len(), "who has no limit has its NAKs");
    bench.pass_milliseconds(500);
    assert_eq!(bench.naks(&storm), all / 2);
    bench.pass_milliseconds(3_600_000);
    assert_eq!(bench.naks(&storm), all, "no more than those of a second at once");
    let off = RateLimits { naks_per_second: None, ..RateLimits::off() };
    assert_eq!(Bench::new(&off).naks(&storm), storm.len());
}

/// What leaks is told, and counted as leaked only then: a storm in the name of one client.
#[test]
fn naks_that_leak_are_within_those_of_all() {
    let limits = RateLimits { naks_per_second: Some(4.0), leak: 2, ..RateLimits::off() };
    let mut bench = Bench::new(&limits);
    let all = RATE_NAKS_PER_SECOND_ALL as usize;
    assert_eq!(bench.naks(&vec![address("192.0.2.1"); 40_000]), all);
    assert_eq!(bench.limiter.take_leaked() as usize, all - 8, "but for its burst");
    // Another, who was not told as all were spent, has its own still.
    let other = vec![address("198.51.100.1"); 8];
    assert_eq!(bench.naks(&other), 0);
    bench.pass_milliseconds(500);
    assert_eq!((bench.naks(&other), bench.limiter.take_leaked()), (8, 0));
}

/// A server that lost its master keys: the cookies of all clients are void, and each client needs a
/// NAK to know. One that has none asks with all of its eight cookies, and then knows by itself. All
/// clients of a worker: those of an IPv4 /24 never had more in common than one has to itself.
///
/// `cargo test --lib clients_of_a_lost_key -- --nocapture` prints the table of docs/OPERATIONS.md.
#[test]
fn clients_of_a_lost_key_are_told_at_one_of_their_next_polls() {
    const CLIENTS: usize = 1_000_000;
    println!("clients of one worker; with no NAK for any of their cookies; seconds until told");
    println!("  clients      poll     never   half  99 %   last");
    for (clients, polls, never, last_polls) in
        [(CLIENTS, 6..=10, 0, 1), (CLIENTS, 6..=6, 0, 2), (4 * CLIENTS, 6..=6, 0, 8)]
    {
        let (least, most) = (1 << polls.start(), 1 << polls.end());
        let mut told = Told::after_a_loss(clients, polls);
        told.seconds.sort_unstable();
        let part = |share: usize| told.seconds[(told.seconds.len() - 1) * share / 100];
        let times = [50, 99, 100].map(part);
        println!(
            "{clients:>9} {least:>4}-{most:<4} s {:>9} {:>6} {:>5} {:>6}",
            told.never, times[0], times[1], times[2]
        );
        assert_eq!(told.never, never);
        assert!(u64::from(times[2]) <= last_polls * most, "{times:?}");
        assert_eq!(told.seconds.len() + told.never, clients);
    }
}

/// When clients heard that their cookies are void.
struct Told {
    /// Seconds after the loss.
    seconds: Vec<u16>,
    /// Clients that used up their cookies and were not told.
    never: usize,
}

impl Told {
    /// So many clients, whose polls are spread over these powers of two seconds, and whose first
    /// requests after the loss are spread over their polls.
    fn after_a_loss(clients: usize, polls: std::ops::RangeInclusive<u8>) -> Self {
        let mut bench = Bench::new(&RateLimits::but_for(Vec::new()));
        let mut random = NonceGenerator::from_seed(&[9; 32]);
        let mut chance = || {
            let mut bytes = [0; 4];
            random.fill(&mut bytes);
            u32::from_ne_bytes(bytes)
        };
        // The requests of each second, in the order of time within it.
        let seconds = COOKIES_PER_REPLY << polls.end();
        let mut due: Vec<Vec<u32>> = vec![Vec::new(); seconds];
        let poll_of =
            |client: u32| polls.start() + client as u8 % (polls.end() - polls.start() + 1);
        for client in 0..clients as u32 {
            due[chance() as usize % (1 << poll_of(client))].push(client);
        }
        let mut asked = vec![0_u8; clients];
        let mut told = Self { seconds: Vec::new(), never: 0 };
        for second in 0..seconds {
            let asking = std::mem::take(&mut due[second]);
            let batches = asking.chunks(BATCH_DATAGRAMS);
            let pause = (1_i64 << 32) / batches.len().max(1) as i64;
            bench.clock.steady = NtpTimestamp::from_bits((second as u64) << 32);
            for batch in batches {
                // A factor that is odd scatters them over all networks, each address once.
                let address =
                    |client: &u32| IpAddr::from(client.wrapping_mul(0x9e37_79b1).to_be_bytes());
                let sources: Vec<IpAddr> = batch.iter().map(address).collect();
                let outcomes = bench.decide(&sources, Outcome::NtsNak, Limiter::naks);
                bench.clock.advance(pause);
                for (&client, outcome) in batch.iter().zip(outcomes) {
                    let asked = &mut asked[client as usize];
                    *asked += 1;
                    if outcome == Outcome::NtsNak {
                        told.seconds.push(second as u16);
                    } else if usize::from(*asked) == COOKIES_PER_REPLY {
                        told.never += 1;
                    } else {
                        due[second + (1 << poll_of(client))].push(client);
                    }
                }
            }
        }
        told
    }
}

#[test]
fn without_limits_the_limiter_is_off() {
    let mut bench = Bench::new(&RateLimits::off());
    assert!(!bench.limiter.is_on());
    assert_eq!(bench.answered(address("192.0.2.1"), 1000), 1000);
    bench.limiter.adopt(&ten());
    assert!(bench.limiter.is_on());
}

fn any_limits() -> impl Strategy<Value = RateLimits> {
    let rate = prop_oneof![Just(None), (0.017..60_000.0).prop_map(Some)];
    (rate, 1..1024_u32, any::<bool>()).prop_map(|(requests_per_second, leak, kiss)| RateLimits {
        requests_per_second,
        leak,
        kiss,
        ..RateLimits::off()
    })
}

proptest! {
    /// Whatever the limits, the clients and the times are: every request has one outcome of three,
    /// nobody has more than his rate and what leaks, and memory is what it was.
    #[test]
    fn any_requests_are_held_to_any_limits(
        limits in any_limits(),
        start_seconds in any::<u32>(),
        steps in prop::collection::vec((0..2_000_i64, 0..4_u32, 0..100_usize), 1..40),
    ) {
        let mut bench = Bench::new(&limits);
        bench.clock.advance(i64::from(start_seconds) << 32);
        let bytes = bench.limiter.strangers.bytes();
        let mut asked = [0_usize; 4];
        let mut answered = [0_usize; 4];
        let mut milliseconds = 0;
        for (pause, client, requests) in steps {
            bench.pass_milliseconds(pause);
            milliseconds += pause;
            let address = IpAddr::V4((0xc633_6400 + (client << 8)).into());
            let outcomes = bench.plain(&vec![address; requests]);
            prop_assert!(outcomes.iter().all(|outcome| matches!(
                outcome,
                Outcome::AnsweredPlain | Outcome::KissRate | Outcome::DroppedRate
            )));
            let of_answers = |outcome: &&Outcome| **outcome == Outcome::AnsweredPlain;
            asked[client as usize] += requests;
            answered[client as usize] += outcomes.iter().filter(of_answers).count();
        }
        prop_assert_eq!(bench.limiter.strangers.bytes(), bytes);
        let leaked = bench.limiter.take_leaked() as usize;
        match limits.requests_per_second {
            None => prop_assert_eq!(answered, asked),
            Some(rate) => {
                let burst = (2.0 * rate).max(8.0);
                // An interval is cut to a whole unit of time, which is some parts of it.
                let most = (burst + rate * milliseconds as f64 / 1000.0) * 1.1 + 2.0;
                for (asked, answered) in asked.into_iter().zip(answered) {
                    prop_assert!(answered >= asked.min(burst as usize), "its burst at least");
                    prop_assert!(answered as f64 <= most + leaked as f64);
                }
            }
        }
    }
}
