//! The logs. They are written in a thread of its own: a disk that is full or slow costs lines, and
//! the clock nothing.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use super::Following;
use super::inquiry::{Inquiry, unix_seconds_now};
use crate::clock::account::LogAccount;
use crate::clock::follow::Answer;
use crate::clock::log::{LogKind, measurement_line, statistics_line, tracking_line};
use crate::clock::record::ClockRecord;
use crate::clock::statistics::Statistics;
use crate::limits::LOG_LINES_WAITING;

/// What is to be logged of each round of questions.
pub(super) struct Logs {
    writer: LogWriter,
    statistics: Statistics,
}

impl Logs {
    pub(super) fn new(writer: LogWriter) -> Self {
        Self { writer, statistics: Statistics::default() }
    }

    /// Goes on with a log in this file.
    pub(super) fn open(&self, kind: LogKind, file: OwnedFd) {
        self.writer.open(kind, file);
    }

    /// Notes what a round of questions came to: `record`, where it was `before`.
    pub(super) fn note(
        &mut self,
        record: Option<&ClockRecord>,
        before: Option<&ClockRecord>,
        following: &Following,
    ) {
        let now = unix_seconds_now();
        let reference = |record: &ClockRecord| record.reference_timestamp;
        if let Some(record) = record
            && before.map(reference) != Some(reference(record))
        {
            let tracking = match following.chronyd.as_ref().map(Inquiry::answer) {
                Some(Answer::Word(tracking, _)) => Some(tracking),
                _ => None,
            };
            let line = tracking_line(record, tracking, before, now);
            self.writer.write(LogKind::Tracking, line);
        }
        let Some(ntp) = &following.ntp else { return };
        let Answer::Word(sample, at) = ntp.answer() else { return };
        let line = measurement_line(ntp.address(), sample, *at, now);
        self.writer.write(LogKind::Measurements, line);
        if let Some(estimate) = self.statistics.add(*at, sample.offset_seconds) {
            let line = statistics_line(ntp.address(), &estimate, *at, now);
            self.writer.write(LogKind::Statistics, line);
        }
    }

    /// How they fare.
    pub(super) fn account(&self) -> LogAccount {
        self.writer.account()
    }
}

/// The way to the thread that writes. Dropping it waits until all is written.
pub(super) struct LogWriter {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    lost: Arc<Lost>,
}

enum Job {
    /// From now on a log is written here.
    Open(LogKind, OwnedFd),
    Write(LogKind, String),
}

/// Lines that were not written.
#[derive(Debug, Default)]
struct Lost {
    lines: AtomicU64,
    /// The last error of a write; 0 if there was none.
    error: AtomicI32,
}

impl LogWriter {
    /// Starts the thread, which has made all calls that only a beginning thread makes when this
    /// returns.
    pub(super) fn start() -> io::Result<Self> {
        let (jobs, todo) = sync_channel(LOG_LINES_WAITING);
        let (ready, is_ready) = sync_channel(0);
        let lost = Arc::<Lost>::default();
        let losing = Arc::clone(&lost);
        let thread = thread::Builder::new().name("log".to_owned()).spawn(move || {
            // Nobody waits only if the process ends.
            let _ = ready.send(());
            write_all(&todo, &losing);
        })?;
        is_ready.recv().map_err(io::Error::other)?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), lost })
    }

    /// Goes on in this file.
    pub(super) fn open(&self, kind: LogKind, file: OwnedFd) {
        self.hand(Job::Open(kind, file));
    }

    /// Writes a line some time, if there is such a log. Never waits: where the thread is behind,
    /// the line is lost.
    pub(super) fn write(&self, kind: LogKind, line: String) {
        self.hand(Job::Write(kind, line));
    }

    fn hand(&self, job: Job) {
        if self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_err()) {
            self.lost.lines.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How it fares.
    pub(super) fn account(&self) -> LogAccount {
        let error = self.lost.error.load(Ordering::Relaxed);
        LogAccount {
            lines_lost: self.lost.lines.load(Ordering::Relaxed),
            why: match error {
                0 => String::new(),
                error => io::Error::from_raw_os_error(error).to_string(),
            },
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A log that is open.
struct Log {
    kind: LogKind,
    file: File,
    /// The last line was written in part.
    is_torn: bool,
}

fn write_all(todo: &Receiver<Job>, lost: &Lost) {
    let mut logs: Vec<Log> = Vec::new();
    for job in todo {
        let result = match job {
            Job::Open(kind, file) => {
                logs.retain(|log| log.kind != kind);
                let mut log = Log { kind, file: file.into(), is_torn: false };
                let is_new = log.file.metadata().is_ok_and(|found| found.len() == 0);
                let result = if is_new { log.write(&kind.heading()) } else { Ok(()) };
                logs.push(log);
                result
            }
            Job::Write(kind, line) => match logs.iter_mut().find(|log| log.kind == kind) {
                Some(log) => log.write(&line),
                None => Ok(()),
            },
        };
        if let Err(error) = result {
            lost.lines.fetch_add(1, Ordering::Relaxed);
            lost.error.store(error.raw_os_error().unwrap_or_default(), Ordering::Relaxed);
        }
    }
}

impl Log {
    /// All of it or, where the disk is full, as much as there is room for.
    fn write(&mut self, text: &str) -> io::Result<()> {
        let line = if self.is_torn { format!("\n{text}") } else { text.to_owned() };
        let written = self.file.write(line.as_bytes())?;
        self.is_torn = written < line.len();
        if self.is_torn { Err(io::Error::from_raw_os_error(libc::ENOSPC)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    const KIND: LogKind = LogKind::Measurements;

    fn open(path: &Path) -> OwnedFd {
        fs::OpenOptions::new().append(true).create(true).open(path).expect("opened").into()
    }

    #[test]
    fn lines_go_where_they_are_told_to_below_one_heading() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name| directory.path().join(name);
        let writer = LogWriter::start().expect("a thread");
        writer.write(KIND, "nowhere yet\n".to_owned());
        writer.open(KIND, open(&path("old")));
        writer.write(KIND, "one\n".to_owned());
        writer.open(KIND, open(&path("old")));
        writer.write(KIND, "two\n".to_owned());
        writer.open(KIND, open(&path("new")));
        writer.write(KIND, "three\n".to_owned());
        let LogAccount { lines_lost, why } = writer.account();
        drop(writer);
        let read = |name| fs::read_to_string(path(name)).expect("written");
        assert_eq!(read("old"), format!("{}one\ntwo\n", KIND.heading()));
        assert_eq!(read("new"), format!("{}three\n", KIND.heading()));
        assert_eq!((lines_lost, why), (0, String::new()));
    }

    #[test]
    fn a_full_disk_costs_lines_and_says_so() {
        let writer = LogWriter::start().expect("a thread");
        let full = File::options().append(true).open("/dev/full").expect("Linux has it");
        writer.open(KIND, full.into());
        writer.write(KIND, "lost\n".to_owned());
        let lost = Arc::clone(&writer.lost);
        // Once it has ended, all is done.
        drop(writer);
        assert_eq!(lost.lines.load(Ordering::Relaxed), 2, "the heading, and the line");
        assert_eq!(lost.error.load(Ordering::Relaxed), libc::ENOSPC);
    }

    /// A pipe that nobody reads stands for a disk that does not answer.
    #[test]
    fn a_disk_that_does_not_answer_makes_nobody_wait() {
        let writer = LogWriter::start().expect("a thread");
        let (reader, pipe) = io::pipe().expect("a pipe");
        writer.open(KIND, pipe.into());
        let line = "x".repeat(4096);
        // More than fits into the pipe, and into the queue before it.
        for _ in 0..LOG_LINES_WAITING + 1000 {
            writer.write(KIND, line.clone());
        }
        assert!(writer.account().lines_lost > 0);
        drop(reader);
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let mut log = Log { kind: KIND, file: open(&path).into(), is_torn: true };
        log.write("whole\n").expect("written");
        log.write("whole\n").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("written"), "\nwhole\nwhole\n");
    }
}
