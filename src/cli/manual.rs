//! Manual pages, from the command line and from the table of the configuration's keys.

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use crate::config::keys::{KEYS, Key};

/// A page and the name of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Such as `timeball-serve.1`.
    pub file: String,
    /// In the man(7) macros of roff.
    pub text: Vec<u8>,
}

/// What the pages of a program say beside what its command line says itself.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Each exit code with its meaning.
    pub exit_status: &'static [(&'static str, &'static str)],
    /// Files that it reads or writes; on the program's own page only.
    pub files: &'static [(&'static str, &'static str)],
    /// Other pages.
    pub see_also: &'static [&'static str],
}

/// A page for `command` and one for each subcommand that is not hidden.
pub fn command_pages(command: Command, program: &Program, date: &str) -> Vec<Page> {
    // The page of `timeball help serve` would be that of `timeball serve`.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let version = format!("{} {}", command.get_name(), command.get_version().unwrap_or_default());
    let mut pages = vec![command_page(&command, program, program.files, &version, date)];
    add_subcommands(&mut pages, &command, program, &version, date);
    pages
}

fn add_subcommands(
    pages: &mut Vec<Page>,
    command: &Command,
    program: &Program,
    version: &str,
    date: &str,
) {
    for subcommand in command.get_subcommands().filter(|found| !found.is_hide_set()) {
        pages.push(command_page(subcommand, program, &[], version, date));
        add_subcommands(pages, subcommand, program, version, date);
    }
}

fn command_page(
    command: &Command,
    program: &Program,
    files: &[(&str, &str)],
    version: &str,
    date: &str,
) -> Page {
    let man = Man::new(command.clone()).source(version).date(date).manual(MANUAL);
    let mut text = Vec::new();
    let mut sections = vec![Man::render_title, Man::render_name_section];
    sections.extend([Man::render_synopsis_section, Man::render_description_section]);
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        sections.push(Man::render_options_section);
    }
    if command.get_subcommands().any(|found| !found.is_hide_set()) {
        sections.push(Man::render_subcommands_section);
    }
    if command.get_after_help().is_some() {
        sections.push(Man::render_extra_section);
    }
    for section in sections {
        section(&man, &mut text).expect(IN_MEMORY);
    }
    // mandoc calls the breaks around a blank line superfluous, and they are.
    let text = String::from_utf8(text).expect("clap's texts are UTF-8");
    let text = text.replace("\n.br\n\n.br\n", "\n.sp\n");
    let mut text = text.replace(".SH EXTRA\n", ".SH NOTES\n").into_bytes();
    let mut rest = Roff::new();
    // Commands that have others say so in their notes.
    if command.get_after_help().is_none() {
        add_list(&mut rest, "EXIT STATUS", program.exit_status);
    }
    add_list(&mut rest, "FILES", files);
    add_see_also(&mut rest, program.see_also);
    rest.to_writer(&mut text).expect(IN_MEMORY);
    Page { file: man.get_filename(), text }
}

/// The page of the configuration file: every key, in the order of the sample file.
pub fn configuration_page(date: &str) -> Page {
    let version = concat!("timeball ", env!("CARGO_PKG_VERSION"));
    let mut page = Roff::new();
    page.control("TH", ["timeball.toml", "5", date, version, MANUAL]);
    page.control("SH", ["NAME"]);
    page.text([roman("timeball.toml - configuration of the time server timeball")]);
    page.control("SH", ["SYNOPSIS"]);
    page.text([bold("/etc/timeball/timeball.toml")]);
    page.control("SH", ["DESCRIPTION"]);
    for (number, paragraph) in CONFIGURATION.iter().enumerate() {
        if number > 0 {
            page.control("PP", []);
        }
        page.text([roman(*paragraph)]);
    }
    let mut section = None;
    for key in KEYS {
        if section != Some(key.section) {
            section = Some(key.section);
            let heading = match key.section {
                "" => "BEFORE ALL SECTIONS".to_owned(),
                name => format!("SECTION [{name}]"),
            };
            page.control("SH", [heading.as_str()]);
        }
        page.control("TP", []);
        page.text(term(key));
        page.text([roman(key.help.join(" "))]);
    }
    page.control("SH", ["EXAMPLE"]);
    page.text([roman("A public server beside chronyd:")]);
    page.control("PP", []);
    page.control("nf", []);
    for line in EXAMPLE.lines() {
        page.text([roman(line)]);
    }
    page.control("fi", []);
    add_see_also(&mut page, &["timeball(1)", "timeball-config-check(1)", "timeball-reload(1)"]);
    Page { file: "timeball.toml.5".to_owned(), text: page.render().into_bytes() }
}

/// A key with its default, or with an example where it has none of its own.
fn term(key: &Key) -> Vec<Inline> {
    let before = if key.is_default { " = " } else { ", for example " };
    vec![bold(key.name), roman(before), italic(key.sample)]
}

fn add_list(page: &mut Roff, heading: &str, list: &[(&str, &str)]) {
    if list.is_empty() {
        return;
    }
    page.control("SH", [heading]);
    for (term, meaning) in list {
        page.control("TP", []);
        page.text([bold(*term)]);
        page.text([roman(*meaning)]);
    }
}

fn add_see_also(page: &mut Roff, pages: &[&str]) {
    page.control("SH", ["SEE ALSO"]);
    page.text([roman(pages.join(", "))]);
}

const MANUAL: &str = "timeball";

const IN_MEMORY: &str = "memory can be written";

const CONFIGURATION: [&str; 4] = [
    "The configuration is a TOML file. Every key is optional; those that stand here with a value \
     have it as their default. A key that timeball does not know is an error, as is a value out \
     of range, and the message names the line.",
    "timeball config example prints a file with every key; timeball config check FILE says whether \
     a file is good; timeball config import FILE makes one from that of chrony or ntpd-rs.",
    "A running server reads the file again at timeball reload or SIGHUP. A wrong file changes \
     nothing then, and keys that have changed and need a restart are named.",
    "Times are texts such as \"7 days\" or \"1 hour\", or seconds.",
];

const EXAMPLE: &str = "\
[clock]
source = \"follow\"

[ke]
certificate = \"/etc/timeball/fullchain.pem\"
key = \"/etc/timeball/key.pem\"

[observe]
listen = \"127.0.0.1:9975\"
";

#[cfg(test)]
mod tests {
    use clap::{Arg, Command};

    use super::*;

    const PROGRAM: Program = Program {
        exit_status: &[("0", "Done.")],
        files: &[("/etc/file", "A file.")],
        see_also: &["other(1)"],
    };

    #[test]
    fn every_command_has_its_page_but_the_hidden_ones() {
        let command = Command::new("tool").version("1.2").about("A tool").subcommand(
            Command::new("make")
                .subcommand(Command::new("more").arg(Arg::new("deep").help("How deep")))
                .subcommand(Command::new("secret").hide(true)),
        );
        let pages = command_pages(command, &PROGRAM, "2026-01-02");
        let files: Vec<&str> = pages.iter().map(|page| page.file.as_str()).collect();
        assert_eq!(files, ["tool.1", "tool-make.1", "tool-make-more.1"]);
        let text = |index: usize| String::from_utf8(pages[index].text.clone()).expect("text");
        assert!(text(0).contains("/etc/file") && !text(1).contains("/etc/file"));
        assert!(text(0).contains("2026-01-02") && text(2).contains("How deep"), "{}", text(2));
        assert!(!text(1).contains("secret"), "{}", text(1));
    }

    #[test]
    fn every_key_is_on_the_page_of_the_configuration() {
        let text = String::from_utf8(configuration_page("").text).expect("text");
        for key in KEYS {
            let name = format!("\\fB{}\\fR", key.name);
            assert!(text.contains(&name), "{name}: {text}");
        }
    }
}
