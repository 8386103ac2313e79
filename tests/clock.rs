//! The clock from the daemon's word to what clients are told, in simulated time: a machine whose
//! clock is slewed and stepped, a daemon that says so, and a reader that ages what it hears. No
//! clock of the host is read.

use std::time::Duration;

use timeball::clock::ClockState;
use timeball::clock::follow::{Answer, Follower, Judgement, Sample};
use timeball::clock::record::{ClockRecord, Moment, SourceState};
use timeball::sys::adjtimex::{KernelClock, LeapStatus};
use timeball::wire::candm::Tracking;
use timeball::wire::ntp::{Header, Leap, Mode, ReferenceId};
use timeball::wire::timestamp::{NtpShort, NtpTimestamp};

const UNITS: f64 = 4_294_967_296.0;
const HOLDOVER: Duration = Duration::from_secs(600);
const UPSTREAM: ReferenceId = ReferenceId([192, 0, 2, 1]);

/// Looks at the clock between two of the daemon's words.
const LOOKS: u32 = 10;

/// A machine, and the daemon that keeps its clock.
struct World {
    /// True time when the machine was started.
    start: NtpTimestamp,
    /// True time since then, in seconds.
    elapsed: f64,
    /// What slewing has moved the clock by, in seconds; the clock since boot goes along.
    slewed: f64,
    /// What steps have moved the clock by, in seconds.
    stepped: f64,
    /// How fast it is slewed, seconds per second.
    slew_rate: f64,
    /// How fast it runs away, where nobody may set it.
    drift_rate: f64,
    leap: Leap,
    kernel_leap: LeapStatus,
    /// chronyd's word, as it is changed on its way.
    tracking: fn(&World) -> Option<Answer<Tracking>>,
    /// The same of the reply to an NTP query.
    sample: fn(&World) -> Option<Answer<Sample>>,
    follower: Follower,
    record: ClockRecord,
}

impl World {
    /// A machine whose clock is right, and followed by chronyd's report alone.
    fn new() -> Self {
        let start = NtpTimestamp::from_unix(1_800_000_000, 0);
        let boot = Moment { system: start, since_boot: Duration::ZERO };
        Self {
            start,
            elapsed: 0.0,
            slewed: 0.0,
            stepped: 0.0,
            slew_rate: 0.0,
            drift_rate: 0.0,
            leap: Leap::None,
            kernel_leap: LeapStatus::None,
            tracking: |world| Some(Answer::Word(world.report(), world.now())),
            sample: |_| None,
            follower: Follower::new(HOLDOVER),
            record: ClockRecord::unsynchronised(SourceState::Unknown, boot),
        }
    }

    fn truth(&self) -> NtpTimestamp {
        self.start.plus((self.elapsed * UNITS) as i64)
    }

    fn now(&self) -> Moment {
        Moment {
            system: self.truth().plus(((self.slewed + self.stepped) * UNITS) as i64),
            since_boot: Duration::from_secs_f64(self.elapsed + self.slewed),
        }
    }

    fn report(&self) -> Tracking {
        Tracking {
            reference_id: UPSTREAM,
            stratum: 2,
            leap: self.leap,
            reference_time: self.truth().before(Duration::from_millis(16_300)),
            correction_seconds: -(self.slewed + self.stepped),
            last_offset_seconds: 0.0,
            rms_offset_seconds: 0.0,
            frequency_ppm: 3.0,
            residual_frequency_ppm: -0.01,
            skew_ppm: 0.05,
            root_delay_seconds: 0.01,
            root_dispersion_seconds: 0.0005,
            update_interval_seconds: 16.0,
        }
    }

    /// The reply of a daemon that serves true time.
    fn reply(&self) -> Sample {
        let header = Header {
            leap: self.leap,
            version: 4,
            mode: Mode::Server,
            stratum: 2,
            poll: 0,
            precision: -25,
            root_delay: NtpShort::from_seconds_rounded_up(0.01),
            root_dispersion: NtpShort::from_seconds_rounded_up(0.0005),
            reference_id: UPSTREAM,
            reference_timestamp: self.truth().before(Duration::from_millis(16_300)),
            origin_timestamp: NtpTimestamp::ZERO,
            receive_timestamp: self.truth(),
            transmit_timestamp: self.truth(),
        };
        Sample { header, offset_seconds: -(self.slewed + self.stepped), delay_seconds: 40e-6 }
    }

    fn pass(&mut self, seconds: f64) {
        self.elapsed += seconds;
        self.slewed += (self.slew_rate + self.drift_rate) * seconds;
        // A daemon slews until the clock is right.
        if self.slew_rate * (self.slewed + self.stepped) > 0.0 {
            (self.slewed, self.slew_rate) = (-self.stepped, 0.0);
        }
    }

    /// The clock role asks, as it does once a second.
    fn ask(&mut self) -> Judgement {
        let kernel = KernelClock {
            synchronised: false,
            leap: self.kernel_leap,
            error_bound: Duration::from_secs(16),
        };
        let (tracking, sample) = ((self.tracking)(self), (self.sample)(self));
        let judgement = self.follower.judge(tracking.as_ref(), sample.as_ref(), Some(&kernel));
        if let Some(record) = judgement.record {
            self.record = record;
        }
        self.record.source_state = judgement.state;
        judgement
    }

    fn state(&self) -> ClockState {
        self.record.state_at(self.now(), -25)
    }

    /// How far off a client is put, in seconds, by a state that may be a second old.
    fn error(&self, state: &ClockState) -> f64 {
        let system = self.now().system;
        system.plus(state.correction(system)).seconds_since_f64(self.truth())
    }

    /// Seconds in which the daemon is asked at the start of each. All the time clients are told the
    /// truth within the bound that they are told. Returns the largest error.
    fn live(&mut self, seconds: u32) -> f64 {
        let mut largest = 0.0_f64;
        for _ in 0..seconds {
            self.ask();
            let state = self.state();
            for _ in 0..LOOKS {
                self.pass(1.0 / f64::from(LOOKS));
                if state.is_synchronised() {
                    let error = self.error(&state).abs();
                    largest = largest.max(error);
                    let bound = state.root_dispersion(self.now().system).to_seconds();
                    assert!(error <= bound, "{error} s off, {bound} s told at {}", self.elapsed);
                }
            }
        }
        largest
    }
}

const SILENT: fn(&World) -> Option<Answer<Tracking>> =
    |_| Some(Answer::Silence("nobody listens there".to_owned()));

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

/// chronyd smooths: its report does not show it, its replies do.
#[test]
fn a_smoothed_time_is_served_smoothed() {
    let mut world = World::new();
    world.sample = |world| {
        let mut sample = world.reply();
        sample.header.reference_id = ReferenceId([127, 127, 1, 255]);
        sample.offset_seconds += 0.25;
        Some(Answer::Word(sample, world.now()))
    };
    world.ask();
    let state = world.state();
    assert_eq!(state.reference_id, ReferenceId([127, 127, 1, 255]));
    assert!((world.error(&state) - 0.25).abs() < 1e-6);
}
