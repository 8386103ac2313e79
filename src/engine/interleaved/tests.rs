use std::cell::RefCell;

use proptest::prelude::*;

use super::*;
use crate::clock::{ClockState, SimulatedClock};
use crate::wire::ntp::{Leap, ReferenceId};
use crate::wire::timestamp::NtpShort;

const START: NtpTimestamp = NtpTimestamp::from_unix(1_800_000_000, 250_000_000);
const MICROSECOND: i64 = (1 << 32) / 1_000_000;

fn address(host: u8) -> IpAddr {
    [192, 0, 2, host].into()
}

fn table(entries: usize) -> Pairs {
    Pairs::new(entries, [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f])
}

fn header(origin: NtpTimestamp) -> Header {
    Header {
        leap: Leap::None,
        version: 4,
        mode: Mode::Client,
        stratum: 0,
        poll: 6,
        precision: 0,
        root_delay: NtpShort::default(),
        root_dispersion: NtpShort::default(),
        reference_id: ReferenceId::NONE,
        reference_timestamp: NtpTimestamp::ZERO,
        origin_timestamp: origin,
        receive_timestamp: NtpTimestamp::from_bits(5),
        transmit_timestamp: NtpTimestamp::from_bits(6),
    }
}

/// The receive timestamp of a reply without a pair.
fn receive_timestamp(arrival: NtpTimestamp) -> NtpTimestamp {
    marked(arrival, NOT_SAVED)
}

/// Saves a pair and returns the receive timestamp that names it, with its ticket.
fn save(pairs: &mut Pairs, source: IpAddr, arrival: NtpTimestamp) -> (NtpTimestamp, Ticket) {
    let request = Timestamps::of(&header(receive_timestamp(START)));
    let departure = arrival.plus(9 * MICROSECOND);
    let exchanged = pairs.exchange(source, request, arrival, departure);
    assert!(!exchanged.is_interleaved);
    (exchanged.reply.receive, exchanged.ticket)
}

/// A clock whose reader is kept from running after each reading for so long, as long as there are
/// pauses; the last one is the clock's next step, which takes no time.
struct InterruptedClock {
    clock: RefCell<SimulatedClock>,
    pauses: RefCell<Vec<i64>>,
    step: i64,
}

impl InterruptedClock {
    fn read(&self, what: fn(&SimulatedClock) -> NtpTimestamp) -> NtpTimestamp {
        let mut clock = self.clock.borrow_mut();
        let read = what(&clock);
        let pause = self.pauses.borrow_mut().pop();
        clock.advance(pause.unwrap_or(0));
        if pause.is_some() && self.pauses.borrow().is_empty() {
            clock.now = clock.now.plus(self.step);
        }
        read
    }
}

impl Clock for InterruptedClock {
    fn now(&self) -> NtpTimestamp {
        self.read(|clock| clock.now)
    }

    fn steady(&self) -> NtpTimestamp {
        self.read(|clock| clock.steady)
    }

    fn state(&self) -> &ClockState {
        unreachable!("only readings are interrupted")
    }
}

#[test]
fn c119_an_interrupted_worker_sees_no_step_and_a_true_one_it_sees() {
    let clock = |pauses: &[i64], step| InterruptedClock {
        clock: SimulatedClock::synchronised(START).into(),
        pauses: pauses.iter().rev().copied().collect::<Vec<_>>().into(),
        step,
    };
    let read = |clock: &InterruptedClock| lead(clock.now(), clock);
    let expected = read(&clock(&[], 0));
    let (short, long) = (40 * MICROSECOND, 3000 * MICROSECOND);
    for pauses in
        [&[long][..], &[0, long], &[0, 0, long], &[long, long, long, 0, long], &[short; 20]]
    {
        let found = read(&clock(pauses, 0));
        assert!(found.abs_diff(expected) <= CLOCK_STEP_MIN / 2, "{pauses:?}");
        for step in [-(1 << 32), 200 * MICROSECOND] {
            // Between any two readings: it is seen now, or the next time.
            let clock = clock(pauses, step);
            let leads = [read(&clock), read(&clock)];
            assert!(leads[1].abs_diff(expected) > CLOCK_STEP_MIN, "{pauses:?} {step}");
            assert!(
                leads[0].abs_diff(expected) <= CLOCK_STEP_MIN / 2
                    || leads[0].abs_diff(leads[1]) <= CLOCK_STEP_MIN / 2,
                "{pauses:?} {step}"
            );
        }
    }
}

#[test]
fn c114_a_pair_is_taken_once() {
    let mut pairs = table(1);
    let region = pairs.region(address(1));
    let (receive, _) = save(&mut pairs, address(1), START);
    assert_eq!(pairs.take(region, receive).map(|at| at.to_bits() & 1), Some(0));
    assert_eq!(pairs.take(region, receive), None);
}

#[test]
fn c112_pairs_are_found_from_their_address_only() {
    let mut pairs = table(INTERLEAVED_ENTRIES_MAX);
    assert_ne!(pairs.region(address(1)), pairs.region(address(2)), "with this secret");
    let (receive, _) = save(&mut pairs, address(1), START);
    let other = pairs.region(address(2));
    assert_eq!(pairs.take(other, receive), None);
    let own = pairs.region(address(1));
    assert!(pairs.take(own, receive).is_some());
}

#[test]
fn c115_nothing_is_saved_for_clients_that_do_not_ask() {
    let pairs = table(64);
    let sent = transmit_timestamp(START.plus(MICROSECOND), receive_timestamp(START));
    let concern = |change: fn(&mut Header), origin| {
        let mut request = header(origin);
        change(&mut request);
        pairs.concern(&request)
    };
    assert!(concern(|_| {}, receive_timestamp(START)));
    assert!(!concern(|_| {}, NtpTimestamp::ZERO), "no origin");
    assert!(!concern(|_| {}, sent), "a transmit timestamp");
    assert!(!concern(|request| request.version = 3, receive_timestamp(START)));
    assert!(!concern(|request| request.mode = Mode::SymmetricActive, receive_timestamp(START)));
    assert!(!table(0).concern(&header(receive_timestamp(START))), "switched off");
}

#[test]
fn c116_receive_timestamps_are_unique_among_those_saved() {
    let mut pairs = table(64);
    let names: Vec<NtpTimestamp> = (0..64).map(|_| save(&mut pairs, address(1), START).0).collect();
    for (place, name) in names.iter().enumerate() {
        assert!(!names[..place].contains(name));
        assert_ne!(*name, receive_timestamp(START), "nor is one that names no pair");
    }
    let region = pairs.region(address(1));
    assert!(names.iter().all(|&name| pairs.take(region, name).is_some()), "in eight buckets");
}

#[test]
fn c117_the_oldest_pair_makes_room() {
    let mut pairs = table(1);
    let region = pairs.region(address(1));
    let names: Vec<NtpTimestamp> = (0..1000)
        .map(|second: i64| save(&mut pairs, address(1), START.plus(second << 32)).0)
        .collect();
    assert_eq!(pairs.buckets.len(), REGION_BUCKETS);
    // All arrivals are in the same nanosecond of their seconds, so in one bucket.
    let (old, new) = names.split_at(names.len() - BUCKET_PAIRS);
    assert!(old.iter().all(|&name| pairs.take(region, name).is_none()));
    assert!(new.iter().all(|&name| pairs.take(region, name).is_some()));
}

#[test]
fn c117_a_flood_from_one_address_stays_in_its_region() {
    let mut pairs = table(INTERLEAVED_ENTRIES_MAX);
    let (name, _) = save(&mut pairs, address(1), START);
    for nanosecond in 0..10_000 {
        save(&mut pairs, address(2), START.plus(5 * nanosecond));
    }
    let region = pairs.region(address(1));
    assert!(pairs.take(region, name).is_some());
}

#[test]
fn c113_the_kernel_s_time_replaces_the_predicted_one() {
    let mut pairs = table(64);
    let region = pairs.region(address(1));
    let (receive, ticket) = save(&mut pairs, address(1), START);
    let left = START.plus(25 * MICROSECOND);
    pairs.departed(ticket, left);
    assert_eq!(pairs.take(region, receive), Some(transmit_timestamp(left, receive)));
}

#[test]
fn c113_a_time_that_cannot_be_the_pair_s_is_not_taken() {
    let mut pairs = table(64);
    let region = pairs.region(address(1));
    let predicted = |receive| Some(transmit_timestamp(START.plus(9 * MICROSECOND), receive));
    let (receive, ticket) = save(&mut pairs, address(1), START);
    for wrong in [-(1 << 40), -MICROSECOND, 1 << 33, i64::MAX] {
        pairs.departed(ticket, START.plus(wrong));
    }
    assert_eq!(pairs.take(region, receive), predicted(receive), "before arrival, or hours after");
    pairs.departed(ticket, START.plus(25 * MICROSECOND));
    assert_eq!(pairs.take(region, receive), None, "a used pair does not come back");

    // Another pair in the same place.
    let arrival = START.plus(32);
    let (other, _) = save(&mut pairs, address(1), arrival);
    assert_eq!(bucket_of(region, other), bucket_of(region, receive));
    pairs.departed(ticket, START.plus(25 * MICROSECOND));
    let predicted = transmit_timestamp(arrival.plus(9 * MICROSECOND), other);
    assert_eq!(pairs.take(region, other), Some(predicted));
    table(0).departed(ticket, START);
}

/// The clock's correction changes while a reply is on its way out.
#[test]
fn c113_a_pair_has_one_correction() {
    let mut pairs = table(64);
    let region = pairs.region(address(1));
    let mut clock = SimulatedClock::synchronised(START);
    clock.state.correction_seconds = 0.02;
    assert!(pairs.follow(clock.now, &clock));
    let correction = clock.state.correction(clock.now);
    assert!(correction > 0);
    let (receive, ticket) = save(&mut pairs, address(1), START.plus(correction));
    for changed in [0.0, -0.05, 0.5] {
        clock.state.correction_seconds = changed;
        assert!(pairs.follow(clock.now, &clock), "a correction is no step");
        save(&mut pairs, address(2), START);
    }
    let left = START.plus(25 * MICROSECOND);
    pairs.departed(ticket, left);
    let told = pairs.take(region, receive).expect("saved");
    assert_eq!(told, transmit_timestamp(left.plus(correction), receive));
}

#[test]
fn c119_a_step_of_the_clock_drops_all_pairs() {
    for step in [1 << 32, -(1 << 32), CLOCK_STEP_MIN as i64 + 1] {
        let mut pairs = table(64);
        let region = pairs.region(address(1));
        let mut clock = SimulatedClock::synchronised(START);
        assert!(pairs.follow(clock.now, &clock));
        let (receive, _) = save(&mut pairs, address(1), START);
        clock.now = clock.now.plus(step);
        assert!(!pairs.follow(clock.now, &clock), "the batch may be from before the step");
        assert_eq!(pairs.take(region, receive), None);
        assert!(pairs.follow(clock.now, &clock));
    }
}

#[test]
fn c119_time_that_passes_is_no_step() {
    let mut pairs = table(64);
    let region = pairs.region(address(1));
    let mut clock = SimulatedClock::synchronised(START);
    assert!(pairs.follow(clock.now, &clock));
    let (receive, _) = save(&mut pairs, address(1), START);
    // A day, across the era of 2036 as well.
    for units in [86_400 << 32, i64::MAX / 2, CLOCK_STEP_MIN as i64] {
        clock.advance(units);
        assert!(pairs.follow(clock.now, &clock));
    }
    assert!(pairs.take(region, receive).is_some());
}

proptest! {
    #[test]
    fn marks_keep_the_nanosecond_and_the_order(
        seconds in 0_i64..4_000_000_000,
        nanoseconds in 0_u32..1_000_000_000,
        departure in -5_i64..5,
    ) {
        let arrival = NtpTimestamp::from_unix(seconds, nanoseconds);
        for mark in [SAVED, NOT_SAVED] {
            let receive = marked(arrival, mark);
            prop_assert_eq!(receive.to_bits() % MARKS, mark);
            prop_assert_eq!(
                receive.to_unix_nanoseconds(seconds),
                arrival.to_unix_nanoseconds(seconds)
            );
            let transmit = transmit_timestamp(arrival.plus(departure), receive);
            prop_assert_eq!(transmit.to_bits() & 1, 0);
            prop_assert!(transmit.seconds_since(receive) > 0);
        }
    }

    #[test]
    fn every_address_has_a_region(bits: u128, secret: [u64; 2], entries in 1_usize..5000) {
        let pairs = Pairs::new(entries, secret);
        prop_assert!(pairs.buckets.len() * BUCKET_PAIRS >= entries);
        for source in [IpAddr::V6(bits.into()), IpAddr::V4((bits as u32).into())] {
            let region = pairs.region(source);
            prop_assert!(region.is_multiple_of(REGION_BUCKETS));
            prop_assert!(region + REGION_BUCKETS <= pairs.buckets.len());
        }
    }
}
