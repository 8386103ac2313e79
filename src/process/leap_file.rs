//! The leap-seconds file: read by the supervisor, which may read files, and handed to the clock
//! role, which may not.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::certificates::{FileFingerprint, file_fingerprint};
use crate::clock::host::realtime;
use crate::clock::leap_list::{LeapList, LeapListError};
use crate::clock::leap_watch::LeapNews;
use crate::limits::LEAP_FILE_BYTES_MAX;

/// A leap-seconds file, what it holds, and what it looked like when it was read.
#[derive(Debug)]
pub struct LeapFile {
    path: PathBuf,
    news: LeapNews,
    loaded: Option<FileFingerprint>,
    seen: Option<FileFingerprint>,
}

/// Why a file holds no list.
#[derive(Debug, thiserror::Error)]
enum LeapFileError {
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("it has more than {LEAP_FILE_BYTES_MAX} bytes")]
    Long,
    #[error("{0}")]
    List(#[from] LeapListError),
}

impl LeapFile {
    /// Reads the file. One that holds no list is no error: the source is still believed.
    pub fn read(path: &Path) -> Self {
        // First the looks, then the reading: what changes in between is noticed later.
        let loaded = file_fingerprint(path).ok();
        let news = renewed(path, None);
        Self { path: path.to_owned(), news, loaded, seen: loaded }
    }

    /// What it holds.
    pub fn news(&self) -> &LeapNews {
        &self.news
    }

    /// Reads it again; says whether anything is new.
    pub(super) fn reload(&mut self) -> bool {
        self.loaded = file_fingerprint(&self.path).ok();
        self.seen = self.loaded;
        let news = renewed(&self.path, self.news.list.clone());
        let is_new = news != self.news;
        self.news = news;
        is_new
    }

    /// Looks at the file, and reads it again if it has changed and is the same as at the last look.
    /// Says whether anything is new.
    pub(super) fn look(&mut self) -> bool {
        let looks = file_fingerprint(&self.path).ok();
        let is_settled = looks == self.seen;
        self.seen = looks;
        looks != self.loaded && is_settled && self.reload()
    }

    /// Says what an operator must know about it.
    pub fn warn(&self) {
        let LeapNews { list, refused } = &self.news;
        let path = self.path.display();
        let remedy = "install tzdata anew or fetch the list from IERS";
        if !refused.is_empty() {
            let then = match list {
                Some(_) => "what it held before stays in use",
                None => "no leap second is announced from it",
            };
            eprintln!("timeball: warning: leap file {path}: {refused}; {then}; {remedy}");
        } else if list.as_ref().is_some_and(|list| list.is_expired(realtime())) {
            eprintln!(
                "timeball: warning: leap file {path} has expired; no leap second is announced from \
                 it; {remedy}"
            );
        }
    }
}

/// What the file holds now; if nothing, what it held `before`.
fn renewed(path: &Path, before: Option<LeapList>) -> LeapNews {
    match read_list(path) {
        Ok(list) => LeapNews { list: Some(list), refused: String::new() },
        Err(error) => LeapNews { list: before, refused: error.to_string() },
    }
}

fn read_list(path: &Path) -> Result<LeapList, LeapFileError> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LEAP_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LEAP_FILE_BYTES_MAX {
        return Err(LeapFileError::Long);
    }
    Ok(LeapList::parse(&bytes)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::clock::leap_list::tests::{NEW_YEAR, text};

    #[test]
    fn a_changed_file_is_read_once_it_has_settled_and_a_damaged_one_is_not_believed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("leap-seconds.list");
        let mut file = LeapFile::read(&path);
        assert_eq!(file.news().list, None);
        assert!(file.news().refused.starts_with("it cannot be read: No such file"));
        assert!(!file.look());

        fs::write(&path, text(&[(NEW_YEAR, 38)])).expect("written");
        assert!(!file.look(), "it may still be written");
        assert!(file.look());
        let good = file.news().list.clone();
        assert!(good.is_some() && file.news().refused.is_empty());
        assert!(!file.look());

        fs::write(&path, "garbage").expect("written");
        assert!(!file.look());
        assert!(file.look());
        assert_eq!(file.news().list, good, "what it held before stays");
        assert_eq!(file.news().refused, "line 1 is neither a comment nor an entry");
        assert!(!file.look(), "it is said once");

        fs::write(&path, vec![b'#'; LEAP_FILE_BYTES_MAX as usize + 1]).expect("written");
        assert!(file.reload());
        assert_eq!(file.news().refused, "it has more than 65536 bytes");
    }
}
