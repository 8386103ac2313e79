//! The certificates of a server, as texts: read and checked by the supervisor, which may read the
//! files, and handed to key establishment, which may not.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::certificate::describe::{Warning, describe, warnings};
use crate::config::checked::PairFiles;
use crate::ke::tls::{Pair, PairError};

/// A certificate chain and its key, PEM, with the names of their files for messages.
#[derive(Clone, Serialize, Deserialize)]
pub struct PairText {
    /// Name of the certificate's file.
    pub certificate_file: PathBuf,
    /// Certificate chain, PEM.
    pub certificate_pem: String,
    /// Name of the key's file.
    pub key_file: PathBuf,
    /// Private key, PEM.
    pub key_pem: Zeroizing<String>,
}

impl PairText {
    /// Reads a pair and makes sure that it can be used.
    ///
    /// # Errors
    /// [`PairError`], which names the files.
    pub fn read(files: &PairFiles) -> Result<Self, PairError> {
        let text = |path: &Path| {
            fs::read_to_string(path)
                .map_err(|source| PairError::Read { path: path.to_owned(), source })
        };
        let pair = Self {
            certificate_pem: text(&files.certificate)?,
            certificate_file: files.certificate.clone(),
            key_pem: Zeroizing::new(text(&files.key)?),
            key_file: files.key.clone(),
        };
        pair.parse()?;
        Ok(pair)
    }

    /// The pair as TLS uses it.
    ///
    /// # Errors
    /// [`PairError`].
    pub fn parse(&self) -> Result<Pair, PairError> {
        Pair::from_pem(
            self.certificate_pem.as_bytes(),
            self.key_pem.as_bytes(),
            &self.certificate_file,
            &self.key_file,
        )
    }

    /// Why clients with the right time will refuse a certificate that is loaded all the same. This
    /// host's own clock may be the wrong one, and a refused certificate would leave its clients
    /// without any.
    fn untimely(&self) -> Option<Warning> {
        let chain = describe(self.certificate_pem.as_bytes()).ok()?;
        warnings(&chain, OffsetDateTime::now_utc())
            .into_iter()
            .find(|warning| matches!(warning, Warning::Expired | Warning::NotYetValid))
    }

    /// Says what an operator must know about a pair that is now in use.
    pub(super) fn warn(&self) {
        if let Some(warning) = self.untimely() {
            eprintln!(
                "timeball: warning: certificate {}: {warning}; it is used all the same",
                self.certificate_file.display()
            );
        }
    }
}

/// The pairs in use, and what their files looked like when they were read.
pub struct Certificates(Vec<Watched>);

struct Watched {
    files: PairFiles,
    text: PairText,
    loaded: Fingerprint,
    seen: Fingerprint,
}

/// What became of one changed pair.
pub(super) enum Change {
    /// It is in use now.
    Loaded(PathBuf),
    /// The old one stays.
    Kept(PairError),
}

impl Certificates {
    /// Reads all pairs.
    ///
    /// # Errors
    /// That of the first pair that cannot be used.
    pub fn read(files: &[PairFiles]) -> Result<Self, PairError> {
        let pairs = files.iter().map(|files| {
            // First the looks, then the reading: what changes in between is noticed later.
            let fingerprint = Fingerprint::of(files);
            let text = PairText::read(files)?;
            Ok(Watched {
                files: files.clone(),
                text,
                loaded: fingerprint.clone(),
                seen: fingerprint,
            })
        });
        pairs.collect::<Result<_, _>>().map(Self)
    }

    /// The pairs in use.
    pub fn texts(&self) -> Vec<PairText> {
        self.0.iter().map(|pair| pair.text.clone()).collect()
    }

    /// The files of those whose content is not among `old`.
    pub(super) fn new_since(&self, old: &Self) -> impl Iterator<Item = &Path> {
        let is_new = |new: &&Watched| {
            let is_same = |old: &Watched| old.text.certificate_pem == new.text.certificate_pem;
            !old.0.iter().any(is_same)
        };
        self.0.iter().filter(is_new).map(|pair| pair.files.certificate.as_path())
    }

    /// Says what an operator must know about the pairs.
    pub(super) fn warn(&self) {
        self.0.iter().for_each(|pair| pair.text.warn());
    }

    /// Looks at the files, and loads each pair that has changed and is the same as at the last
    /// look: a tool that renews a pair writes one file after the other.
    pub(super) fn look(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for pair in &mut self.0 {
            let fingerprint = Fingerprint::of(&pair.files);
            let is_settled = fingerprint == pair.seen;
            pair.seen = fingerprint.clone();
            if fingerprint == pair.loaded || !is_settled {
                continue;
            }
            // Also when it cannot be used: it is reported once, and tried again when it changes.
            pair.loaded = fingerprint;
            changes.push(match PairText::read(&pair.files) {
                Ok(text) => {
                    pair.text = text;
                    pair.text.warn();
                    Change::Loaded(pair.files.certificate.clone())
                }
                Err(error) => Change::Kept(error),
            });
        }
        changes
    }
}

/// What the two files of a pair look like from outside. Symbolic links are followed: ACME clients
/// change where they lead.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fingerprint([Option<FileFingerprint>; 2]);

/// Device and inode, length, and times of change of content and of inode.
pub(super) type FileFingerprint = ([u64; 3], [i64; 4]);

impl Fingerprint {
    fn of(files: &PairFiles) -> Self {
        Self([&files.certificate, &files.key].map(|path| file_fingerprint(path).ok()))
    }
}

/// Of one file. Symbolic links are followed.
pub(super) fn file_fingerprint(path: &Path) -> io::Result<FileFingerprint> {
    let found = fs::metadata(path)?;
    let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
    Ok(([found.dev(), found.ino(), found.len()], times))
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;
    use crate::certificate::self_signed;

    fn write(directory: &Path, name: &str) -> PairFiles {
        let files =
            PairFiles { certificate: directory.join("c.pem"), key: directory.join("k.pem") };
        let now = OffsetDateTime::now_utc();
        self_signed(&[name.to_owned()], Duration::days(30), now)
            .expect("made")
            .write(&files.certificate, &files.key, true)
            .expect("written");
        files
    }

    fn names(certificates: &Certificates) -> Vec<String> {
        certificates.texts()[0].parse().expect("a good pair").names().to_vec()
    }

    #[test]
    fn a_pair_is_loaded_as_a_unit_once_it_has_settled() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = write(directory.path(), "old.example");
        let one = std::slice::from_ref(&files);
        let mut certificates = Certificates::read(one).expect("a good pair");
        assert!(certificates.look().is_empty());

        write(directory.path(), "new.example");
        assert!(certificates.look().is_empty(), "it may still be written");
        assert!(matches!(&certificates.look()[..], [Change::Loaded(_)]));
        assert_eq!(names(&certificates), ["new.example"]);
        assert!(certificates.look().is_empty());

        let good = fs::read(&files.key).expect("the key");
        fs::write(&files.key, "garbage").expect("written");
        assert!(certificates.look().is_empty());
        assert!(matches!(&certificates.look()[..], [Change::Kept(PairError::NoKey(_))]));
        assert!(certificates.look().is_empty(), "it is said once");
        assert_eq!(names(&certificates), ["new.example"]);

        fs::remove_file(&files.certificate).expect("removed");
        fs::write(&files.key, good).expect("written");
        assert!(certificates.look().is_empty());
        assert!(matches!(&certificates.look()[..], [Change::Kept(PairError::Read { .. })]));
        assert_eq!(names(&certificates), ["new.example"]);
    }

    #[test]
    fn an_untimely_certificate_is_loaded_with_a_warning() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = write(directory.path(), "a.example");
        assert_eq!(PairText::read(&files).expect("a good pair").untimely(), None);
        let long_ago = OffsetDateTime::now_utc() - Duration::days(60);
        self_signed(&["a.example".to_owned()], Duration::days(30), long_ago)
            .expect("made")
            .write(&files.certificate, &files.key, true)
            .expect("written");
        let expired = PairText::read(&files).expect("loaded all the same");
        assert_eq!(expired.untimely(), Some(Warning::Expired));
    }
}
