//! The lines of chrony.conf, with those of the files that it includes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::limits::commands::IMPORT_INCLUDE_DEPTH_MAX;

/// A line that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// Its file and line, as in a message of a compiler.
    pub place: String,
    /// The first word, in small letters: chrony does not tell them apart.
    pub name: String,
    /// The other words.
    pub arguments: Vec<String>,
}

/// Why directives could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file or directory cannot be read.
    #[error("cannot read {}: {source}; check its name and who may read it", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Files include each other.
    #[error(
        "{place}: files include each other more than {IMPORT_INCLUDE_DEPTH_MAX} deep, which chrony \
         refuses too"
    )]
    Depth {
        /// Where the last one is included.
        place: String,
    },
    /// The names of included files make no sense.
    #[error("{place}: \"{pattern}\" names no files: {source}")]
    Pattern {
        /// Where it stands.
        place: String,
        /// What is written there.
        pattern: String,
        /// What is wrong with it.
        source: glob::PatternError,
    },
}

/// Reads a file, and in the place of `include` and `confdir` the files that these name. They
/// themselves are returned, too.
///
/// # Errors
/// [`ReadError`].
pub fn read(path: &Path) -> Result<Vec<Directive>, ReadError> {
    let mut directives = Vec::new();
    read_into(&mut directives, path, IMPORT_INCLUDE_DEPTH_MAX)?;
    Ok(directives)
}

fn read_into(into: &mut Vec<Directive>, path: &Path, depth: usize) -> Result<(), ReadError> {
    let io = |path: &Path, source| ReadError::Io { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(|source| io(path, source))?;
    for directive in parse(&text, &path.display().to_string()) {
        let included = match directive.name.as_str() {
            "include" => matching(&directive)?,
            "confdir" => of_directories(&directive.arguments),
            _ => Vec::new(),
        };
        let place = directive.place.clone();
        into.push(directive);
        for file in included {
            let depth =
                depth.checked_sub(1).ok_or_else(|| ReadError::Depth { place: place.clone() })?;
            read_into(into, &file, depth)?;
        }
    }
    Ok(())
}

/// The directives of a text. A comment is a line of its own, chrony.conf(5).
pub fn parse(text: &str, file: &str) -> Vec<Directive> {
    (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim_start().starts_with(['!', ';', '#', '%']))
        .filter_map(|(number, line)| {
            let mut words = line.split_whitespace().map(str::to_owned);
            let name = words.next()?.to_lowercase();
            let place = format!("{file}:{number}");
            Some(Directive { place, name, arguments: words.collect() })
        })
        .collect()
}

/// The files that `include PATTERN` names; those that are not there are none.
fn matching(directive: &Directive) -> Result<Vec<PathBuf>, ReadError> {
    let pattern = directive.arguments.join(" ");
    let found = glob::glob(&pattern).map_err(|source| ReadError::Pattern {
        place: directive.place.clone(),
        pattern: pattern.clone(),
        source,
    })?;
    Ok(found.filter_map(Result::ok).collect())
}

/// The files `*.conf` of these directories by their name; of two with one name, that of the first
/// directory. A directory that is not there has none.
fn of_directories(directories: &[String]) -> Vec<PathBuf> {
    let mut files = BTreeMap::new();
    for directory in directories {
        let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
        for path in entries.map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "conf") {
                files.entry(path.file_name().map(ToOwned::to_owned)).or_insert(path);
            }
        }
    }
    files.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn included_files_stand_where_they_are_named() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = |name: &str| folder.path().join(name);
        for directory in ["a", "b"] {
            std::fs::create_dir(path(directory)).expect("made");
        }
        let here = folder.path().display();
        let main = format!(
            "! a comment\n  # another\nPORT 1\ninclude {here}/more*.conf\n\
             confdir {here}/a {here}/b {here}/c\ninclude {here}/absent\n"
        );
        for (name, text) in [
            ("main.conf", main.as_str()),
            ("more1.conf", "port 2"),
            ("a/2.conf", "port 4"),
            ("b/1.conf", "port 3"),
            ("b/2.conf", "port 9"),
            ("b/other", "port 9"),
        ] {
            std::fs::write(path(name), text).expect("written");
        }
        let directives = read(&path("main.conf")).expect("read");
        let ports: Vec<&str> = directives
            .iter()
            .filter(|directive| directive.name == "port")
            .map(|directive| directive.arguments[0].as_str())
            .collect();
        assert_eq!(ports, ["1", "2", "3", "4"]);
        assert_eq!(directives[0].place, format!("{here}/main.conf:3"));

        std::fs::write(path("loop"), format!("include {here}/loop")).expect("written");
        assert!(matches!(read(&path("loop")), Err(ReadError::Depth { .. })));
        assert!(matches!(read(&path("absent")), Err(ReadError::Io { .. })));
    }
}
