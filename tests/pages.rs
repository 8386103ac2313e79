//! Pages between real processes: one writes as fast as it can, others read.

use std::fs::File;
use std::process::{Child, Command};

use command_fds::{CommandFdExt as _, FdMapping};
use timeball::page::{Reader, Writer};

/// Words of the page: as many as the key page has.
const WORDS: usize = 20;
const LAYOUT: u64 = 1;

/// Different values that each reader takes.
const VALUES: usize = 20_000;
const READERS: usize = 3;

const CHILD_VARIABLE: &str = "TIMEBALL_TEST_PAGE_CHILD";
const PAGE_FD: i32 = 3;

/// A value whose words all follow from the first, so that one word of another value shows.
fn value(number: u64) -> [u64; WORDS] {
    std::array::from_fn(|word| (number + word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

#[test]
fn no_process_sees_a_torn_value() {
    let mut page = Writer::<WORDS>::create("timeball-test", LAYOUT).expect("a page");
    page.write(&value(0));
    let mut readers: Vec<Child> = (0..READERS).map(|_| spawn_reader(&page)).collect();
    let mut number = 0;
    let mut is_done = false;
    while !is_done {
        for _ in 0..1000 {
            number += 1;
            page.write(&value(number));
        }
        is_done = readers.iter_mut().all(|reader| reader.try_wait().expect("a child").is_some());
    }
    for mut reader in readers {
        assert!(reader.wait().expect("a child").success());
    }
    assert!(number > VALUES as u64);
}

fn spawn_reader(page: &Writer<WORDS>) -> Child {
    let parent_fd = page.file().try_clone_to_owned().expect("a descriptor");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "child_reads"]).env(CHILD_VARIABLE, "1");
    command.fd_mappings(vec![FdMapping { parent_fd, child_fd: PAGE_FD }]).expect("one descriptor");
    command.spawn().expect("a child")
}

/// Not a test of its own: what the spawned children run.
#[test]
fn child_reads() {
    if std::env::var_os(CHILD_VARIABLE).is_none() {
        return;
    }
    let page = File::open(format!("/proc/self/fd/{PAGE_FD}")).expect("inherited");
    let mut page = Reader::<WORDS>::open(page, LAYOUT).expect("a page");
    let inverse = 0xf1de_83e1_9937_733d_u64;
    let mut newest = 0;
    for _ in 0..VALUES {
        let found = loop {
            if let Some(found) = page.news() {
                break *found;
            }
        };
        let number = found[0].wrapping_mul(inverse);
        assert_eq!(found, value(number), "torn");
        assert!(number >= newest, "{number} came after {newest}");
        newest = number;
    }
}
