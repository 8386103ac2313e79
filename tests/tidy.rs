//! The style of the sources, as far as a program can see it, and the promises of the documents.

use std::fs;
use std::path::{Path, PathBuf};

const COLUMNS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 600;

/// Where unsafe code may stand: a module fenced by an `allow` with a reason, or all below a folder.
const UNSAFE_PLACES: [&str; 11] = [
    "src/aead/arch/",
    "src/sys/adjtimex.rs",
    "src/sys/inherited.rs",
    "src/sys/interface.rs",
    "src/sys/memory.rs",
    "src/sys/message.rs",
    "src/sys/mmsg.rs",
    "src/sys/option.rs",
    "src/sys/phc.rs",
    "src/sys/slice.rs",
    "src/sys/uring.rs",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the workspace, with its path from the root.
fn sources() -> Vec<(String, String)> {
    let mut folders: Vec<PathBuf> =
        ["src", "tests", "benches", "loadgen", "fuzz"].map(|folder| root().join(folder)).into();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).expect("below the root").display().to_string();
                sources.push((name, fs::read_to_string(&path).expect("text")));
            }
        }
    }
    assert!(sources.len() > 50, "the sources were not found");
    sources
}

fn assert_none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn lines_and_files_are_short() {
    let mut long = Vec::new();
    for (name, text) in sources() {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            long.push(format!("{name}: {lines} lines"));
        }
        for (number, line) in (1..).zip(text.lines()) {
            if line.chars().count() > COLUMNS_MAX {
                long.push(format!("{name}:{number}: {} columns", line.chars().count()));
            }
        }
    }
    assert_none("too long", long);
}

/// A function starts at a line with `fn` and ends at the first closing brace of its indentation,
/// as rustfmt writes it.
#[test]
fn functions_fit_a_screen() {
    let mut long = Vec::new();
    for (name, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let body = line.trim_start();
            let is_function = ["fn ", "pub fn ", "pub(super) fn ", "pub(crate) fn ", "unsafe fn "]
                .iter()
                .any(|prefix| body.starts_with(prefix));
            if !is_function {
                continue;
            }
            let close = format!("{}}}", &line[..line.len() - body.len()]);
            let end = lines[start..].iter().position(|line| *line == close).unwrap_or(0);
            if end >= FUNCTION_LINES_MAX {
                long.push(format!("{name}:{}: {} lines", start + 1, end + 1));
            }
        }
    }
    assert_none("functions longer than a screen", long);
}

#[test]
fn unsafe_code_is_fenced() {
    let mut found = Vec::new();
    for (name, text) in sources() {
        if !name.starts_with("src/") || UNSAFE_PLACES.iter().any(|place| name.starts_with(place)) {
            continue;
        }
        for (number, line) in (1..).zip(text.lines()) {
            let code = line.split("//").next().unwrap_or_default();
            if code.contains("unsafe {") || code.contains("allow(unsafe_code") {
                found.push(format!("{name}:{number}"));
            }
        }
    }
    assert_none("unsafe code outside of its fence", found);
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = ["todo!(", "unimplemented!(", "FIXME", "XXX"];
    let mut found = Vec::new();
    for (name, text) in sources().into_iter().filter(|(name, _)| name != "tests/tidy.rs") {
        for (number, line) in (1..).zip(text.lines()) {
            if marks.iter().any(|&mark| line.contains(mark)) {
                found.push(format!("{name}:{number}"));
            }
        }
    }
    assert_none("unfinished", found);
}

/// Every promise names a test or a bench that exists, or says that it is pending.
#[test]
fn promises_have_tests() {
    let rows = rows_with_tests("docs/SPECIFICATION.md", "pending");
    assert!(rows > 10, "{rows}");
}

/// So does every defence of the threat model, or says that there is none.
#[test]
fn defences_have_tests() {
    let rows = rows_with_tests("docs/THREAT_MODEL.md", "–");
    assert!(rows > 40, "{rows}");
}

/// Looks at the last column of each table with a column "test": how many rows name one. Those that
/// do not have to say `otherwise`.
fn rows_with_tests(document: &str, otherwise: &str) -> usize {
    let text = fs::read_to_string(root().join(document)).expect("the file");
    let (mut broken, mut found, mut has_tests) = (Vec::new(), 0, false);
    for row in text.lines() {
        let Some(row) = row.strip_suffix(" |").filter(|row| row.starts_with("| ")) else {
            has_tests &= row.starts_with('|');
            continue;
        };
        let last = row.rsplit("| ").next().expect("a column");
        if last == "test" {
            has_tests = true;
        } else if has_tests && last != "---" {
            match last.strip_prefix('`').and_then(|test| test.split_once('`')) {
                Some((test, _)) if is_there(test) => found += 1,
                None if last == otherwise => {}
                _ => broken.push(row.to_owned()),
            }
        }
    }
    assert_none("promises without their test", broken);
    found
}

/// `cargo ...`, `FILE FUNCTION`, or a bench with its options. A script's functions have no `fn`.
fn is_there(test: &str) -> bool {
    if test.starts_with("cargo ") {
        return true;
    }
    let (file, function) = test.split_once(' ').unwrap_or((test, ""));
    let path = root().join(file);
    if file.starts_with("benches/") {
        return path.is_file();
    }
    let source = fs::read_to_string(path).unwrap_or_default();
    source.contains(&format!("fn {function}(")) || source.contains(&format!("\n{function}() {{"))
}

/// The architecture's list of unsafe places is the one that holds.
#[test]
fn the_architecture_names_the_fence() {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("the file");
    for place in UNSAFE_PLACES {
        assert!(text.contains(place), "{place}");
    }
}
