//! A simulated card: its clock is ahead by an offset, drifts, is stepped, and is read with delays
//! of which each way takes its own part.

use proptest::prelude::*;

use super::*;

const SECOND: i64 = 1_000_000_000;

/// TAI is ahead of UTC by so much.
const TAI: i64 = 37 * SECOND;

/// The host's clocks when the simulation begins: 2027, a day after the start.
const START: Anchor = Anchor { monotonic: 86_400 * SECOND, system: 1_800_000_000 * SECOND };

struct Card {
    /// What it shows at [`START`].
    phc: i64,
    /// What it gains on the monotonic clock, in seconds per second.
    drift: f64,
    clock: HardwareClock,
}

impl Card {
    fn new(phc: i64, drift: f64) -> Self {
        Self { phc, drift, clock: HardwareClock::default() }
    }

    /// One that ptp4l keeps, with the quartz of a cheap card.
    fn of_tai() -> Self {
        Self::new(START.system + TAI, 50e-6)
    }

    /// What it shows so long after the start.
    fn at(&self, since: i64) -> i64 {
        self.phc.wrapping_add(since).wrapping_add((since as f64 * self.drift).round() as i64)
    }

    /// It is read so long after the start; of `delay` the part `early` passes before.
    fn read(&self, since: i64, delay: i64, early: f64) -> Reading {
        let before = START.monotonic + since - (delay as f64 * early).round() as i64;
        Reading::between(self.at(since), before, before + delay)
    }

    /// A look at this second, of a quick reading among slow ones.
    fn look(&mut self, second: i64) -> Option<Translation> {
        let since = second * SECOND;
        let look = [
            self.read(since, 9_000, 1.0),
            self.read(since + 10_000, 2_000, 0.6),
            self.read(since + 20_000, 40_000, 0.0),
        ];
        self.clock.take(&look)
    }

    fn followed(mut self, seconds: i64) -> (Self, Translation) {
        let looks: Vec<_> = (0..seconds).map(|second| self.look(second)).collect();
        let translation = looks.last().copied().flatten().expect("followed");
        (self, translation)
    }
}

/// The host's clocks so long after the start.
fn anchor(since: i64) -> Anchor {
    Anchor { monotonic: START.monotonic + since, system: START.system + since }
}

fn system(since: i64) -> NtpTimestamp {
    anchor(since).system_at(START.monotonic + since)
}

/// How far a time is off what it should be, in nanoseconds.
fn off(found: NtpTimestamp, since: i64) -> f64 {
    found.seconds_since_f64(system(since)) * 1e9
}

#[test]
fn offset_and_drift_of_a_card_in_tai_are_taken_out() {
    let (card, translation) = Card::of_tai().followed(8);
    assert!((translation.rate + 50e-6).abs() < 1e-8, "{translation:?}");
    for since in [7 * SECOND + 300, 7 * SECOND + SECOND / 2, 8 * SECOND - 1] {
        let now = anchor(since + 30_000);
        let software = system(since + 25_000);
        let found = translation.arrival(card.at(since), software, &now).expect("translated");
        // The quickest readings passed a tenth of their 2 µs on the wrong side of the middle.
        assert!((off(found, since) + 200.0).abs() < 20.0, "{}", off(found, since));
        assert!(off(found, since).abs() < translation.error_at(now.monotonic));
        assert!(translation.error_at(now.monotonic) < 4_000.0);
    }
}

#[test]
fn a_line_takes_three_looks() {
    let mut card = Card::of_tai();
    assert_eq!([card.look(0), card.look(1)], [None, None]);
    assert!(card.look(2).is_some());
    assert_eq!(Card::new(0, 2e-3).clock.take(&[]), None);
}

#[test]
fn a_card_that_is_stepped_is_followed_anew_and_its_stamps_are_refused_meanwhile() {
    for step in [-3600 * SECOND, -TAI, -11_000_000, 11_000_000, TAI, i64::MAX / 2] {
        let (mut card, before) = Card::of_tai().followed(8);
        card.phc = card.phc.wrapping_add(step);
        let (since, now) = (7 * SECOND + SECOND / 2, anchor(7 * SECOND + SECOND / 2 + 20_000));
        let stamp = card.at(since);
        assert_eq!(before.arrival(stamp, system(since + 9_000), &now), None, "{step}");
        assert_eq!(before.departure(stamp, system(since - 9_000), &now), None, "{step}");
        assert_eq!([card.look(8), card.look(9)], [None, None], "{step}");
        let after = card.look(10).expect("followed anew");
        let since = 10 * SECOND + 5_000;
        let now = anchor(since + 20_000);
        let found = after.arrival(card.at(since), system(since + 9_000), &now);
        assert!(off(found.expect("translated"), since).abs() < 1_000.0, "{step}");
    }
    // A step that a worker cannot see is seen at the next look.
    let (mut card, _) = Card::of_tai().followed(8);
    card.phc += 60_000;
    assert_eq!(card.look(8), None);
}

#[test]
fn without_readings_a_translation_gets_worse_and_ends() {
    let (mut card, translation) = Card::of_tai().followed(8);
    for second in 8..15 {
        assert_eq!(card.clock.take(&[]), Some(translation));
        let since = second * SECOND;
        let now = anchor(since + 9_000);
        let found = translation.arrival(card.at(since), system(since + 5_000), &now);
        assert!(off(found.expect("translated"), since).abs() < 1_000.0);
    }
    let now = anchor(15 * SECOND + 20_001);
    let stamp = card.at(15 * SECOND + 11_000);
    assert_eq!(translation.arrival(stamp, system(15 * SECOND + 12_000), &now), None);
    // Nor is the first reading after a long time held against what was before it.
    assert_eq!(card.look(60), None);
}

#[test]
fn slow_readings_do_not_count() {
    let (mut card, translation) = Card::of_tai().followed(8);
    let slow = card.read(8 * SECOND, HARDWARE_DELAY_NANOSECONDS_MAX + 1, 1.0);
    let backwards = card.read(8 * SECOND, -1, 0.0);
    assert_eq!(card.clock.take(&[slow, backwards]), Some(translation));
}

#[test]
fn a_card_that_ptp4l_slews_is_followed_when_it_has_settled() {
    let (mut card, _) = Card::of_tai().followed(8);
    // From here on it runs slower by 400 ppm: after a second it is off by 0.4 ms.
    card.phc = card.at(7 * SECOND) - 7 * SECOND + (7e9 * 350e-6) as i64;
    card.drift = -350e-6;
    assert_eq!([card.look(8), card.look(9)], [None, None]);
    let translation = card.look(10).expect("followed anew");
    assert!((translation.rate - 350e-6).abs() < 1e-6, "{translation:?}");
    // No line is laid through a clock that runs away.
    let mut wild = Card::new(0, 5e-3);
    assert!((0..20).all(|second| wild.look(second).is_none()));
}

#[test]
fn the_system_s_clock_may_be_stepped_and_slewed() {
    let (card, translation) = Card::of_tai().followed(8);
    let since = 7 * SECOND + 400_000_000;
    for step in [-3600 * SECOND, -50_000_000, -1_000_000, 1_000_000, 50_000_000, 3600 * SECOND] {
        let mut now = anchor(since + 30_000);
        now.system += step;
        let stepped = |since: i64| system(since).plus((step as f64 * 4.294_967_296) as i64);
        let found = translation.arrival(card.at(since), stepped(since + 9_000), &now);
        let found = found.expect("by the clock as it is now");
        assert!((off(found, since) - step as f64).abs() < 1_000.0, "{step}");
        // The kernel's stamp is of the time before the step: what it says is the only truth then,
        // unless the step looks like a wait.
        let across = translation.arrival(card.at(since), system(since + 9_000), &now);
        let looks_like_a_wait = (-10_000_000..=0).contains(&step);
        assert_eq!(across.is_some(), looks_like_a_wait, "{step}");
    }
}

#[test]
fn a_stamp_is_held_against_the_kernel_s_own() {
    let (card, translation) = Card::of_tai().followed(8);
    let since = 7 * SECOND + SECOND / 2;
    let stamp = card.at(since);
    let now = anchor(since + 20_000_000);
    let arrival = |waited| translation.arrival(stamp, system(since + waited), &now).is_some();
    assert!(arrival(-15_000), "within the error");
    assert!(arrival(0) && arrival(9_900_000), "it waited in a queue");
    assert!(!arrival(-25_000), "it cannot have come after it was taken in");
    assert!(!arrival(10_100_000), "nor waited for so long");
    let departure = |near| translation.departure(stamp, system(since + near), &now).is_some();
    assert!(departure(-9_900_000) && departure(0) && departure(9_900_000));
    assert!(!departure(-10_100_000) && !departure(10_100_000));
}

#[test]
fn clocks_wrap() {
    for phc in [i64::MAX - 5 * SECOND, i64::MIN + 1, -2 * SECOND, 0] {
        let (card, translation) = Card::new(phc, -20e-6).followed(8);
        let since = 7 * SECOND + 123_456;
        let now = anchor(since + 20_000);
        let found = translation.arrival(card.at(since), system(since + 9_000), &now);
        assert!(off(found.expect("translated"), since).abs() < 1_000.0, "{phc}");
    }
}

#[test]
fn readings_by_the_system_s_clock_are_the_same() {
    let card = Card::of_tai();
    let reading = card.read(SECOND, 2_000, 0.6);
    let before = reading.monotonic - 1_000;
    let in_system = |monotonic: i64| monotonic - START.monotonic + START.system;
    let found = Reading::between_system_times(
        reading.phc,
        in_system(before),
        in_system(before + 2_000),
        &anchor(SECOND - 50_000),
    );
    assert_eq!(found, reading);
}

proptest! {
    /// Whatever the card shows, however it drifts, whichever readings are missing and on which
    /// side of the middle they are: the error is within the bound, or there is no translation.
    #[test]
    fn the_error_is_within_its_bound(
        phc in any::<i64>(),
        drift in -200e-6..200e-6,
        looks in prop::collection::vec(
            prop::option::weighted(0.8, (200_i64..15_000, 0.0..1.0, 0_i64..900_000_000)),
            1..40,
        ),
        later in 0_i64..2_000_000_000,
    ) {
        let mut card = Card::new(phc, drift);
        let mut translation = None;
        for (second, look) in (0..).zip(&looks) {
            let reading = look.map(|(delay, early, after)| {
                card.read(second * SECOND + after, delay, early)
            });
            translation = card.clock.take(reading.as_slice());
        }
        let since = (looks.len() as i64 - 1) * SECOND + 900_000_000 + later;
        let now = anchor(since);
        let near = |translation: Translation| {
            Some((translation, translation.departure(card.at(since), system(since), &now)?))
        };
        if let Some((translation, found)) = translation.and_then(near) {
            let bound = translation.error_at(now.monotonic);
            prop_assert!(off(found, since).abs() <= bound, "{} {bound}", off(found, since));
        }
    }

    /// No readings and no stamps, however wrong, make anything panic.
    #[test]
    fn any_readings_and_stamps_are_borne(
        readings in prop::collection::vec((any::<i64>(), any::<i64>(), any::<i64>()), 0..20),
        stamp in any::<i64>(),
        now in (any::<i64>(), any::<i64>()),
    ) {
        let mut clock = HardwareClock::default();
        for (phc, monotonic, delay_nanoseconds) in readings {
            if let Some(translation) = clock.take(&[Reading { phc, monotonic, delay_nanoseconds }])
            {
                let now = Anchor { monotonic: now.0, system: now.1 };
                translation.arrival(stamp, NtpTimestamp::ZERO, &now);
                translation.departure(stamp, NtpTimestamp::ZERO, &now);
            }
        }
    }
}
