//! The clock from the daemon's word to what clients are told, in simulated time.

mod common;

use std::time::Duration;

use common::world::{HOLDOVER, SILENT, UNITS, UPSTREAM, World};
use timeball::clock::follow::{Answer, Judgement, Sample};
use timeball::clock::leap::SMEARED_REFERENCE_ID;
use timeball::clock::record::{ClockRecord, SourceState};
use timeball::sys::adjtimex::LeapStatus;
use timeball::wire::candm::{Smoothing, Tracking};
use timeball::wire::ntp::{Leap, ReferenceId};
use timeball::wire::timestamp::{NtpShort, NtpTimestamp};

#[test]
fn what_chronyd_says_is_told_and_its_stratum_is_ours() {
    let mut world = World::new();
    assert!(world.live(5) < 1e-9);
    let state = world.state();
    assert_eq!((state.leap, state.stratum, state.reference_id), (Leap::None, 2, UPSTREAM));
    assert_eq!(state.root_delay, NtpShort::from_seconds_rounded_up(0.01));
    // 0.05 + 0.01 + 1 parts per million.
    assert!((state.dispersion_rate - 1.06e-6).abs() < 1e-12);
    assert_eq!(state.reference_timestamp.to_bits() as u32, 0, "no fraction");
    let age = world.truth().seconds_since_f64(state.reference_timestamp);
    assert!((16.3..18.4).contains(&age), "{age}");
}

#[test]
fn a_lost_source_ages_then_is_told_and_comes_back() {
    let mut world = World::new();
    world.live(5);
    world.tracking = SILENT;
    let mut last = world.state().root_dispersion_seconds;
    for _ in 0..599 {
        let Judgement { state, why, record } = world.ask();
        assert_eq!((state, record), (SourceState::Silent, None));
        assert_eq!(why, "nobody listens there");
        world.pass(1.0);
        let state = world.state();
        assert_eq!((state.leap, state.stratum), (Leap::None, 2));
        assert!(state.root_dispersion_seconds > last);
        last = state.root_dispersion_seconds;
    }
    assert!((last - 0.0005 - 600.0 * 1.06e-6).abs() < 1e-5, "{last}");
    world.pass(5.0);
    assert_eq!((world.state().leap, world.state().stratum), (Leap::Unsynchronised, 0));
    world.tracking = World::new().tracking;
    world.live(1);
    assert_eq!((world.state().leap, world.state().stratum), (Leap::None, 2));
}

/// chronyd after its own restart: its clock has not become worse for it.
#[test]
fn a_daemon_that_says_unsynchronised_is_a_lost_one() {
    let mut world = World::new();
    world.live(5);
    world.tracking = |world| {
        let report = Tracking { leap: Leap::Unsynchronised, stratum: 0, ..world.report() };
        Some(Answer::Word(report, world.now()))
    };
    assert_eq!(world.ask().state, SourceState::Unsynchronised);
    assert!(world.state().is_synchronised());
    world.pass(HOLDOVER.as_secs_f64() + 1.0);
    assert!(!world.state().is_synchronised());
}

#[test]
fn clients_see_nothing_of_a_slew() {
    for error in [0.4_f64, -0.4] {
        let mut world = World::new();
        world.live(3);
        // A new measurement finds the clock off, and the daemon slews it as fast as chronyd may.
        world.start = world.start.plus((-error * UNITS) as i64);
        (world.stepped, world.slew_rate) = (error, -error.signum() / 12.0);
        // Two words are needed to see how fast.
        assert!(world.live(2) < 0.09);
        let largest = world.live(10);
        assert!(largest < 1e-6, "{largest}");
        assert!((world.slewed + world.stepped).abs() < 1e-9, "it is over");
    }
}

/// As under `-x`: the clock runs free, and the correction says by how much.
#[test]
fn a_clock_that_is_never_set_is_corrected() {
    let mut world = World::new();
    (world.stepped, world.drift_rate) = (-3.25, -40e-6);
    let largest = world.live(100);
    assert!(largest < 50e-6, "{largest}");
    assert!(world.state().root_dispersion_seconds < 0.001);
}

#[test]
fn a_step_widens_the_bound_until_the_daemon_has_spoken() {
    for step in [2.5, -2.5] {
        let mut world = World::new();
        world.live(5);
        let before = world.state().root_dispersion_seconds;
        world.stepped = step;
        let state = world.state();
        assert!((state.root_dispersion_seconds - before - 2.5).abs() < 1e-6);
        assert!(world.error(&state).abs() <= state.root_dispersion_seconds);
        world.live(5);
        assert!(world.state().root_dispersion_seconds < 0.001);
    }
}

#[test]
fn leap_seconds_are_announced_and_pass() {
    for (leap, status, step) in
        [(Leap::Insert, LeapStatus::Insert, -1.0), (Leap::Delete, LeapStatus::Delete, 1.0)]
    {
        let mut world = World::new();
        (world.leap, world.kernel_leap) = (leap, status);
        world.live(5);
        assert_eq!(world.state().leap, leap);
        if leap == Leap::Insert {
            world.kernel_leap = LeapStatus::InProgress;
            world.live(1);
            assert_eq!((world.state().leap, world.state().stratum), (Leap::Unsynchronised, 0));
        }
        // The kernel has stepped its clock, and so has time itself.
        world.start = world.start.plus((step * UNITS) as i64);
        (world.leap, world.kernel_leap) = (Leap::None, LeapStatus::None);
        world.live(5);
        assert_eq!((world.state().leap, world.state().stratum), (Leap::None, 2));
    }
}

#[test]
fn the_era_changes_unseen() {
    let mut world = World::new();
    // Ten seconds before 2036-02-07T06:28:16Z.
    world.start = NtpTimestamp::from_bits(0).before(Duration::from_secs(10));
    assert!(world.live(40) < 1e-9);
    assert_eq!(world.truth().to_bits() >> 32, 30);
    let state = world.state();
    assert!((12..14).contains(&(state.reference_timestamp.to_bits() >> 32)));
    world.tracking = SILENT;
    world.live(20);
    assert!(world.state().root_dispersion_seconds < 0.0006);
}

#[test]
fn a_daemon_without_a_report_is_told_with_what_was_measured() {
    let mut world = World::new();
    world.tracking = |_| None;
    world.sample = |world| Some(Answer::Word(world.reply(), world.now()));
    world.stepped = 0.003;
    let largest = world.live(20);
    assert!((largest - 0.003).abs() < 1e-6, "a measured offset is not applied: {largest}");
    let state = world.state();
    assert_eq!((state.leap, state.stratum, state.reference_id), (Leap::None, 2, UPSTREAM));
    assert!((0.0035..0.0037).contains(&state.root_dispersion_seconds));
}

#[test]
fn a_falseticker_is_found_and_not_believed() {
    let mut world = World::new();
    world.sample = |world| Some(Answer::Word(world.reply(), world.now()));
    world.live(5);
    assert_eq!(world.record.source_state, SourceState::Synchronised);
    let good = world.record;
    // Its replies are off what its report says; another daemon's; or it is off the clock at all.
    let off: fn(&World) -> Option<Answer<Sample>> = |world| {
        let sample = Sample { offset_seconds: 0.2, ..world.reply() };
        Some(Answer::Word(sample, world.now()))
    };
    let another: fn(&World) -> Option<Answer<Sample>> = |world| {
        let mut sample = world.reply();
        sample.header.reference_id = ReferenceId(*b"GPS\0");
        Some(Answer::Word(sample, world.now()))
    };
    for (sample, says) in [(off, "s off what its report says"), (another, "by its reply")] {
        world.sample = sample;
        let Judgement { state, why, record } = world.ask();
        assert_eq!((state, record), (SourceState::Contradictory, None));
        assert!(why.contains(says), "{why}");
    }
    world.tracking = |_| None;
    world.sample = |world| {
        let sample = Sample { offset_seconds: -1.5, ..world.reply() };
        Some(Answer::Word(sample, world.now()))
    };
    let Judgement { state, why, record } = world.ask();
    assert_eq!((state, record), (SourceState::Contradictory, None));
    assert!(why.contains("-1.500000 s off the system's"), "{why}");
    assert_eq!(ClockRecord { source_state: SourceState::Synchronised, ..world.record }, good);
    world.pass(HOLDOVER.as_secs_f64() + 1.0);
    assert!(!world.state().is_synchronised());
}

#[test]
fn who_speaks_alone_is_heard() {
    let mut world = World::new();
    world.sample = |_| Some(Answer::Silence("it does not answer".to_owned()));
    world.live(2);
    assert_eq!(world.record.source_state, SourceState::Synchronised);
    world.tracking = |_| Some(Answer::Garbage("its stratum cannot be".to_owned()));
    let judgement = world.ask();
    assert_eq!((judgement.state, judgement.record), (SourceState::Garbled, None));
    world.sample = |world| Some(Answer::Word(world.reply(), world.now()));
    assert!(world.ask().record.is_some());
}

/// chronyd smooths what it has corrected in one piece, and its report of that says by how much.
#[test]
fn a_smoothed_time_is_told_by_its_report() {
    let mut world = World::new();
    world.smoothing = |world| {
        // 400 parts per million, as its manual has them, until nothing is left.
        let offset_seconds = (0.02 - 400e-6 * world.elapsed).max(0.0);
        let smoothing = Smoothing { is_leap_only: false, offset_seconds };
        Some(Answer::Word(Some(smoothing), world.now()))
    };
    let served = |world: &World| world.error(&world.state());
    world.ask();
    world.pass(1.0);
    world.ask();
    for _ in 0..40 {
        assert_eq!(world.state().reference_id, SMEARED_REFERENCE_ID);
        assert!((served(&world) - (0.02 - 400e-6 * world.elapsed)).abs() < 1e-6);
        world.pass(0.5);
        assert!((served(&world) - (0.02 - 400e-6 * world.elapsed)).abs() < 1e-6, "between words");
        world.pass(0.5);
        world.ask();
    }
    // Its replies are held against both reports.
    world.sample = |world| {
        let mut sample = world.reply();
        sample.header.reference_id = SMEARED_REFERENCE_ID;
        sample.offset_seconds += 0.02 - 400e-6 * world.elapsed;
        Some(Answer::Word(sample, world.now()))
    };
    assert_eq!(world.ask().state, SourceState::Synchronised);
    world.sample = |world| {
        let mut sample = world.reply();
        sample.header.reference_id = SMEARED_REFERENCE_ID;
        sample.offset_seconds += 0.5;
        Some(Answer::Word(sample, world.now()))
    };
    assert_eq!(world.ask().state, SourceState::Contradictory);
    // Without that report nobody knows what chronyd serves.
    world.sample = |_| None;
    world.smoothing = |_| Some(Answer::Silence("it does not answer".to_owned()));
    let Judgement { state, why, record } = world.ask();
    assert_eq!((state, record), (SourceState::Silent, None));
    assert!(why.starts_with("chronyd smooths"), "{why}");
    world.smoothing = |world| Some(Answer::Word(None, world.now()));
    world.live(3);
    assert_eq!(world.state().reference_id, UPSTREAM);
}

/// chronyd with `leapsecmode slew` and `smoothtime … leaponly`: the system's clock is slewed as
/// fast as may be, the time that is served runs evenly.
#[test]
fn a_leap_second_that_chronyd_smears_is_told_as_chronyd_tells_it() {
    const LEAPS_AT: f64 = 5.0;
    fn smeared(world: &World) -> f64 {
        if world.stepped == 0.0 { 0.0 } else { 1.0 - 1e-3 * (world.elapsed - LEAPS_AT) }
    }
    let mut world = World::new();
    world.leap = Leap::Insert;
    world.smoothing = |world| {
        let smoothing = Smoothing { is_leap_only: true, offset_seconds: smeared(world) };
        Some(Answer::Word(Some(smoothing), world.now()))
    };
    world.live(LEAPS_AT as u32);
    assert_eq!((world.state().leap, world.state().reference_id), (Leap::None, UPSTREAM));
    // Time makes the leap second, the system's clock does not.
    world.start = world.start.plus(-(1 << 32));
    (world.stepped, world.slew_rate, world.leap) = (1.0, -1.0 / 12.0, Leap::None);
    // Two words are needed to see how fast.
    for _ in 0..2 {
        world.ask();
        world.pass(1.0);
    }
    for _ in 0..20 {
        world.ask();
        let state = world.state();
        assert_eq!((state.leap, state.reference_id), (Leap::None, SMEARED_REFERENCE_ID));
        for _ in 0..10 {
            world.pass(0.1);
            let off = world.error(&state) - smeared(&world);
            // A twelfth of what is smoothed in a second, in the one in which the slew ends.
            assert!(off.abs() < 1e-4, "{off} s at {}", world.elapsed);
        }
    }
}

/// chronyd smooths, and gives no report of it: its replies show it.
#[test]
fn a_smoothed_time_is_served_smoothed() {
    let mut world = World::new();
    world.sample = |world| {
        let mut sample = world.reply();
        sample.header.reference_id = SMEARED_REFERENCE_ID;
        sample.offset_seconds += 0.25;
        Some(Answer::Word(sample, world.now()))
    };
    for tracking in [world.tracking, |_| None, SILENT] {
        world.tracking = tracking;
        world.ask();
        let state = world.state();
        assert_eq!(state.reference_id, SMEARED_REFERENCE_ID);
        assert!((world.error(&state) - 0.25).abs() < 1e-6);
        world.pass(1.0);
    }
}
