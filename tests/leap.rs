//! Leap seconds of a list, announced or smeared, in simulated time.

mod common;

use common::leap::list;
use common::world::{KINDS, MIDNIGHT, SILENT, World, leap_seconds};
use timeball::clock::follow::Answer;
use timeball::clock::leap::{LeapKind, SMEARED_REFERENCE_ID, Smear};
use timeball::clock::leap_list::LeapList;
use timeball::clock::leap_watch::LeapNews;
use timeball::clock::record::SourceState;
use timeball::sys::adjtimex::LeapStatus;
use timeball::wire::ntp::Leap;
use timeball::wire::timestamp::NtpTimestamp;

#[test]
fn c103_a_leap_second_of_the_list_is_announced_on_its_day_and_passes() {
    for (kind, is_silent) in KINDS.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        let mut world = World::before_a_leap(kind, 86_402, Smear::Off);
        world.live(1);
        assert_eq!(world.state().leap, Leap::None);
        world.live(2);
        assert_eq!(world.state().leap, kind.warning());
        world.pass(86_390.0);
        world.live(4);
        if is_silent {
            world.tracking = SILENT;
        }
        world.live(if kind == LeapKind::Insert { 4 } else { 3 });
        assert_eq!(world.state().leap, kind.warning(), "the last second");
        world.pass(1.0);
        world.make_leap(kind);
        if kind == LeapKind::Insert {
            // 23:59:59 once more. The kernel need not say so, and nobody was asked since.
            assert_eq!((world.state().leap, world.state().stratum), (Leap::Unsynchronised, 0));
            world.live(1);
            world.pass(0.01);
        }
        let state = world.state();
        assert_eq!((state.leap, state.stratum), (Leap::None, 2), "{kind:?}");
        assert!(state.root_dispersion_seconds < 0.001, "a leap second is no step");
        world.live(5);
        assert_eq!(world.state().leap, Leap::None);
    }
}

#[test]
fn the_source_is_believed_against_the_list_and_that_is_shown() {
    let mut world = World::before_a_leap(LeapKind::Insert, 1000, Smear::Off);
    world.live(2);
    assert_eq!((world.state().leap, world.why()), (Leap::Insert, String::new()));
    world.leap = Leap::Delete;
    world.live(2);
    assert_eq!(world.state().leap, Leap::Delete);
    let why = "the source announces a deleted leap second that it does not list, and is believed";
    assert_eq!(world.why(), why);
    // Weeks before it the source may be right.
    let mut world = World::before_a_leap(LeapKind::Insert, 20 * 86_400, Smear::Off);
    world.leap = Leap::Insert;
    world.live(2);
    assert_eq!((world.state().leap, world.why()), (Leap::Insert, String::new()));
    let mut world = World::before_a_leap(LeapKind::Insert, 60 * 86_400, Smear::Off);
    world.leap = Leap::Insert;
    world.live(2);
    assert!(world.why().starts_with("the source announces an inserted leap second"));
}

#[test]
fn a_list_that_has_expired_or_never_was_announces_nothing_and_says_why() {
    let expired = LeapList::parse(list(&[(MIDNIGHT, 1)], MIDNIGHT - 5000).as_bytes());
    let news = [
        (LeapNews { list: expired.ok(), refused: String::new() }, "it has expired; no leap second"),
        (LeapNews { list: None, refused: "it is no text".to_owned() }, "it is no text; no leap"),
    ];
    for (news, says) in news {
        let mut world = World::before_a_leap(LeapKind::Insert, 1000, Smear::Off);
        world.leap_watch.as_mut().expect("there is one").take(news);
        world.live(2);
        assert_eq!((world.state().leap, world.state().stratum), (Leap::None, 2));
        assert!(world.why().starts_with(says), "{}", world.why());
        // What the source says is told as ever.
        world.leap = Leap::Insert;
        world.live(2);
        assert_eq!(world.state().leap, Leap::Insert);
    }
}

/// From noon to noon through a leap second, looked at ten times a second where something happens.
fn smear(kind: LeapKind, at_midnight: fn(&mut World)) {
    const BEFORE_NOON: f64 = 5.0;
    let length = 86_400.0 + leap_seconds(kind);
    let leaps_at = 43_200.0 + leap_seconds(kind).min(0.0);
    let noon = NtpTimestamp::from_unix(MIDNIGHT - 43_200, 0);
    let mut world = World::before_a_leap(kind, 43_205, Smear::Linear);
    world.leap = kind.warning();
    let (mut is_made, mut asked) = (false, f64::MIN);
    while world.elapsed - BEFORE_NOON < length + 5.0 {
        let since_noon = world.elapsed - BEFORE_NOON;
        if !is_made && since_noon > leaps_at - 1e-6 {
            (is_made, world.leap) = (true, Leap::None);
            world.make_leap(kind);
        }
        let state = world.state();
        let even = since_noon.min(0.0)
            + since_noon.clamp(0.0, length) * 86_400.0 / length
            + (since_noon - length).max(0.0);
        let system = world.now().system;
        let told = system.plus(state.correction(system)).seconds_since_f64(noon);
        if world.record.source_state != SourceState::Unknown {
            assert!((told - even).abs() < 1e-6, "{kind:?} {since_noon}: {told}, {even}");
            assert_eq!((state.leap, state.stratum), (Leap::None, 2), "{since_noon}");
            assert!(state.root_dispersion_seconds < 0.001, "{since_noon}");
            let is_smeared = since_noon > 1.0 && since_noon < length - 1.0;
            if is_smeared || !(-0.1..length + 0.1).contains(&since_noon) {
                assert_eq!(state.reference_id == SMEARED_REFERENCE_ID, is_smeared, "{since_noon}");
            }
        }
        if (since_noon - 43_190.0).abs() < 0.05 {
            at_midnight(&mut world);
        }
        let is_eventful = [0.0, 43_200.0, length].iter().any(|at| (since_noon - at).abs() < 11.0);
        if world.elapsed - asked > 0.99 {
            asked = world.elapsed;
            world.kernel_leap = match since_noon {
                _ if kind == LeapKind::Insert
                    && (leaps_at..leaps_at + 1.0).contains(&since_noon) =>
                {
                    LeapStatus::InProgress
                }
                _ if is_made => LeapStatus::None,
                _ => LeapStatus::Insert,
            };
            world.ask();
        }
        world.pass(if is_eventful { 0.1 } else { 1.0 });
    }
}

#[test]
fn c103_clients_see_nothing_of_a_smeared_leap_second() {
    for kind in KINDS {
        smear(kind, |_| {});
    }
}

#[test]
fn a_smear_goes_on_without_its_source() {
    for kind in KINDS {
        smear(kind, |world| {
            world.tracking = |world| {
                let is_back = world.elapsed > 43_205.0 + 300.0;
                is_back
                    .then(|| Answer::Word(world.report(), world.now()))
                    .or(Some(Answer::Silence("nobody listens there".to_owned())))
            }
        });
    }
}

/// chronyd with `leapsecmode slew`: its correction takes the leap second up at once.
#[test]
fn a_leap_second_that_the_daemon_slews_is_made_at_once() {
    let mut world = World::before_a_leap(LeapKind::Insert, 10, Smear::Linear);
    for _ in 0..10 {
        world.ask();
        world.pass(1.0);
    }
    // Time makes it, the system's clock does not.
    world.make_leap(LeapKind::Insert);
    (world.stepped, world.slew_rate) = (1.0, -1.0 / 12.0);
    for _ in 0..50 {
        world.ask();
        let state = world.state();
        assert_eq!((state.leap, state.stratum), (Leap::None, 2));
        let even = (world.elapsed - 10.0 + 43_200.0) * 86_400.0 / 86_401.0;
        let noon = NtpTimestamp::from_unix(MIDNIGHT - 43_200, 0);
        let system = world.now().system;
        let told = system.plus(state.correction(system)).seconds_since_f64(noon);
        assert!((told - even).abs() < 1e-6, "{}: {told}, {even}", world.elapsed);
        world.pass(0.1);
    }
}

#[test]
fn a_source_that_smears_is_not_smeared_again() {
    let account = |world: &World| {
        let watch = world.leap_watch.as_ref().expect("there is one");
        watch.account(Some(&world.record), world.now())
    };
    // Its report says that it may; or its replies that it does.
    let mut world = World::before_a_leap(LeapKind::Insert, 1000, Smear::Linear);
    world.leap_watch.as_mut().expect("there is one").source_smears(true);
    world.live(2);
    let system = world.now().system;
    assert_eq!((world.state().leap, world.state().correction(system)), (Leap::None, 0));
    assert!(account(&world).smear.is_some_and(|smear| smear.is_refused));
    assert!(world.why().starts_with("the source smears leap seconds by itself"));

    let mut world = World::before_a_leap(LeapKind::Insert, 1000, Smear::Linear);
    world.sample = |world| {
        let mut sample = world.reply();
        sample.header.reference_id = SMEARED_REFERENCE_ID;
        sample.offset_seconds += 0.25;
        Some(Answer::Word(sample, world.now()))
    };
    world.ask();
    assert!((world.error(&world.state()) - 0.25).abs() < 1e-6, "its smear alone");
    assert!(account(&world).smear.is_some_and(|smear| smear.is_refused));
}
