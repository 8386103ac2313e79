//! The keeper of the master keys, on a simulated clock: rotation, the disk, and other programs.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use timeball::aead::{Algorithm, NonceGenerator};
use timeball::config::checked::KeyRotation;
use timeball::cookie::ntskeys;
use timeball::cookie::ring::KeyRing;
use timeball::cookie::store::{KeyFile, StoreError};
use timeball::limits::{KEY_FILE_LOOK_INTERVAL, KEY_FILE_RETRY_INTERVAL};
use timeball::page::key::SharedRing;
use timeball::process::key_keeper::{KeeperError, KeyEvent, KeyKeeper};
use timeball::sys::file::replace_private;

const INTERVAL: Duration = Duration::from_secs(7 * 86_400);
const OWN: KeyRotation = KeyRotation::Every(INTERVAL);
/// Time since boot when a test begins.
const START: Duration = Duration::from_secs(1000);

/// In memory: beside other work a disk may need longer than the keeper waits for it.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

fn random() -> NonceGenerator {
    NonceGenerator::new().expect("random numbers")
}

fn open(directory: &Path, rotation: KeyRotation, now: Duration) -> Result<KeyKeeper, KeeperError> {
    KeyKeeper::open(directory, rotation, random(), now)
}

fn new_ring() -> KeyRing {
    let mut random = random();
    KeyRing::generate(Algorithm::AesSivCmac256, |bytes| random.fill(bytes))
}

fn write(directory: &Path, ring: &KeyRing) {
    replace_private(&directory.join("ntskeys"), ntskeys::emit(ring, 0.0).as_bytes())
        .expect("written");
}

fn ids(ring: &KeyRing) -> Vec<u32> {
    ring.keys().iter().map(timeball::aead::MasterKey::id).collect()
}

fn ids_on_disk(directory: &Path) -> Vec<u32> {
    let text = fs::read_to_string(directory.join("ntskeys")).expect("the file");
    ids(&ntskeys::parse(&text).expect("well-formed").ring)
}

#[test]
fn the_ring_turns_when_it_is_due_for_every_reader_and_on_the_disk() {
    let directory = directory();
    let mut keeper = open(directory.path(), OWN, START).expect("made");
    let mut reader = SharedRing::open(keeper.page()).expect("mapped");
    let mut now = START;
    for _ in 0..5 {
        let before = ids(reader.latest());
        assert_eq!(keeper.next_due(now), INTERVAL);
        now += INTERVAL - Duration::from_nanos(1);
        assert_eq!(keeper.tick(now).expect("nothing is due"), None);
        assert_eq!(ids(reader.latest()), before);
        now += Duration::from_nanos(1);
        // What every reader had as next is current.
        let event = keeper.tick(now).expect("turned");
        assert_eq!(event, Some(KeyEvent::Turned { current: before[3] }));
        assert_eq!(keeper.tick(now).expect("nothing is due"), None, "once only");
        let after = ids(reader.latest());
        assert_eq!(after[..3], before[1..]);
        assert_eq!(ids_on_disk(directory.path()), after);
    }
}

/// However often the server is restarted, the age counts from the creation of the newest key.
#[test]
fn restarts_do_not_put_a_rotation_off() {
    let directory = directory();
    drop(open(directory.path(), OWN, START).expect("made"));
    let file = fs::File::open(directory.path().join("ntskeys")).expect("the file");
    file.set_modified(SystemTime::now() - INTERVAL + Duration::from_secs(3600)).expect("set");
    let before = ids_on_disk(directory.path());
    for _ in 0..3 {
        let keeper = open(directory.path(), OWN, START).expect("read");
        let due = keeper.next_due(START);
        assert!(due <= Duration::from_secs(3600), "{due:?}");
        assert!(due > Duration::from_secs(3000), "{due:?}");
    }
    file.set_modified(SystemTime::now() - 10 * INTERVAL).expect("set");
    let mut keeper = open(directory.path(), OWN, START).expect("read");
    let event = keeper.tick(START).expect("turned");
    assert_eq!(event, Some(KeyEvent::Turned { current: before[3] }));
    // Once, however late.
    assert_eq!(keeper.next_due(START), INTERVAL);
}

/// A file system of two pages, of which the key file takes one.
struct TinyDisk {
    directory: tempfile::TempDir,
}

impl TinyDisk {
    fn new() -> Self {
        let directory = directory();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8k,mode=0700", "timeball-test"])
            .arg(directory.path())
            .status();
        assert!(mounted.is_ok_and(|status| status.success()), "mounting a tmpfs needs root");
        Self { directory }
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.directory.path()).status();
    }
}

#[test]
fn a_full_disk_costs_no_key_and_is_tried_again() {
    let disk = TinyDisk::new();
    let directory = disk.directory.path();
    let mut keeper = open(directory, OWN, START).expect("made");
    let mut reader = SharedRing::open(keeper.page()).expect("mapped");
    let before = ids(reader.latest());
    fs::write(directory.join("filler"), [1; 4096]).expect("the rest of the disk");

    let mut now = START + INTERVAL;
    let error = keeper.tick(now).expect_err("the disk is full");
    assert!(matches!(error, KeeperError::Store(StoreError::Write { .. })), "{error}");
    assert!(error.to_string().contains("No space left"), "{error}");
    let turned = ids(reader.latest());
    assert_eq!(turned[..3], before[1..], "the ring in memory goes on");
    assert_eq!(ids_on_disk(directory), before, "the old file is whole");

    // No key becomes current that is not on the disk.
    for _ in 0..3 {
        now += INTERVAL;
        assert!(keeper.tick(now).is_err());
        assert_eq!(keeper.next_due(now), KEY_FILE_RETRY_INTERVAL);
        assert_eq!(ids(reader.latest()), turned);
        assert!(before.contains(&keeper.ring().current().id()));
    }
    assert_eq!(fs::read_dir(directory).expect("entries").count(), 3, "no remains");

    fs::remove_file(directory.join("filler")).expect("removed");
    now += KEY_FILE_RETRY_INTERVAL;
    assert_eq!(keeper.tick(now).expect("written"), None);
    assert_eq!(ids_on_disk(directory), turned);
    // The rotation that was held back.
    let event = keeper.tick(now).expect("turned");
    assert_eq!(event, Some(KeyEvent::Turned { current: turned[3] }));
}

/// A disk that answers once for each word it is given.
struct SlowDisk {
    words: Sender<()>,
    writes: Arc<AtomicU32>,
}

impl SlowDisk {
    /// One that has answered so far: there are keys in `directory`.
    fn with_keys(directory: &Path) -> (Self, KeyKeeper) {
        let (words, heard) = channel();
        let heard = Mutex::new(heard);
        let writes = Arc::<AtomicU32>::default();
        let counted = Arc::clone(&writes);
        let keeper = KeyKeeper::open_with(
            directory,
            OWN,
            random(),
            START,
            Arc::new(move |file: &KeyFile, text: &str, known| {
                counted.fetch_add(1, Ordering::Relaxed);
                // It answers everybody when the test ends.
                let _ = heard.lock().expect("nobody has panicked").recv();
                file.replace(text, known)
            }),
        );
        (Self { words, writes }, keeper.expect("made"))
    }

    fn answer(&self) {
        self.words.send(()).expect("the keeper is there");
    }
}

/// Looks, at each time to try again, until there is a result of the write that is under way.
fn result_of_write(keeper: &mut KeyKeeper, now: &mut Duration) -> Result<(), KeeperError> {
    loop {
        *now += KEY_FILE_RETRY_INTERVAL;
        match keeper.tick(*now) {
            Err(KeeperError::Unanswered { .. }) => thread::yield_now(),
            result => return result.map(|event| assert_eq!(event, None)),
        }
    }
}

fn assert_unanswered<T: std::fmt::Debug>(result: Result<T, KeeperError>) {
    let error = result.expect_err("the disk is silent");
    assert!(matches!(error, KeeperError::Unanswered { .. }), "{error}");
}

#[test]
fn a_disk_that_does_not_answer_makes_nobody_wait() {
    let directory = directory();
    let (disk, mut keeper) = SlowDisk::with_keys(directory.path());
    let mut reader = SharedRing::open(keeper.page()).expect("mapped");
    let before = ids(reader.latest());

    let mut now = START + INTERVAL;
    assert_unanswered(keeper.tick(now));
    let turned = ids(reader.latest());
    assert_eq!(turned[..3], before[1..], "the ring in memory goes on");
    for _ in 0..3 {
        now += INTERVAL;
        assert_unanswered(keeper.tick(now));
        assert_eq!(keeper.next_due(now), KEY_FILE_RETRY_INTERVAL);
        assert_unanswered(keeper.rotate(now));
        assert_eq!(ids(reader.latest()), turned, "it turns no further");
        assert_eq!(ids_on_disk(directory.path()), before);
    }

    disk.answer();
    result_of_write(&mut keeper, &mut now).expect("written");
    assert_eq!(ids_on_disk(directory.path()), turned);
    assert_eq!(disk.writes.load(Ordering::Relaxed), 1, "one write, however often it is tried");
    // The rotation that was held back.
    assert_unanswered(keeper.tick(now));
    assert_eq!(ids(reader.latest())[..3], turned[1..]);
    disk.answer();
    result_of_write(&mut keeper, &mut now).expect("written");
    assert_eq!(ids_on_disk(directory.path()), ids(keeper.ring()));
    assert_eq!(disk.writes.load(Ordering::Relaxed), 2);
}

#[test]
fn a_reload_is_refused_while_a_write_is_under_way() {
    let directory = directory();
    let (disk, mut keeper) = SlowDisk::with_keys(directory.path());
    let mut now = START + INTERVAL;
    assert_unanswered(keeper.tick(now));
    let turned = ids(keeper.ring());
    // Whatever has become of the file.
    assert_unanswered(keeper.reload(now));
    let other = new_ring();
    write(directory.path(), &other);
    assert_unanswered(keeper.reload(now));
    assert_eq!(ids(keeper.ring()), turned);

    disk.answer();
    let error = result_of_write(&mut keeper, &mut now).expect_err("replaced meanwhile");
    assert!(matches!(error, KeeperError::Store(StoreError::Replaced { .. })), "{error}");
    assert_eq!(ids_on_disk(directory.path()), ids(&other));
    let taken = keeper.reload(now).expect("nothing is under way");
    assert_eq!(taken, Some(KeyEvent::Taken { current: other.current().id() }));
}

/// Nor does the end of the server; and the file stays locked as long as it may still change.
#[test]
fn the_end_of_the_keeper_waits_for_no_disk() {
    let directory = directory();
    let (disk, mut keeper) = SlowDisk::with_keys(directory.path());
    assert_unanswered(keeper.tick(START + INTERVAL));
    let turned = ids(keeper.ring());
    drop(keeper);
    let error = open(directory.path(), OWN, START).err().expect("in use");
    assert!(matches!(error, KeeperError::Store(StoreError::Locked { .. })), "{error}");

    disk.answer();
    let lock = fs::File::open(directory.path().join("ntskeys.lock")).expect("the file");
    lock.lock().expect("free when the write has ended");
    assert_eq!(ids_on_disk(directory.path()), turned);
}

#[test]
fn a_file_of_another_program_is_not_overwritten() {
    let directory = directory();
    let mut keeper = open(directory.path(), OWN, START).expect("made");
    let other = new_ring();
    write(directory.path(), &other);
    let error = keeper.tick(START + INTERVAL).expect_err("replaced");
    assert!(matches!(error, KeeperError::Store(StoreError::Replaced { .. })), "{error}");
    assert_eq!(ids_on_disk(directory.path()), ids(&other));

    let current = other.current().id();
    let taken = keeper.reload(START + INTERVAL).expect("good");
    assert_eq!(taken, Some(KeyEvent::Taken { current }));
    assert_eq!(ids(keeper.ring()), ids(&other));
    assert_eq!(keeper.reload(START + INTERVAL).expect("the same"), None);
}

#[test]
fn a_damaged_file_is_an_error_at_reload_and_stays() {
    let directory = directory();
    let path = directory.path().join("ntskeys");
    for rotation in [OWN, KeyRotation::External] {
        write(directory.path(), &new_ring());
        let mut keeper = open(directory.path(), rotation, START).expect("read");
        let mut reader = SharedRing::open(keeper.page()).expect("mapped");
        let before = ids(keeper.ring());
        fs::write(&path, "NKS1\n").expect("damaged");
        for _ in 0..2 {
            let error = keeper.reload(START).expect_err("damaged");
            assert!(matches!(error, KeeperError::Store(StoreError::Damaged { .. })), "{error}");
        }
        assert_eq!(ids(reader.latest()), before);
        assert_eq!(fs::read_to_string(&path).expect("still there"), "NKS1\n");
    }
}

#[test]
fn a_lost_file_is_written_again() {
    let directory = directory();
    let mut keeper = open(directory.path(), OWN, START).expect("made");
    fs::remove_file(directory.path().join("ntskeys")).expect("removed");
    assert_eq!(keeper.reload(START).expect("written"), None);
    assert_eq!(ids_on_disk(directory.path()), ids(keeper.ring()));
}

#[test]
fn keys_of_another_program_are_followed_and_never_written() {
    let directory = directory();
    let error = open(directory.path(), KeyRotation::External, START).err().expect("no file");
    assert!(matches!(error, KeeperError::Store(StoreError::Missing { .. })), "{error}");

    let mut ring = new_ring();
    write(directory.path(), &ring);
    let mut keeper = open(directory.path(), KeyRotation::External, START).expect("read");
    let mut reader = SharedRing::open(keeper.page()).expect("mapped");
    let mut now = START;
    let mut random = random();
    for _ in 0..4 {
        now += KEY_FILE_LOOK_INTERVAL;
        assert_eq!(keeper.tick(now).expect("unchanged"), None);
        ring.rotate(|bytes| random.fill(bytes));
        write(directory.path(), &ring);
        now += KEY_FILE_LOOK_INTERVAL;
        let current = ring.current().id();
        assert_eq!(keeper.tick(now).expect("good"), Some(KeyEvent::Taken { current }));
        assert_eq!(ids(reader.latest()), ids(&ring));
    }

    fs::write(directory.path().join("ntskeys"), "garbage").expect("damaged");
    now += KEY_FILE_LOOK_INTERVAL;
    assert!(keeper.tick(now).is_err());
    now += KEY_FILE_LOOK_INTERVAL;
    assert_eq!(keeper.tick(now).expect("said once"), None);
    now += 100 * INTERVAL;
    assert_eq!(keeper.tick(now).expect("said once"), None);
    assert_eq!(ids(reader.latest()), ids(&ring));
    let text = fs::read_to_string(directory.path().join("ntskeys")).expect("still there");
    assert_eq!(text, "garbage");
}

#[test]
fn two_servers_do_not_rotate_one_file() {
    let directory = directory();
    let first = open(directory.path(), OWN, START).expect("made");
    let error = open(directory.path(), OWN, START).err().expect("in use");
    assert!(matches!(error, KeeperError::Store(StoreError::Locked { .. })), "{error}");
    // One that only reads may share it.
    open(directory.path(), KeyRotation::External, START).expect("read");
    drop(first);
    open(directory.path(), OWN, START).expect("free again");
}

#[test]
fn the_interval_can_change_for_the_same_keys() {
    let directory = directory();
    let mut keeper = open(directory.path(), OWN, START).expect("made");
    let now = START + INTERVAL / 2;
    assert!(keeper.set_rotation(KeyRotation::Every(INTERVAL * 2)));
    assert_eq!(keeper.next_due(now), INTERVAL * 3 / 2);
    assert!(keeper.set_rotation(KeyRotation::Every(INTERVAL / 4)));
    assert_eq!(keeper.next_due(now), Duration::ZERO);
    assert!(!keeper.set_rotation(KeyRotation::External), "only at a start");
}
