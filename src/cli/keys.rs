//! `timeball keys`: look at the master keys, rotate them, take them from chrony and give them back.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Subcommand;

use super::place::{Place, PlaceError};
use super::{EXIT_FAILURE, fail};
use crate::aead::{MasterKey, NonceGenerator};
use crate::config::checked::KeyRotation;
use crate::cookie::ntskeys::{self, ParseError};
use crate::cookie::rotation::Rotation;
use crate::cookie::store::{self, KeyFile, Loaded, StoreError};
use crate::process::control::{AskError, Request, ask};
use crate::process::status::{Rotated, fingerprint};
use crate::sys::file::replace_private;

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Show identifiers, algorithms, fingerprints and age; never a key
    Show {
        #[command(flatten)]
        place: Place,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make the next key current and a new one next, in a running server or in its file
    Rotate {
        #[command(flatten)]
        place: Place,
    },
    /// Use the keys of chrony's ntskeys file (NKS1 or NKS0); not while the server runs
    Import {
        /// The file; its keys are copied
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Write the keys as chrony's ntskeys file
    Export {
        /// The file, replaced if it is there; "-" is standard output
        file: PathBuf,
        #[command(flatten)]
        place: Place,
        /// The older form NKS0, for chrony before 4.4
        #[arg(long)]
        nks0: bool,
    },
}

/// Why `timeball keys` failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(
        "there are no master keys in {}; the first `timeball serve` makes them; --config or \
         --state-directory names another place",
        .0.display()
    )]
    Missing(PathBuf),
    #[error(transparent)]
    Store(StoreError),
    #[error(
        "another program makes these keys (keys.rotate = \"external\"); rotate them there, and \
         the server follows"
    )]
    External,
    #[error("cannot read {}: {source}; check its name and who may read it", path.display())]
    ReadImport { path: PathBuf, source: io::Error },
    #[error("{} is no ntskeys file: {source}; nothing was changed", path.display())]
    NoKeys { path: PathBuf, source: ParseError },
    #[error(
        "{} is a key file of ntpd-rs, whose cookies are of another form: its keys would open none \
         of them here; start with keys of timeball's own, and clients fetch new cookies by \
         themselves",
        .0.display()
    )]
    NtpdRs(PathBuf),
    #[error("the keys are of several algorithms, which NKS0 cannot say; export without --nks0")]
    Mixed,
    #[error("cannot write {}: {source}; check its name and who may write there", path.display())]
    WriteExport { path: PathBuf, source: io::Error },
    #[error("the kernel gives no random numbers: {0}")]
    Random(getrandom::Error),
    #[error("the result could not be printed: {0}")]
    Print(#[from] io::Error),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Missing { path } => Self::Missing(path),
            error => Self::Store(error),
        }
    }
}

pub(super) fn run(command: &KeysCommand) -> ExitCode {
    match execute(command, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Place(error)) => fail(error.exit_code(), error),
        Err(error) => fail(EXIT_FAILURE, error),
    }
}

fn execute(command: &KeysCommand, out: &mut impl Write) -> Result<(), Error> {
    match command {
        KeysCommand::Show { place, json } => {
            let (file, rotation) = find(place)?;
            let shown = Shown::new(&file, &file.load()?, rotation);
            if *json { shown.print_json(out) } else { shown.print(out) }
        }
        KeysCommand::Rotate { place } => rotate(place, out),
        KeysCommand::Import { file, place } => import(file, place, out),
        KeysCommand::Export { file, place, nks0 } => export(file, place, *nks0, out),
    }
}

fn find(place: &Place) -> Result<(KeyFile, KeyRotation), Error> {
    let found = place.find()?;
    Ok((KeyFile::in_directory(&found.state_directory), found.rotation))
}

fn rotate(place: &Place, out: &mut impl Write) -> Result<(), Error> {
    match ask::<Rotated>(&place.find()?.control_socket, Request::RotateKeys) {
        Ok(Rotated { current }) => {
            writeln!(out, "{current} is current now in the running server")?;
            return Ok(());
        }
        // Then the file is ours to change.
        Err(AskError::NoServer(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let (file, rotation) = find(place)?;
    if rotation == KeyRotation::External {
        return Err(Error::External);
    }
    let mut random = NonceGenerator::new().map_err(Error::Random)?;
    let mut loaded = file.load()?;
    let _lock = file.lock()?;
    loaded.ring.rotate(|bytes| random.fill(bytes));
    file.save(&loaded.ring, Duration::ZERO, Some(loaded.stamp))?;
    writeln!(out, "{:08X} is current now; nothing else changed", loaded.ring.current().id())?;
    Ok(())
}

fn import(from: &Path, place: &Place, out: &mut impl Write) -> Result<(), Error> {
    let (file, rotation) = find(place)?;
    if rotation == KeyRotation::External {
        return Err(Error::External);
    }
    let read = |source| Error::ReadImport { path: from.to_owned(), source };
    if is_of_ntpd_rs(&std::fs::read(from).map(zeroize::Zeroizing::new).map_err(read)?) {
        return Err(Error::NtpdRs(from.to_owned()));
    }
    let Loaded { ring, age, .. } = store::load_from(from).map_err(|error| match error {
        StoreError::Damaged { path, source } => Error::NoKeys { path, source },
        error => Error::Store(error),
    })?;
    let _lock = file.lock()?;
    let known = file.stamp()?;
    let copy = file.keep_copy()?;
    file.save(&ring, age, known)?;
    writeln!(out, "{:08X} is current now", ring.current().id())?;
    if let Some(copy) = copy {
        writeln!(out, "the keys before are kept in {}", copy.display())?;
    }
    Ok(())
}

/// Seconds since 1970 (8 bytes), offset of identifiers, place of the current key, number of keys
/// (4 bytes each, all big endian), then AES-SIV-CMAC-512 keys of 64 bytes.
fn is_of_ntpd_rs(bytes: &[u8]) -> bool {
    let Some((head, keys)) = bytes.split_at_checked(20) else { return false };
    let count = head.last_chunk().map_or(0, |count| u32::from_be_bytes(*count));
    count > 0 && keys.len() as u64 == 64 * u64::from(count)
}

fn export(to: &Path, place: &Place, nks0: bool, out: &mut impl Write) -> Result<(), Error> {
    let (file, _) = find(place)?;
    let Loaded { ring, age, .. } = file.load()?;
    let text = if nks0 {
        ntskeys::emit_old(&ring, age.as_secs_f64()).ok_or(Error::Mixed)?
    } else {
        ntskeys::emit(&ring, age.as_secs_f64())
    };
    if to == "-" {
        out.write_all(text.as_bytes())?;
        return Ok(());
    }
    replace_private(to, text.as_bytes())
        .map_err(|source| Error::WriteExport { path: to.to_owned(), source })?;
    writeln!(
        out,
        "{} holds the keys; whoever reads it can forge this server's time",
        to.display()
    )?;
    Ok(())
}

/// What `keys show` tells.
struct Shown {
    file: String,
    age: Duration,
    /// `None`: another program rotates.
    next_rotation: Option<Duration>,
    keys: Vec<ShownKey>,
}

struct ShownKey {
    place: &'static str,
    id: String,
    algorithm: &'static str,
    algorithm_number: u16,
    fingerprint: String,
}

impl Shown {
    fn new(file: &KeyFile, loaded: &Loaded, rotation: KeyRotation) -> Self {
        let next_rotation = match rotation {
            KeyRotation::Every(interval) => {
                Some(Rotation::new(interval, loaded.age, Duration::ZERO).due_in(Duration::ZERO))
            }
            KeyRotation::External => None,
        };
        let places = ["previous", "previous", "current", "next"];
        Self {
            file: file.path().display().to_string(),
            age: loaded.age,
            next_rotation,
            keys: places.into_iter().zip(loaded.ring.keys()).map(ShownKey::new).collect(),
        }
    }

    fn print(&self, out: &mut impl Write) -> Result<(), Error> {
        writeln!(out, "file           {}", self.file)?;
        writeln!(out, "newest key     {} old", in_words(self.age))?;
        match self.next_rotation {
            None => writeln!(out, "next rotation  by another program")?,
            Some(Duration::ZERO) => writeln!(out, "next rotation  due; a running server does it")?,
            Some(due) => {
                let at = SystemTime::now().checked_add(due).map(humantime::format_rfc3339_seconds);
                let at = at.map_or_else(String::new, |at| format!(", {at}"));
                writeln!(out, "next rotation  in {}{at}", in_words(due))?;
            }
        }
        writeln!(out, "\n{:<14} {:<9} {:<17} SHA-256", "", "id", "algorithm")?;
        for key in &self.keys {
            let ShownKey { place, id, algorithm, fingerprint, .. } = key;
            writeln!(out, "{place:<14} {id:<9} {algorithm:<17} {fingerprint}")?;
        }
        Ok(())
    }

    fn print_json(&self, out: &mut impl Write) -> Result<(), Error> {
        let keys: Vec<_> = self
            .keys
            .iter()
            .map(|key| {
                serde_json::json!({
                    "place": key.place,
                    "id": key.id,
                    "algorithm": key.algorithm_number,
                    "fingerprint": key.fingerprint,
                })
            })
            .collect();
        let shown = serde_json::json!({
            "file": self.file,
            "newest_key_age_seconds": self.age.as_secs(),
            "next_rotation_seconds": self.next_rotation.map(|due| due.as_secs()),
            "keys": keys,
        });
        writeln!(out, "{shown:#}")?;
        Ok(())
    }
}

impl ShownKey {
    fn new((place, key): (&'static str, &MasterKey)) -> Self {
        Self {
            place,
            id: format!("{:08X}", key.id()),
            algorithm: key.algorithm().name(),
            algorithm_number: key.algorithm().id(),
            fingerprint: fingerprint(key),
        }
    }
}

/// Whole minutes, or seconds below one.
pub(super) fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    let whole = if seconds < 60 { seconds } else { seconds - seconds % 60 };
    humantime::format_duration(Duration::from_secs(whole)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_ntpd_rs_is_known_by_its_length_and_count() {
        let mut file = vec![0; 20 + 3 * 64];
        file[19] = 3;
        assert!(is_of_ntpd_rs(&file));
        assert!(!is_of_ntpd_rs(&file[..20 + 2 * 64]));
        assert!(!is_of_ntpd_rs(b"NKS1\n0.0\n"));
        assert!(!is_of_ntpd_rs(&[0; 20]));
        assert!(!is_of_ntpd_rs(&[]));
    }
}
