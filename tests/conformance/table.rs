//! The table of lines: printed with the results of this run, and published.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::{Line, Status, number};

/// Prints what became of each line.
pub fn print(lines: &[Line], results: &BTreeMap<u16, bool>) {
    let mut totals: BTreeMap<&str, usize> = BTreeMap::new();
    println!("\nConformance (numbered lines; M = MUST, S = SHOULD)\n");
    for line in lines {
        let has_passed = results.get(&line.number) == Some(&true);
        let (state, why) = match line.status {
            Status::Here if has_passed => ("passed", String::new()),
            Status::Here => ("FAILED", String::new()),
            // This program has seen that the test is there; whether it passes, `cargo test` says.
            Status::Elsewhere(place) if has_passed => ("unit", format!(" [{place}]")),
            Status::Elsewhere(place) => ("FAILED", format!(" [no such test: {place}]")),
            Status::Open(why) => ("open", format!(" [{why}]")),
            Status::NotApplicable(why) => ("n/a", format!(" [{why}]")),
        };
        *totals.entry(state).or_default() += 1;
        println!("{:>4} {:<6} {:<6} {}{why}", line.number, line.level, state, line.text);
    }
    let totals: Vec<String> =
        totals.iter().map(|(state, count)| format!("{count} {state}")).collect();
    println!("\nconformance lines: {}\n", totals.join(", "));
}

/// Whether `docs/CONFORMANCE.md` is this table, all of whose tests have passed. With
/// `TIMEBALL_WRITE_CONFORMANCE` set it is made so.
pub fn is_published(lines: &[Line], names: &[&str]) -> bool {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CONFORMANCE.md");
    let text = page(lines, names);
    if std::env::var_os("TIMEBALL_WRITE_CONFORMANCE").is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    let is_published = std::fs::read_to_string(&path).is_ok_and(|published| published == text);
    if !is_published {
        println!(
            "docs/CONFORMANCE.md is not this table; write it anew: TIMEBALL_WRITE_CONFORMANCE=1 \
             cargo test --test conformance"
        );
    }
    is_published
}

fn page(lines: &[Line], names: &[&str]) -> String {
    let mut page = HEAD.to_owned();
    for line in lines {
        let (state, where_to_find) = match line.status {
            Status::Here => ("passed", tests_of(line.number, names)),
            Status::Elsewhere(place) => ("passed", format!("`{place}`")),
            Status::Open(why) => ("open", why.to_owned()),
            Status::NotApplicable(why) => ("not applicable", why.to_owned()),
        };
        let text = line.text.replace('|', "\\|");
        writeln!(page, "| {} | {} | {text} | {state} | {where_to_find} |", line.number, line.level)
            .expect("into a string");
    }
    page
}

fn tests_of(line: u16, names: &[&str]) -> String {
    let names = names.iter().filter(|name| number(name) == line);
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

const HEAD: &str = "\
# Conformance

What RFC 8915 (NTS), RFC 5905 and RFC 7822 (NTP), RFC 9769 (interleaved mode) and the practice of
the field ask of a server, line by line: M must, S should, NOT its opposite. `cargo test --test
conformance` tests the lines over sockets against the running server, with its sandbox, prints this
table, and fails if this page is not it. Names in the last column are tests of that program, or a
file and its test.

| line | level | what holds | state | tests, or why not |
| ---: | --- | --- | --- | --- |
";
