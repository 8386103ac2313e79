//! A machine in simulated time: its clock is slewed and stepped, a daemon says so, and a reader
//! ages what it hears. No clock of the host is read.

use std::time::Duration;

use timeball::clock::ClockState;
use timeball::clock::follow::{Answer, Follower, Judgement, Sample};
use timeball::clock::leap::{LeapKind, Smear};
use timeball::clock::leap_list::LeapList;
use timeball::clock::leap_watch::{LeapNews, LeapWatch, without_smeared_leap};
use timeball::clock::record::{ClockRecord, Moment, SourceState};
use timeball::sys::adjtimex::{KernelClock, LeapStatus};
use timeball::wire::candm::{Smoothing, Tracking};
use timeball::wire::ntp::{Header, Leap, Mode, ReferenceId};
use timeball::wire::timestamp::{NtpShort, NtpTimestamp};

use super::leap;

pub const UNITS: f64 = 4_294_967_296.0;
pub const HOLDOVER: Duration = Duration::from_secs(600);
pub const UPSTREAM: ReferenceId = ReferenceId([192, 0, 2, 1]);

/// Looks at the clock between two of the daemon's words.
pub const LOOKS: u32 = 10;

/// A machine, and the daemon that keeps its clock.
pub struct World {
    /// True time when the machine was started.
    pub start: NtpTimestamp,
    /// True time since then, in seconds.
    pub elapsed: f64,
    /// What slewing has moved the clock by, in seconds; the clock since boot goes along.
    pub slewed: f64,
    /// What steps have moved the clock by, in seconds.
    pub stepped: f64,
    /// How fast it is slewed, seconds per second.
    pub slew_rate: f64,
    /// How fast it runs away, where nobody may set it.
    pub drift_rate: f64,
    pub leap: Leap,
    pub kernel_leap: LeapStatus,
    /// chronyd's word, as it is changed on its way.
    pub tracking: fn(&World) -> Option<Answer<Tracking>>,
    /// The same of how it smooths the time that it serves.
    pub smoothing: fn(&World) -> Option<Answer<Option<Smoothing>>>,
    /// The same of the reply to an NTP query.
    pub sample: fn(&World) -> Option<Answer<Sample>>,
    pub follower: Follower,
    /// A leap-seconds file.
    pub leap_watch: Option<LeapWatch>,
    pub record: ClockRecord,
}

impl World {
    /// A machine whose clock is right, and followed by chronyd's report alone.
    pub fn new() -> Self {
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
            smoothing: |_| None,
            sample: |_| None,
            follower: Follower::new(HOLDOVER),
            leap_watch: None,
            record: ClockRecord::unsynchronised(SourceState::Unknown, boot),
        }
    }

    pub fn truth(&self) -> NtpTimestamp {
        self.start.plus((self.elapsed * UNITS) as i64)
    }

    pub fn now(&self) -> Moment {
        Moment {
            system: self.truth().plus(((self.slewed + self.stepped) * UNITS) as i64),
            since_boot: Duration::from_secs_f64(self.elapsed + self.slewed),
        }
    }

    pub fn report(&self) -> Tracking {
        Tracking {
            reference_id: UPSTREAM,
            source_address: Some(UPSTREAM.0.into()),
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
    pub fn reply(&self) -> Sample {
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

    pub fn pass(&mut self, seconds: f64) {
        self.elapsed += seconds;
        self.slewed += (self.slew_rate + self.drift_rate) * seconds;
        // A daemon slews until the clock is right.
        if self.slew_rate * (self.slewed + self.stepped) > 0.0 {
            (self.slewed, self.slew_rate) = (-self.stepped, 0.0);
        }
    }

    /// Started so long before a leap second at [`MIDNIGHT`] that a list has.
    pub fn before_a_leap(kind: LeapKind, seconds: i64, smear: Smear) -> Self {
        let mut world = Self::new();
        world.start = NtpTimestamp::from_unix(MIDNIGHT - seconds, 0);
        let text = leap::list(&[(MIDNIGHT, leap_seconds(kind) as i64)], MIDNIGHT + 1_000_000);
        let list = LeapList::parse(text.as_bytes()).expect("a list");
        let news = LeapNews { list: Some(list), refused: String::new() };
        world.leap_watch = Some(LeapWatch::new("FILE".to_owned(), news, smear));
        world
    }

    /// Time makes its leap second, and the system's clock does.
    pub fn make_leap(&mut self, kind: LeapKind) {
        self.start = self.start.plus((-leap_seconds(kind) * UNITS) as i64);
    }

    /// Why the leap-seconds file is not followed.
    pub fn why(&self) -> String {
        let watch = self.leap_watch.as_ref().expect("there is one");
        watch.account(Some(&self.record), self.now()).why
    }

    /// The clock role asks, as it does once a second.
    pub fn ask(&mut self) -> Judgement {
        let kernel = KernelClock {
            synchronised: false,
            leap: self.kernel_leap,
            error_bound: Duration::from_secs(16),
        };
        let (tracking, sample) = ((self.tracking)(self), (self.sample)(self));
        let smoothing = (self.smoothing)(self);
        let (before, now) = (self.record, self.now());
        let quiet = without_smeared_leap(kernel, Some(&before), now);
        let judgement = self.follower.judge(
            tracking.as_ref(),
            smoothing.as_ref(),
            sample.as_ref(),
            Some(&quiet),
        );
        self.record = judgement.record.unwrap_or(before);
        self.record.source_state = judgement.state;
        let near = |watch: &LeapWatch| watch.near(&self.record, Some(&before), now, Some(&kernel));
        self.record.leap_second = self.leap_watch.as_ref().and_then(near);
        judgement
    }

    pub fn state(&self) -> ClockState {
        self.record.state_at(self.now(), -25)
    }

    /// How far off a client is put, in seconds, by a state that may be a second old.
    pub fn error(&self, state: &ClockState) -> f64 {
        let system = self.now().system;
        system.plus(state.correction(system)).seconds_since_f64(self.truth())
    }

    /// Seconds in which the daemon is asked at the start of each. All the time clients are told the
    /// truth within the bound that they are told. Returns the largest error.
    pub fn live(&mut self, seconds: u32) -> f64 {
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

/// 2027-01-01T00:00:00Z.
pub const MIDNIGHT: i64 = 1_798_761_600;

pub const KINDS: [LeapKind; 2] = [LeapKind::Insert, LeapKind::Delete];

/// What the last minute has more than others.
pub fn leap_seconds(kind: LeapKind) -> f64 {
    if kind == LeapKind::Insert { 1.0 } else { -1.0 }
}

pub const SILENT: fn(&World) -> Option<Answer<Tracking>> =
    |_| Some(Answer::Silence("nobody listens there".to_owned()));
