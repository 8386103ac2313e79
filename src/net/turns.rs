//! Whose turn it is among the sockets of a worker, and how much it may take.
//!
//! NTS requests come to sockets of their own ([`crate::sys::steering`]). These and all others take
//! turns, and the others have small bites while NTS requests come: whoever comes during a bite
//! waits for its end. So a flood of plain requests costs NTS clients a bite of waiting and not
//! their answers; and a flood of what looks like NTS leaves the others a share. The fewer NTS
//! requests come, the larger the bites.
//!
//! Beside that a batch is small until it comes full, and twice as large then: few replies at a time
//! leave nearer to their transmit timestamps, many cost less.

use crate::limits::{
    BATCH_DATAGRAMS, BATCH_DATAGRAMS_FIRST, BITE_DATAGRAMS, BITE_DATAGRAMS_FIRST, BITES_AFTER_NTS,
};

/// See the module.
#[derive(Debug)]
pub(super) struct Turns {
    nts: Queue,
    rest: Queue,
    is_nts_next: bool,
    /// Turns of the others since NTS requests came.
    turns_since_nts: u32,
}

impl Turns {
    /// Of so many sockets, of which the first `nts` are for NTS requests.
    pub(super) fn new(sockets: usize, nts: usize) -> Self {
        Self {
            nts: Queue::of(0, nts),
            rest: Queue::of(nts, sockets - nts),
            is_nts_next: true,
            turns_since_nts: BITES_AFTER_NTS,
        }
    }

    /// The sockets in the order in which they are to be asked, each with how many datagrams may be
    /// taken from it at the most.
    pub(super) fn order(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (first, second) =
            if self.is_nts_next { (self.nts, self.rest) } else { (self.rest, self.nts) };
        first.order().chain(second.order())
    }

    /// The socket at `place` had so many datagrams, and its turn.
    pub(super) fn took(&mut self, place: usize, received: usize) {
        self.is_nts_next = place >= self.rest.start;
        if !self.is_nts_next {
            self.nts.took(place, received, BATCH_DATAGRAMS);
            self.rest.most = BITE_DATAGRAMS_FIRST;
            self.turns_since_nts = 0;
        } else if self.turns_since_nts < BITES_AFTER_NTS {
            self.rest.took(place, received, BITE_DATAGRAMS);
            self.turns_since_nts += 1;
        } else {
            self.rest.took(place, received, BATCH_DATAGRAMS);
        }
    }
}

/// Sockets that are alike: so many from `start` on.
#[derive(Clone, Copy, Debug)]
struct Queue {
    start: usize,
    sockets: usize,
    /// The one that had the last turn.
    last: usize,
    /// How many datagrams the next batch takes at the most.
    most: usize,
}

impl Queue {
    fn of(start: usize, sockets: usize) -> Self {
        Self { start, sockets, last: start, most: BATCH_DATAGRAMS_FIRST }
    }

    fn order(self) -> impl Iterator<Item = (usize, usize)> {
        let Self { start, sockets, last, most } = self;
        (1..=sockets).map(move |step| (start + (last - start + step) % sockets, most))
    }

    /// The next batch is at most `limit` datagrams.
    fn took(&mut self, place: usize, received: usize, limit: usize) {
        self.last = place;
        let next = if received >= self.most {
            2 * self.most
        } else if received < self.most / 2 {
            self.most / 2
        } else {
            self.most
        };
        self.most = next.clamp(BATCH_DATAGRAMS_FIRST, limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The next turns, if the sockets at these places always have more than can be taken: whose
    /// they are, and how many datagrams they take.
    fn turns(turns: &mut Turns, busy: &[usize], count: usize) -> Vec<(usize, usize)> {
        let next = |_| {
            let turn = turns.order().find(|(place, _)| busy.contains(place)).expect("one is busy");
            turns.took(turn.0, turn.1);
            turn
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn batches_grow_while_they_come_full_and_shrink_again() {
        let mut queue = Queue::of(0, 1);
        for _ in 0..BATCH_DATAGRAMS {
            let most = queue.most;
            queue.took(0, most, BATCH_DATAGRAMS);
            assert!(queue.most == 2 * most || most == BATCH_DATAGRAMS);
        }
        assert_eq!(queue.most, BATCH_DATAGRAMS);
        queue.took(0, BATCH_DATAGRAMS - 1, BATCH_DATAGRAMS);
        assert_eq!(queue.most, BATCH_DATAGRAMS, "nearly full");
        (0..BATCH_DATAGRAMS).for_each(|_| queue.took(0, 1, BATCH_DATAGRAMS));
        assert_eq!(queue.most, BATCH_DATAGRAMS_FIRST);
    }

    #[test]
    fn sockets_of_one_kind_take_turns() {
        let places = |turns: Vec<(usize, usize)>| -> Vec<usize> {
            turns.into_iter().map(|(place, _)| place).collect()
        };
        let mut of_three = Turns::new(3, 0);
        assert_eq!(places(turns(&mut of_three, &[0, 1, 2], 4)), [1, 2, 0, 1]);
        assert_eq!(places(turns(&mut of_three, &[0, 1], 3)), [0, 1, 0]);
        let mut of_both = Turns::new(4, 2);
        assert_eq!(places(turns(&mut of_both, &[0, 1, 2, 3], 5)), [1, 3, 0, 2, 1]);
    }

    #[test]
    fn others_have_bites_while_nts_requests_come_and_a_share_of_a_flood() {
        let mut both = Turns::new(2, 1);
        let first = (1, BITE_DATAGRAMS_FIRST);
        both.took(0, 1);
        let bites = turns(&mut both, &[1], BITES_AFTER_NTS as usize);
        assert_eq!(bites[0], first);
        assert!(bites[1..].iter().all(|bite| *bite == (1, BITE_DATAGRAMS)), "{bites:?}");
        let grown = turns(&mut both, &[1], 8);
        assert_eq!(grown.last(), Some(&(1, BATCH_DATAGRAMS)));
        both.took(0, 1);
        assert_eq!(turns(&mut both, &[1], 1), [first]);

        turns(&mut both, &[0, 1], 8);
        let whole = (0, BATCH_DATAGRAMS);
        assert_eq!(turns(&mut both, &[0, 1], 6), [whole, first].repeat(3));
    }

    #[test]
    fn every_socket_is_asked_once() {
        for (sockets, nts) in [(1, 0), (2, 1), (3, 1), (128, 64)] {
            let mut turns = Turns::new(sockets, nts);
            for turn in 0..2 * sockets {
                let mut places: Vec<usize> = turns.order().map(|(place, _)| place).collect();
                places.sort_unstable();
                assert!(places.into_iter().eq(0..sockets));
                turns.took(turn * 7 % sockets, 1);
            }
        }
    }
}
