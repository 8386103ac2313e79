//! When the ring of master keys turns: pure arithmetic, with every moment an argument.
//!
//! What counts is the age of the newest key. While the server runs, time is that since boot, sleep
//! included (CLOCK_BOOTTIME), which nobody can set: a step of the wall clock moves nothing. The
//! wall clock is asked once, when a key file is read, for how long ago it was written; the file
//! itself says how old the newest key was then. So the age counts from the key's creation, however
//! often the server is restarted, and rewriting the file does not make a key younger.
//!
//! A wall clock that is wrong just then does little: behind, the time since the writing counts as
//! nothing, as chrony counts it always; ahead, the ring turns once, and then a whole interval
//! passes before the next turn.

use std::time::{Duration, SystemTime};

/// The age of the newest key, and the interval between two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    interval: Duration,
    /// Age of the newest key at `as_of`.
    age: Duration,
    /// Time since boot.
    as_of: Duration,
}

impl Rotation {
    /// A ring whose newest key is of this age `now`, in time since boot.
    pub fn new(interval: Duration, age: Duration, now: Duration) -> Self {
        Self { interval, age, as_of: now }
    }

    /// Age of the newest key.
    pub fn age(&self, now: Duration) -> Duration {
        self.age.saturating_add(now.saturating_sub(self.as_of))
    }

    /// How long until the ring must turn; zero when it is time.
    pub fn due_in(&self, now: Duration) -> Duration {
        self.interval.saturating_sub(self.age(now))
    }

    /// The ring has turned: the newest key is new.
    pub fn turned(&mut self, now: Duration) {
        self.reset(Duration::ZERO, now);
    }

    /// Other keys, of which the newest is of this age.
    pub fn reset(&mut self, age: Duration, now: Duration) {
        *self = Self::new(self.interval, age, now);
    }

    /// Another interval, for the same keys.
    pub fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }
}

/// Age of the newest key of a file that was `written` when it was `stored_age` old. Never less
/// than the file says.
pub fn age_at_load(stored_age: Duration, written: SystemTime, now: SystemTime) -> Duration {
    stored_age.saturating_add(now.duration_since(written).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1000);

    /// A host with a server and its key file, simulated in whole seconds.
    struct Host {
        boot_seconds: u64,
        /// Far from zero, so that it can be stepped back.
        wall_seconds: u64,
        /// Age and wall-clock time in the file.
        file: (Duration, SystemTime),
        rotation: Rotation,
        /// True time of each turn.
        turns: Vec<u64>,
    }

    impl Host {
        fn new() -> Self {
            let wall_seconds = 1 << 40;
            let rotation = Rotation::new(INTERVAL, Duration::ZERO, Duration::ZERO);
            let file = (Duration::ZERO, wall(wall_seconds));
            Self { boot_seconds: 0, wall_seconds, file, rotation, turns: Vec::new() }
        }

        fn now(&self) -> Duration {
            Duration::from_secs(self.boot_seconds)
        }

        fn pass(&mut self, seconds: u64) {
            self.boot_seconds += seconds;
            self.wall_seconds += seconds;
        }

        /// What the keeper does when it is woken.
        fn tick(&mut self) {
            if self.rotation.due_in(self.now()).is_zero() {
                self.rotation.turned(self.now());
                self.file = (Duration::ZERO, wall(self.wall_seconds));
                self.turns.push(self.boot_seconds);
            }
        }

        fn restart(&mut self) {
            let age = age_at_load(self.file.0, self.file.1, wall(self.wall_seconds));
            self.rotation = Rotation::new(INTERVAL, age, self.now());
        }
    }

    fn wall(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[derive(Clone, Debug)]
    enum Event {
        Pass(u64),
        Step(i64),
        Restart,
        /// The file is written again, as an operator's copy or an import does.
        Rewrite,
    }

    fn events(with_steps: bool) -> impl Strategy<Value = Vec<Event>> {
        let steps = if with_steps { -1_000_000_i64..1_000_000 } else { 0..1 };
        let event = prop_oneof![
            6 => (0_u64..400).prop_map(Event::Pass),
            2 => steps.prop_map(Event::Step),
            1 => Just(Event::Restart),
            1 => Just(Event::Rewrite),
        ];
        prop::collection::vec(event, 1..80)
    }

    fn run(events: &[Event], restarts: bool) -> Host {
        let mut host = Host::new();
        for event in events {
            match event {
                Event::Pass(seconds) => host.pass(*seconds),
                Event::Step(seconds) => {
                    host.wall_seconds = host.wall_seconds.saturating_add_signed(*seconds);
                }
                Event::Restart if restarts => host.restart(),
                Event::Restart => {}
                Event::Rewrite => {
                    host.file = (host.rotation.age(host.now()), wall(host.wall_seconds));
                }
            }
            host.tick();
        }
        host
    }

    /// Turns are an interval apart at least, and at most by the time between two looks more.
    fn assert_regular(host: &Host) {
        let mut before = 0;
        for &turn in &host.turns {
            assert!((1000..1400).contains(&(turn - before)), "{:?}", host.turns);
            before = turn;
        }
        assert!(host.boot_seconds - before < 1000, "{:?}", host.turns);
    }

    proptest! {
        #[test]
        fn restarts_and_rewriting_do_not_move_a_turn(events in events(false)) {
            assert_regular(&run(&events, true));
        }

        #[test]
        fn steps_of_the_wall_clock_do_not_move_a_turn(events in events(true)) {
            assert_regular(&run(&events, false));
        }

        /// With steps and restarts a turn may come early, when the clock is ahead just then: at
        /// most once for a restart.
        #[test]
        fn a_wrong_clock_at_a_restart_turns_the_ring_once(events in events(true)) {
            let host = run(&events, true);
            let restarts = events.iter().filter(|event| matches!(event, Event::Restart)).count();
            prop_assert!(host.turns.len() <= host.boot_seconds as usize / 1000 + restarts);
        }
    }

    #[test]
    fn time_that_goes_back_is_no_time() {
        let rotation = Rotation::new(INTERVAL, Duration::from_secs(10), Duration::from_secs(500));
        assert_eq!(rotation.age(Duration::from_secs(400)), Duration::from_secs(10));
        let far = age_at_load(Duration::MAX, wall(0), wall(1 << 40));
        assert_eq!(Rotation::new(INTERVAL, far, Duration::ZERO).due_in(INTERVAL), Duration::ZERO);
    }
}
