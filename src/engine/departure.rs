//! When a reply will leave: some time after the clock was read for it.
//!
//! The transmit timestamp is sealed, so it is written before the reply leaves: before all replies
//! of the batch are sealed, and before those ahead of it are sent. Both take their time again and
//! again, and what they took for earlier batches of about this size, after about as long a rest, is
//! a good guess of what they will take now: a processor that comes out of its sleep is slow at
//! first. The worker measures it with two readings of the clock for each batch, and the engine
//! writes
//!
//! ```text
//! transmit = clock reading + lead + (place among the replies + ½) × time for one reply
//! ```
//!
//! Half of the time for its own: the kernel has worked on a reply before it leaves, and goes on
//! with it afterwards. Where in doubt the timestamp is rather too early, as it would be without
//! all this; one from the future could break a nearby client's sums. So there is a limit to what is
//! added: on a busy host most batches are measured with somebody else's turn of the processor in
//! them, which a reply on loopback may bring about itself by waking its client. What is learned of
//! such batches is true of the worker and not of its replies.

use crate::limits::{
    BATCH_DATAGRAMS, DEPARTURE_AHEAD_MAX, DEPARTURE_AHEAD_REPLY_MAX, DEPARTURE_GAIN_SHIFT,
    DEPARTURE_NOISE, DEPARTURE_RESTS, DEPARTURE_SPAN_MAX,
};
use crate::wire::timestamp::NtpTimestamp;

/// What departures of one worker have taken so far.
#[derive(Debug, Default)]
pub(super) struct Departures {
    /// By the worker's rest before the batch, and by the logarithm of the number of replies: the
    /// fewer they are, the more each costs.
    spans: [[Spans; SIZES]; RESTS],
    stamped: Option<Stamped>,
    /// When the last batch had been handed over.
    ended: NtpTimestamp,
}

const SIZES: usize = BATCH_DATAGRAMS.ilog2() as usize + 1;
const RESTS: usize = DEPARTURE_RESTS.len() + 1;

/// Running estimates for batches of about one size; zero until one was sent.
#[derive(Clone, Copy, Debug, Default)]
struct Spans {
    /// From the reading of the clock until the replies are handed over.
    lead: Estimate,
    /// From one reply to the next.
    reply: Estimate,
}

/// The batch that is about to leave.
#[derive(Clone, Copy, Debug)]
struct Stamped {
    at: NtpTimestamp,
    replies: usize,
    class: Class,
}

/// Which batches take about the same time: the places of their spans.
#[derive(Clone, Copy, Debug)]
struct Class {
    rest: usize,
    size: usize,
}

/// Times of departure of one batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    first: NtpTimestamp,
    reply: i64,
}

impl Departures {
    /// The departures of a batch of `replies` for which the clock was read just now.
    pub(super) fn schedule(&mut self, now: NtpTimestamp, replies: usize) -> Schedule {
        let class = Class { rest: rest(now.seconds_since(self.ended)), size: size(replies) };
        self.stamped = (replies > 0).then_some(Stamped { at: now, replies, class });
        let (lead, reply) = bounded(self.known(class), replies);
        Schedule { first: now.plus(lead + reply / 2), reply }
    }

    /// Learns from the last batch: its replies were handed to the kernel from `started` until
    /// `ended`. A clock that was stepped meanwhile, or a worker that was not let run, teaches
    /// nothing.
    pub(super) fn sent(&mut self, started: NtpTimestamp, ended: NtpTimestamp) {
        self.ended = ended;
        let Some(Stamped { at, replies, class }) = self.stamped.take() else { return };
        let (lead, send) = (started.seconds_since(at), ended.seconds_since(started));
        let plausible = 0..=DEPARTURE_SPAN_MAX;
        if plausible.contains(&lead) && plausible.contains(&send) {
            let mut spans = self.known(class);
            spans.lead.learn(lead);
            spans.reply.learn(send / replies as i64);
            self.spans[class.rest][class.size] = spans;
        }
    }

    /// What batches of this class take, or while none was sent, those of this size after a shorter
    /// rest, or else a longer one.
    fn known(&self, class: Class) -> Spans {
        let is_known = |spans: &Spans| spans.reply.0 > 0;
        let mut rests = (0..=class.rest).rev().chain(class.rest + 1..RESTS);
        let spans = rests.find_map(|rest| Some(self.spans[rest][class.size]).filter(is_known));
        spans.unwrap_or_default()
    }
}

/// Lead and time for one reply, both shortened alike if the last of so many replies would be named
/// too far ahead: replies keep their order.
fn bounded(Spans { lead, reply }: Spans, replies: usize) -> (i64, i64) {
    let replies = replies as i64;
    let ahead = lead.0 + replies * reply.0;
    let ahead_max = (replies * DEPARTURE_AHEAD_REPLY_MAX).min(DEPARTURE_AHEAD_MAX);
    if ahead <= ahead_max {
        return (lead.0, reply.0);
    }
    (lead.0 * ahead_max / ahead, reply.0 * ahead_max / ahead)
}

fn size(replies: usize) -> usize {
    (replies.clamp(1, BATCH_DATAGRAMS)).ilog2() as usize
}

/// The place of a rest of so many units of 2⁻³² s. After a step back of the clock it is taken for
/// the longest.
fn rest(units: i64) -> usize {
    DEPARTURE_RESTS.iter().filter(|&&longest| units as u64 >= longest).count()
}

impl Schedule {
    /// When the reply at `place` leaves, counted among the replies.
    pub(super) fn departure(self, place: usize) -> NtpTimestamp {
        self.first.plus(place as i64 * self.reply)
    }
}

/// A running estimate of a span of time, in units of 2⁻³² s.
#[derive(Clone, Copy, Debug, Default)]
struct Estimate(i64);

impl Estimate {
    /// Moves towards `sample`: down by a share of what it is off, up by the same share of no more
    /// than half of the estimate. A preemption, many times as long as what is measured, leaves a
    /// thirty-second part behind; and a new estimate, starting from nothing, is never too long.
    fn learn(&mut self, sample: i64) {
        let bound = (self.0 / 2).max(DEPARTURE_NOISE);
        self.0 += (sample - self.0).min(bound) >> DEPARTURE_GAIN_SHIFT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: NtpTimestamp = NtpTimestamp::from_unix(1_800_000_000, 999_999_000);
    const MICROSECOND: i64 = (1 << 32) / 1_000_000;

    /// Sends a batch after `lead`, one reply in each `reply`. How far each departure was off what
    /// was written, if a reply leaves in the middle of its time.
    fn send(departures: &mut Departures, replies: usize, lead: i64, reply: i64) -> Vec<i64> {
        let schedule = departures.schedule(START, replies);
        let started = START.plus(lead);
        departures.sent(started, started.plus(replies as i64 * reply));
        let left = |place: usize| started.plus(place as i64 * reply + reply / 2);
        (0..replies).map(|place| left(place).seconds_since(schedule.departure(place))).collect()
    }

    #[test]
    fn steady_costs_are_learned_for_every_place_and_size() {
        let mut departures = Departures::default();
        for _ in 0..200 {
            for replies in [1, 2, 5, 8, 31, BATCH_DATAGRAMS] {
                // A lone reply costs more.
                let reply = MICROSECOND + 4 * MICROSECOND / replies as i64;
                send(&mut departures, replies, 2 * MICROSECOND, reply);
            }
        }
        for replies in [1, 2, 5, 8, 31, BATCH_DATAGRAMS] {
            let reply = MICROSECOND + 4 * MICROSECOND / replies as i64;
            for error in send(&mut departures, replies, 2 * MICROSECOND, reply) {
                assert!(error.abs() < MICROSECOND / 5, "{replies} replies: {error} units");
            }
        }
    }

    #[test]
    fn nothing_is_added_before_anything_is_known() {
        let schedule = Departures::default().schedule(START, 3);
        assert_eq!(schedule.departure(2), START);
    }

    #[test]
    fn a_new_estimate_approaches_from_below() {
        let mut departures = Departures::default();
        for _ in 0..500 {
            for error in send(&mut departures, 4, 3 * MICROSECOND, 2 * MICROSECOND) {
                assert!(error >= 0, "{error} units before its time");
            }
        }
    }

    #[test]
    fn preemptions_are_not_remembered() {
        let mut departures = Departures::default();
        for batch in 0..1000 {
            let lead = if batch % 10 == 9 { 500 } else { 2 } * MICROSECOND;
            send(&mut departures, 1, lead, 4 * MICROSECOND);
        }
        let error = send(&mut departures, 1, 2 * MICROSECOND, 4 * MICROSECOND)[0];
        assert!(error.abs() < MICROSECOND / 5, "{error} units");
    }

    /// On a busy host every batch is held up: in what is learned, and never in what is told.
    #[test]
    fn c097_no_reply_is_named_further_ahead_than_the_limit() {
        for (lead, all) in [(900, 900), (0, 900), (900, 32), (40, 40)] {
            let mut departures = Departures::default();
            for _ in 0..2000 {
                for replies in [1, 2, 9, 16, 31, BATCH_DATAGRAMS] {
                    let reply = all * MICROSECOND / replies as i64;
                    send(&mut departures, replies, lead * MICROSECOND, reply);
                }
            }
            for replies in [1, 2, 9, 16, 31, BATCH_DATAGRAMS] {
                let schedule = departures.schedule(START, replies);
                let ahead = |place| schedule.departure(place).seconds_since(START);
                let ahead_max = replies as i64 * DEPARTURE_AHEAD_REPLY_MAX;
                assert!(ahead(replies - 1) <= ahead_max.min(DEPARTURE_AHEAD_MAX), "{replies}");
                assert!(ahead(0) > 0);
                for place in 1..replies {
                    assert!(ahead(place) > ahead(place - 1), "they leave one after the other");
                }
            }
        }
    }

    /// A processor that wakes up needs longer.
    #[test]
    fn a_rest_before_a_batch_is_taken_into_account() {
        let mut departures = Departures::default();
        let mut now = START;
        let mut errors = Vec::new();
        for batch in 0..2000 {
            let (rest, lead) = if batch % 2 == 0 { (10, 2) } else { (5000, 9) };
            now = now.plus(rest * MICROSECOND);
            let schedule = departures.schedule(now, 1);
            let started = now.plus(lead * MICROSECOND);
            now = started.plus(4 * MICROSECOND);
            departures.sent(started, now);
            let left = started.plus(2 * MICROSECOND);
            errors.push(left.seconds_since(schedule.departure(0)));
        }
        for error in &errors[1000..] {
            assert!(error.abs() < MICROSECOND / 5, "{error} units");
        }
    }

    #[test]
    fn what_is_known_of_another_rest_is_the_first_guess() {
        let mut departures = Departures::default();
        for _ in 0..200 {
            // Each begins when the one before has ended, as far as it is told.
            departures.ended = START;
            send(&mut departures, 4, MICROSECOND, 2 * MICROSECOND);
        }
        departures.ended = START.plus(-(1 << 32));
        for error in send(&mut departures, 4, MICROSECOND, 2 * MICROSECOND) {
            assert!(error.abs() < MICROSECOND / 5, "{error} units");
        }
    }

    #[test]
    fn a_change_of_load_is_followed() {
        let mut departures = Departures::default();
        for reply in [1, 9, 2] {
            for _ in 0..200 {
                send(&mut departures, 16, MICROSECOND, reply * MICROSECOND);
            }
            let error = send(&mut departures, 16, MICROSECOND, reply * MICROSECOND)[15];
            assert!(error.abs() < MICROSECOND / 5, "{error} units");
        }
    }

    #[test]
    fn a_stepped_clock_and_a_batch_that_was_not_stamped_teach_nothing() {
        let mut departures = Departures::default();
        let hour = 3600 << 32;
        for (started, ended) in [(-hour, -hour), (0, -hour), (hour, hour), (0, hour)] {
            departures.schedule(START, 1);
            departures.sent(START.plus(started), START.plus(ended));
        }
        departures.sent(START, START.plus(MICROSECOND));
        departures.schedule(START, 0);
        departures.sent(START, START.plus(MICROSECOND));
        for replies in 1..=BATCH_DATAGRAMS {
            assert_eq!(departures.schedule(START, replies).departure(replies - 1), START);
        }
    }
}
