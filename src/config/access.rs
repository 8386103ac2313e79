//! Section `access`: who is answered, by lists here and in files of their own.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use toml::Spanned;

use super::address::{networks, parse_network};
use super::raw::{ConfigError, RawAccess};
use crate::limits::clients::{
    ACCESS_FILE_BYTES_MAX, ACCESS_NETWORKS_INLINE_MAX, ACCESS_NETWORKS_MAX,
};
use crate::networks::{Conflict, NetworkSet};

/// Who is answered: of the networks that an address lies in, the longest prefix decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessSettings {
    /// Networks that are answered.
    pub allow: Vec<IpNet>,
    /// Networks that are not.
    pub deny: Vec<IpNet>,
    /// A file of more that are.
    pub allow_file: Option<PathBuf>,
    /// A file of more that are not.
    pub deny_file: Option<PathBuf>,
}

impl Default for AccessSettings {
    /// Everybody is answered.
    fn default() -> Self {
        let allow = ["0.0.0.0/0", "::/0"].map(|all| all.parse().expect("a network")).into();
        Self { allow, deny: Vec::new(), allow_file: None, deny_file: None }
    }
}

/// Why there are no access lists: each sentence says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file cannot be read.
    #[error("cannot read the networks of access.{key}: {}: {source}", file.display())]
    Read {
        /// `allow_file` or `deny_file`.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line of a file is wrong.
    #[error(
        "{}: line {line}: \"{text}\" is no network; write one in each line, such as 192.0.2.0/24 \
         or ::1, and comments behind # or ;", file.display()
    )]
    Network {
        /// The file.
        file: PathBuf,
        /// Counted from one.
        line: usize,
        /// What is there.
        text: String,
    },
    /// Both lists have it.
    #[error("access: {0}")]
    Conflict(#[from] Conflict),
    /// The lists are too long.
    #[error(
        "access: {count} networks are too many, there can be {ACCESS_NETWORKS_MAX}; join them to \
         larger ones"
    )]
    TooMany {
        /// How many there are.
        count: usize,
    },
}

pub(super) fn check(text: &str, raw: &RawAccess) -> Result<AccessSettings, ConfigError> {
    let inline = |list: &Option<Spanned<Vec<Spanned<String>>>>, name, default| {
        let Some(list) = list else { return Ok(default) };
        networks(text, list, name, ACCESS_NETWORKS_INLINE_MAX)
    };
    let default = AccessSettings::default();
    // A file of those who have access would say nothing if everybody had it.
    let allow = if raw.allow_file.is_some() { Vec::new() } else { default.allow };
    let settings = AccessSettings {
        allow: inline(&raw.allow, "allow", allow)?,
        deny: inline(&raw.deny, "deny", default.deny)?,
        allow_file: raw.allow_file.clone(),
        deny_file: raw.deny_file.clone(),
    };
    // A list that is not there has nothing that another one could contradict, but for the default.
    if let Some(list) = raw.deny.as_ref().or(raw.allow.as_ref()) {
        NetworkSet::new(&settings.allow, &settings.deny)
            .map_err(|conflict| ConfigError::at(text, list, conflict.to_string()))?;
    }
    Ok(settings)
}

impl AccessSettings {
    /// The addresses that are answered, with what the files say now.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn read(&self) -> Result<NetworkSet, AccessError> {
        let mut allow = self.allow.clone();
        allow.extend(read_list("allow_file", self.allow_file.as_deref())?);
        let mut deny = self.deny.clone();
        deny.extend(read_list("deny_file", self.deny_file.as_deref())?);
        let count = allow.len() + deny.len();
        if count > ACCESS_NETWORKS_MAX {
            return Err(AccessError::TooMany { count });
        }
        Ok(NetworkSet::new(&allow, &deny)?)
    }
}

fn read_list(key: &'static str, file: Option<&Path>) -> Result<Vec<IpNet>, AccessError> {
    let Some(file) = file else { return Ok(Vec::new()) };
    let text = read_text(file);
    let text = text.map_err(|source| AccessError::Read { key, file: file.to_owned(), source })?;
    parse_list(&text).map_err(|(line, text)| {
        let text = text.chars().take(SHOWN_CHARACTERS).collect();
        AccessError::Network { file: file.to_owned(), line, text }
    })
}

fn read_text(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(file)?.take(ACCESS_FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if read as u64 > ACCESS_FILE_BYTES_MAX {
        let what = format!("it is longer than {ACCESS_FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(text)
}

/// A network a line. What stands behind `#` or `;` is a comment, as in the lists that are
/// published. An error is a line, counted from one, with what is wrong in it.
fn parse_list(text: &str) -> Result<Vec<IpNet>, (usize, &str)> {
    let entries = (1..).zip(text.lines()).filter_map(|(number, line)| {
        let entry = line.split(['#', ';']).next().unwrap_or_default().trim();
        (!entry.is_empty()).then_some((number, entry))
    });
    entries.map(|(number, entry)| parse_network(entry).ok_or((number, entry))).collect()
}

/// Of a line that is no network: enough to know it again.
const SHOWN_CHARACTERS: usize = 60;

#[cfg(test)]
mod tests {
    use super::super::checked::parse;
    use super::*;

    fn settings(text: &str) -> AccessSettings {
        parse(&format!("[access]\n{text}")).expect(text).access
    }

    fn has(set: &NetworkSet, address: &str) -> bool {
        set.contains(address.parse::<std::net::IpAddr>().expect("an address"))
    }

    #[test]
    fn everybody_is_answered_unless_told() {
        assert_eq!(settings(""), AccessSettings::default());
        assert!(settings("").read().expect("no files").is_everybody());
        let some = settings("allow = [\"192.0.2.0/24\"]").read().expect("no files");
        assert!(has(&some, "192.0.2.1") && !has(&some, "192.0.3.1") && !has(&some, "::1"));
        let most = settings("deny = [\"192.0.2.0/24\", \"::1\"]").read().expect("no files");
        assert!(!has(&most, "192.0.2.1") && has(&most, "192.0.3.1") && !has(&most, "::1"));
    }

    #[test]
    fn a_file_of_those_with_access_shuts_out_all_others() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(&file, "192.0.2.0/24 # ours\n").expect("written");
        let line = format!("allow_file = \"{}\"\n", file.path().display());
        let some = settings(&line).read().expect("readable");
        assert!(has(&some, "192.0.2.1") && !has(&some, "192.0.3.1"));
        let more = settings(&format!("{line}allow = [\"192.0.3.0/24\"]")).read();
        let more = more.expect("readable");
        assert!(has(&more, "192.0.2.1") && has(&more, "192.0.3.1") && !has(&more, "::1"));
    }

    #[test]
    fn lists_that_are_wrong_are_said_with_their_line() {
        let message = |text: &str| parse(&format!("[access]\n{text}")).expect_err(text).to_string();
        assert!(message("allow = [\"lan\"]").starts_with("line 2: \"lan\" is no network; write"));
        let both = message("\ndeny = [\"::/0\"]");
        assert_eq!(
            both,
            "line 3: ::/0 is both allowed and denied; remove it from one of the lists"
        );
        let long = "\"192.0.2.1\",".repeat(ACCESS_NETWORKS_INLINE_MAX + 1);
        assert_eq!(message(&format!("deny = [{long}]")), "line 2: deny takes 1024 networks");
        assert!(message("deny_files = []").contains("did you mean \"deny_file\"?"));
    }

    #[test]
    fn files_add_to_the_lists() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("deny");
        let access = AccessSettings { deny_file: Some(file.clone()), ..AccessSettings::default() };
        let error = access.read().expect_err("no file").to_string();
        assert!(error.starts_with("cannot read the networks of access.deny_file: "), "{error}");
        std::fs::write(&file, "# comment\n\n192.0.2.0/24 ; SBL1\n\t2001:db8::1\r\n")
            .expect("written");
        let set = access.read().expect("good");
        assert!(!has(&set, "192.0.2.9") && !has(&set, "2001:db8::1") && has(&set, "2001:db8::2"));
        std::fs::write(&file, "192.0.2.0/24\n10/8\n").expect("written");
        let error = access.read().expect_err("10/8").to_string();
        assert!(error.contains(": line 2: \"10/8\" is no network; write one in each"), "{error}");
        std::fs::write(&file, "0.0.0.0/0").expect("written");
        let error = access.read().expect_err("in both").to_string();
        assert!(error.starts_with("access: 0.0.0.0/0 is both allowed and denied"), "{error}");
        std::fs::write(&file, b"\xff\xfe").expect("written");
        access.read().expect_err("no text");
    }
}
