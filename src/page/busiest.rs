//! The networks that ask most, counted by one worker and read by others, where
//! `ntp.count_networks` asks for it: IPv4 /24 and IPv6 /48, so that nobody's address is kept.
//!
//! The method is space saving (Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent and
//! Top-k Elements in Data Streams", ICDT 2005), in fixed memory: a network that is not counted yet
//! takes the place of the one with the smallest count, goes on from there, and keeps that count as
//! what it may be too high by. A secret hash chooses one of many small sets for a network, in which
//! that is looked for. So a network with more than an eighth of its set's requests is always there,
//! and no count is ever too low.
//!
//! There are two tables, of this period and of the one before it, so that what is shown is of the
//! last minutes. Counts are plain words of the page, as those of histograms are: a reader that
//! meets a write is a request off, and one that meets the turn of a period sees a part of both.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::limits::clients::{
    BUSIEST_IPV4_BITS, BUSIEST_IPV6_BITS, BUSIEST_PERIOD, BUSIEST_SET_NETWORKS, BUSIEST_SETS,
};
use crate::sys::memory::{ReadOnlyWord, ReadableMemory, WritableMemory, Writers};

/// Changes with the places of the words.
const LAYOUT: u64 = u64::from_be_bytes(*b"tb:busy1");

/// Words in front of the tables.
const HEAD_WORDS: usize = 2;
const LAYOUT_WORD: usize = 0;
/// What networks are spread over sets by: as long as the page, so that a worker that is started
/// again finds what the last one has counted.
const SECRET_WORD: usize = 1;

/// Words in front of a table's sets: when it was begun, and all requests since.
const TABLE_HEAD_WORDS: usize = 2;
const BEGUN_WORD: usize = 0;
const REQUESTS_WORD: usize = 1;

/// A set's networks stand together, in one cache line, then their counts, then what these may be
/// too high by.
const SET_WORDS: usize = 3 * BUSIEST_SET_NETWORKS;
const TABLE_WORDS: usize = TABLE_HEAD_WORDS + BUSIEST_SETS * SET_WORDS;
const PAGE_WORDS: usize = HEAD_WORDS + 2 * TABLE_WORDS;

/// A page of networks, to read. It starts empty.
#[derive(Debug)]
pub struct BusiestPage {
    memory: ReadableMemory,
    file: OwnedFd,
}

/// What was counted of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Which.
    pub network: IpNet,
    /// Its requests, never too few.
    pub requests: u64,
    /// What they may be too high by.
    pub excess: u64,
}

impl BusiestPage {
    /// A new page.
    pub fn create() -> io::Result<Self> {
        let (memory, file) =
            WritableMemory::create("timeball-busiest", PAGE_WORDS, Writers::Holders)?;
        memory.words()[LAYOUT_WORD].store(LAYOUT, Ordering::Relaxed);
        Ok(Self { memory: ReadableMemory::attach(&file, PAGE_WORDS)?, file })
    }

    /// Networks of this period and the one before it, in no order, some twice.
    pub fn networks(&self) -> impl Iterator<Item = Counted> {
        self.tables().flat_map(|table| table[TABLE_HEAD_WORDS..].chunks_exact(SET_WORDS)).flat_map(
            |set| {
                let of =
                    |part: usize, place: usize| set[part * BUSIEST_SET_NETWORKS + place].load();
                (0..BUSIEST_SET_NETWORKS).filter_map(move |place| {
                    let network = network(of(0, place))?;
                    Some(Counted { network, requests: of(1, place), excess: of(2, place) })
                })
            },
        )
    }

    /// All requests of both periods.
    pub fn requests(&self) -> u64 {
        self.tables().map(|table| table[REQUESTS_WORD].load()).fold(0, u64::saturating_add)
    }

    /// When the first of them began, since boot; none before a worker has begun.
    pub fn begun_since_boot(&self) -> Option<Duration> {
        let begun = self.tables().map(|table| table[BEGUN_WORD].load()).filter(|begun| *begun > 0);
        begun.min().map(Duration::from_secs)
    }

    /// The page, for handing over to its writer.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn tables(&self) -> impl Iterator<Item = &[ReadOnlyWord]> {
        self.memory.words()[HEAD_WORDS..].chunks_exact(TABLE_WORDS)
    }
}

/// The writing end of a page of networks.
#[derive(Debug)]
pub struct BusiestWriter {
    memory: WritableMemory,
    secret: u64,
}

impl BusiestWriter {
    /// Takes a page over; fails for any other file. `secret` is to be random; if others have
    /// counted there before, theirs stays.
    pub fn attach(file: impl AsFd, secret: u64) -> io::Result<Self> {
        let memory = WritableMemory::attach(file, PAGE_WORDS)?;
        if memory.words()[LAYOUT_WORD].load(Ordering::Relaxed) != LAYOUT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a page of networks"));
        }
        let kept = &memory.words()[SECRET_WORD];
        if kept.load(Ordering::Relaxed) == 0 {
            // Odd, as a multiplier has to be.
            kept.store(secret | 1, Ordering::Relaxed);
        }
        let secret = kept.load(Ordering::Relaxed);
        Ok(Self { memory, secret })
    }

    /// Counts a request.
    #[inline]
    pub fn count(&mut self, source: IpAddr) {
        let key = key(source);
        let (table, _) = self.tables();
        let (head, sets) = table.split_at(TABLE_HEAD_WORDS);
        add_one(&head[REQUESTS_WORD]);
        // The upper bits of a product are those that depend on all of the key.
        let set = (key.wrapping_mul(self.secret) >> (u64::BITS - BUSIEST_SETS.ilog2())) as usize;
        let set = &sets[set * SET_WORDS..][..SET_WORDS];
        let (keys, counts) = set.split_at(BUSIEST_SET_NETWORKS);
        let (counts, excess) = counts.split_at(BUSIEST_SET_NETWORKS);
        if let Some(place) = keys.iter().position(|found| found.load(Ordering::Relaxed) == key) {
            add_one(&counts[place]);
            return;
        }
        let (mut place, mut least) = (0, u64::MAX);
        for (other, count) in counts.iter().enumerate() {
            let count = count.load(Ordering::Relaxed);
            if count < least {
                (place, least) = (other, count);
            }
        }
        excess[place].store(least, Ordering::Relaxed);
        keys[place].store(key, Ordering::Relaxed);
        add_one(&counts[place]);
    }

    /// Begins another period if this one is over; `since_boot` is the time now.
    pub fn turn(&mut self, since_boot: Duration) {
        let (current, last) = self.tables();
        // Never zero, which is a table that was not begun.
        let now = since_boot.as_secs().max(1);
        let begun = current[BEGUN_WORD].load(Ordering::Relaxed);
        if begun == 0 {
            current[BEGUN_WORD].store(now, Ordering::Relaxed);
        } else if now.saturating_sub(begun) >= BUSIEST_PERIOD.as_secs() {
            for (word, kept) in current.iter().zip(last) {
                kept.store(word.load(Ordering::Relaxed), Ordering::Relaxed);
                word.store(0, Ordering::Relaxed);
            }
            current[BEGUN_WORD].store(now, Ordering::Relaxed);
        }
    }

    /// This period's, and the last one's.
    #[inline]
    fn tables(&self) -> (&[AtomicU64], &[AtomicU64]) {
        self.memory.words()[HEAD_WORDS..].split_at(TABLE_WORDS)
    }
}

/// Nobody else writes the page, so adding needs no lock prefix.
#[inline]
fn add_one(word: &AtomicU64) {
    word.store(word.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// Marks of the families in the highest bits of a key, which is never zero.
const IPV4: u64 = 1 << 62;
const IPV6: u64 = 1 << 63;

#[inline]
fn key(source: IpAddr) -> u64 {
    match source.to_canonical() {
        IpAddr::V4(address) => IPV4 | u64::from(address.to_bits() >> (32 - BUSIEST_IPV4_BITS)),
        IpAddr::V6(address) => IPV6 | (address.to_bits() >> (128 - BUSIEST_IPV6_BITS)) as u64,
    }
}

/// The network of a key; none of a place that is empty.
fn network(key: u64) -> Option<IpNet> {
    if key & IPV4 != 0 {
        let address = Ipv4Addr::from_bits((key as u32) << (32 - BUSIEST_IPV4_BITS));
        Some(Ipv4Net::new(address, BUSIEST_IPV4_BITS).ok()?.into())
    } else if key & IPV6 != 0 {
        let bits = u128::from(key & !IPV6) << (128 - BUSIEST_IPV6_BITS);
        Some(Ipv6Net::new(Ipv6Addr::from_bits(bits), BUSIEST_IPV6_BITS).ok()?.into())
    } else {
        None
    }
}

const _: () = assert!(BUSIEST_SETS.is_power_of_two(), "the bits of a product choose a set");
const _: () = assert!(BUSIEST_IPV4_BITS < 32 && BUSIEST_IPV6_BITS < 62, "beside the marks");

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: u64 = 0x9e37_79b9_7f4a_7c15;

    fn page() -> (BusiestPage, BusiestWriter) {
        let page = BusiestPage::create().expect("made");
        let writer = BusiestWriter::attach(page.file(), SECRET).expect("mapped");
        (page, writer)
    }

    fn of(page: &BusiestPage, network: &str) -> (u64, u64) {
        let network: IpNet = network.parse().expect("a network");
        let found = page.networks().filter(|counted| counted.network == network);
        found.fold((0, 0), |sum, found| (sum.0 + found.requests, sum.1 + found.excess))
    }

    #[test]
    fn addresses_are_counted_as_their_networks() {
        let (page, mut writer) = page();
        for (source, times) in [
            ("192.0.2.1", 2),
            ("192.0.2.255", 1),
            ("192.0.3.0", 1),
            ("0.0.0.0", 1),
            ("::ffff:192.0.2.9", 1),
            ("2001:db8:1::1", 3),
            ("2001:db8:1:ffff::1", 1),
            ("2001:db8:2::1", 1),
            ("ffff:ffff:ffff::", 1),
        ] {
            (0..times).for_each(|_| writer.count(source.parse().expect("an address")));
        }
        for (network, requests) in [
            ("192.0.2.0/24", 4),
            ("192.0.3.0/24", 1),
            ("0.0.0.0/24", 1),
            ("2001:db8:1::/48", 4),
            ("2001:db8:2::/48", 1),
            ("ffff:ffff:ffff::/48", 1),
        ] {
            assert_eq!(of(&page, network), (requests, 0), "{network}");
        }
        assert_eq!((page.requests(), page.networks().count()), (12, 6));
    }

    /// A network with a hundredth of all requests, among a hundred times more networks than there
    /// are places: it is there, its count is not too low, and no more too high than it says.
    #[test]
    fn no_flood_hides_a_busy_network() {
        let (page, mut writer) = page();
        let places = (BUSIEST_SETS * BUSIEST_SET_NETWORKS) as u32;
        let mut asked = 0;
        for number in 0..100 * places {
            writer.count(Ipv4Addr::from_bits(number << 8 | 7).into());
            if number % 100 == 0 {
                writer.count("2001:db8::1".parse().expect("an address"));
                asked += 1;
            }
        }
        let (requests, excess) = of(&page, "2001:db8::/48");
        assert!(requests >= asked && requests - excess <= asked, "{requests} {excess} {asked}");
        let more = page.networks().filter(|other| other.requests > requests).count();
        assert_eq!(more, 0, "it is the first");
        let found = page.networks().count();
        assert_eq!(found, places as usize, "memory is what it was");
    }

    #[test]
    fn periods_pass() {
        let (page, mut writer) = page();
        let source = "192.0.2.1".parse().expect("an address");
        let mut now = Duration::from_secs(1000);
        assert_eq!(page.begun_since_boot(), None);
        writer.turn(now);
        writer.count(source);
        assert_eq!(page.begun_since_boot(), Some(now));
        let first = now;
        now += BUSIEST_PERIOD;
        writer.turn(now);
        writer.count(source);
        writer.count(source);
        assert_eq!((of(&page, "192.0.2.0/24"), page.requests()), ((3, 0), 3));
        assert_eq!(page.begun_since_boot(), Some(first));
        now += BUSIEST_PERIOD;
        writer.turn(now);
        assert_eq!((of(&page, "192.0.2.0/24"), page.requests()), ((2, 0), 2));
        now += BUSIEST_PERIOD;
        writer.turn(now);
        assert_eq!((page.networks().count(), page.requests()), (0, 0));
    }

    #[test]
    fn a_worker_started_again_goes_on() {
        let (page, mut writer) = page();
        let source = "192.0.2.1".parse().expect("an address");
        writer.count(source);
        let mut next = BusiestWriter::attach(page.file(), !SECRET).expect("mapped");
        next.count(source);
        assert_eq!(of(&page, "192.0.2.0/24"), (2, 0));
        assert_eq!(page.networks().count(), 1, "in the same place");
        let (_, other) =
            WritableMemory::create("timeball-test", PAGE_WORDS, Writers::Holders).expect("made");
        assert!(BusiestWriter::attach(&other, SECRET).is_err(), "no such page");
    }
}
