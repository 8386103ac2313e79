//! What packages generate: manual pages that mandoc and man take, and completions that shells take.

use std::fs;
use std::process::{Command, Output};

use timeball::cli::generate::{GenerateArguments, generate};

/// All generated files of both programs.
fn generated() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a directory");
    let date = "2026-01-02";
    let output = Command::new(env!("CARGO_BIN_EXE_timeball"))
        .args(["generate", "--date", date])
        .arg(folder.path())
        .output()
        .expect("the program");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let arguments = GenerateArguments { folder: folder.path().to_owned(), date: date.to_owned() };
    generate(&arguments, timeball_load::cli::command(), &timeball_load::cli::PROGRAM)
        .expect("written");
    folder
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

fn tool(command: &mut Command, package: &str) -> Output {
    let program = command.get_program().to_owned();
    command.output().unwrap_or_else(|error| {
        panic!("{program:?} (Debian package {package}): {error}; run tests/install-peers")
    })
}

#[test]
fn pages_name_every_command_and_pass_mandoc_and_man() {
    let folder = generated();
    let mut pages: Vec<_> = fs::read_dir(folder.path().join("man"))
        .expect("pages")
        .map(|page| page.expect("an entry").path())
        .collect();
    pages.sort();
    let names: Vec<&str> =
        pages.iter().map(|page| page.file_name().and_then(|name| name.to_str()).unwrap()).collect();
    for name in ["timeball.1", "timeball-keys-import.1", "timeball.toml.5", "timeball-load-nts.1"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("role") || name.contains("generate")));
    // "-W warning" has a word on whatever is not portable or not well-formed.
    let lint =
        tool(Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).args(&pages), "mandoc");
    assert!(lint.status.success(), "{}", text(&lint.stdout));
    for page in &pages {
        let shown = tool(Command::new("man").args(["--warnings", "-l"]).arg(page), "man-db");
        assert!(shown.status.success() && shown.stderr.is_empty(), "{}", text(&shown.stderr));
        assert!(text(&shown.stdout).contains("SEE ALSO"), "{page:?}");
    }
}

#[test]
fn exit_codes_are_those_of_the_command() {
    let folder = generated();
    let page = |name| {
        let page = folder.path().join("man").join(name);
        let shown = tool(Command::new("man").arg("-l").arg(page), "man-db");
        // One line, however it was filled.
        let words: Vec<&str> = text(&shown.stdout).split_whitespace().collect();
        words.join(" ")
    };
    let check = page("timeball-check.1");
    assert!(check.contains("0 ok, 1 warning, 2 critical, 3 unknown"), "{check}");
    assert!(!check.contains("EXIT STATUS"), "{check}");
    assert!(page("timeball-serve.1").contains("EXIT STATUS"));
}

#[test]
fn shells_take_the_completions() {
    let folder = generated();
    for (shell, package, files) in [
        ("bash", "bash", ["timeball.bash", "timeball-load.bash"]),
        ("zsh", "zsh", ["_timeball", "_timeball-load"]),
        ("fish", "fish", ["timeball.fish", "timeball-load.fish"]),
    ] {
        for file in files {
            let path = folder.path().join("completions").join(file);
            let text_of_file = fs::read_to_string(&path).expect("a file");
            assert!(text_of_file.contains("json"), "{file}");
            // What the supervisor and packaging/build run is nothing to offer.
            for hidden in ["generate", "responder"] {
                assert!(!text_of_file.contains(hidden), "{file} offers {hidden}");
            }
            let checked = tool(Command::new(shell).arg("-n").arg(&path), package);
            assert!(checked.status.success(), "{file}: {}", text(&checked.stderr));
        }
    }
}

/// bash itself asks the completion what may follow.
#[test]
fn bash_completes_commands() {
    let folder = generated();
    let script = "source \"$1\"; COMP_WORDS=(timeball se); COMP_CWORD=1; \
                  _timeball timeball se timeball; echo \"${COMPREPLY[@]}\"";
    let output = tool(
        Command::new("bash")
            .args(["-c", script, "bash"])
            .arg(folder.path().join("completions/timeball.bash")),
        "bash",
    );
    assert_eq!(text(&output.stdout).trim(), "serve serverstats", "{}", text(&output.stderr));
}
