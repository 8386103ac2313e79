//! `timeball top` in a terminal of its own, against a real server under load. What it draws is read
//! back as a terminal would show it, and photographed.
//!
//! `TIMEBALL_SCREENSHOTS=docs/screenshots cargo test --test top` takes the picture of the
//! documents, with a minute of load before it; without it the picture goes to the target
//! directory.

mod browser;
mod common;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use browser::Browser;
use common::plain_request;
use common::server::{Server, kill, program, udp_client, wait_until};
use rustix::process::Signal;
use timeball::aead::{Algorithm, NonceGenerator};
use timeball::limits::DATAGRAM_BYTES;
use timeball::wire::ntp::Mode;

const COLUMNS: u16 = 80;
const LINES: u16 = 24;

/// The program in a pseudo-terminal that `script` makes.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<vt100::Parser>>,
    folder: tempfile::TempDir,
}

impl Terminal {
    /// Runs `top`, with the settings of the terminal written down before and after.
    fn start(server: &Server) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (before, after) = (folder.path().join("before"), folder.path().join("after"));
        let line = format!(
            "stty rows {LINES} columns {COLUMNS}; stty -g >{}; {} top --config {}; \
             echo $? >{after}.code; stty -g >{after}",
            before.display(),
            env!("CARGO_BIN_EXE_timeball"),
            server.directory.path().join("timeball.toml").display(),
            after = after.display(),
        );
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .env("TERM", "xterm-256color")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script (Debian package bsdutils)");
        let keys = child.stdin.take().expect("piped");
        let mut output = child.stdout.take().expect("piped");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(LINES, COLUMNS, 0)));
        let shown = Arc::clone(&screen);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(bytes @ 1..) = output.read(&mut buffer) {
                shown.lock().expect("not poisoned").process(&buffer[..bytes]);
            }
        });
        Self { child, keys, screen, folder }
    }

    fn text(&self) -> String {
        self.screen.lock().expect("not poisoned").screen().contents()
    }

    fn is_taken(&self) -> bool {
        self.screen.lock().expect("not poisoned").screen().alternate_screen()
    }

    /// The process of `top`: the shell's child.
    fn pid(&self) -> u32 {
        let children = |pid: u32| -> Vec<u32> {
            let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            text.unwrap_or_default().split_whitespace().filter_map(|it| it.parse().ok()).collect()
        };
        let shell = children(self.child.id())[0];
        let names = children(shell).into_iter().find(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "timeball\n")
        });
        names.expect("top runs")
    }

    /// Waits for its end: fine, and the terminal is as it was.
    fn assert_ended_well(mut self) {
        self.child.wait().expect("a child");
        let read = |name: &str| fs::read_to_string(self.folder.path().join(name)).expect("written");
        assert_eq!(read("after.code"), "0\n");
        assert_eq!(read("before"), read("after"), "the terminal is not as it was");
        wait_until("everything is read", || !self.is_taken());
        let screen = self.screen.lock().expect("not poisoned");
        assert!(!screen.screen().hide_cursor(), "the cursor is hidden");
    }
}

#[test]
fn it_draws_a_live_server_and_leaves_the_terminal_as_it_was() {
    let more = "processes = 1";
    let server = Server::start_with(Algorithm::AesSivCmac256, "workers = 2", "", more);
    let load = Load::start(&server);
    let mut terminal = Terminal::start(&server);
    wait_until("the screen is taken", || terminal.is_taken());
    wait_until("rates are shown", || {
        let text = terminal.text();
        text.contains("answered     NTP ") && text.contains("dropped_length")
    });
    let (folder, wait) = match std::env::var_os("TIMEBALL_SCREENSHOTS") {
        Some(folder) => (PathBuf::from(folder), Duration::from_secs(70)),
        None => (PathBuf::from(env!("CARGO_TARGET_TMPDIR")), Duration::ZERO),
    };
    thread::sleep(wait);
    let text = terminal.text();
    for part in [" timeball ", "ready", "requests per second: ", "p99 ", "workers", "q quits"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    photograph(&html(terminal.screen.lock().expect("not poisoned").screen()), &folder);
    // An unknown key changes nothing.
    terminal.keys.write_all(b"x").expect("written");
    load.stop();
    terminal.keys.write_all(b"q").expect("written");
    terminal.assert_ended_well();
}

#[test]
fn every_way_out_leaves_the_terminal_as_it_was() {
    let mut server = Server::start();
    for way in ["escape", "control-c", "SIGTERM", "SIGHUP"] {
        let mut terminal = Terminal::start(&server);
        wait_until("the screen is taken", || terminal.text().contains("q quits"));
        match way {
            "escape" => terminal.keys.write_all(b"\x1b").expect("written"),
            "control-c" => terminal.keys.write_all(b"\x03").expect("written"),
            "SIGTERM" => kill(terminal.pid(), Signal::TERM),
            _ => kill(terminal.pid(), Signal::HUP),
        }
        terminal.assert_ended_well();
    }
    let mut terminal = Terminal::start(&server);
    wait_until("the screen is taken", || terminal.text().contains("ready"));
    server.signal(Signal::TERM);
    server.wait();
    wait_until("its end is said", || terminal.text().contains("no answer: no server is running"));
    server.restart();
    wait_until("its return is seen", || terminal.text().contains("ready"));
    terminal.keys.write_all(b"q").expect("written");
    terminal.assert_ended_well();
}

#[test]
fn once_is_text_for_scripts() {
    let server = Server::start();
    let file = server.directory.path().join("timeball.toml");
    let top = |more: &[&str]| {
        program().arg("top").arg("--config").arg(&file).args(more).output().expect("the program")
    };
    let output = top(&["--once"]);
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{text}");
    assert!(text.contains("answered     NTP 0 "), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
    let refused = top(&[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("timeball top --once"));
    drop(server);
    let nobody =
        program().args(["top", "--state-directory", "/nonexistent"]).output().expect("ran");
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("no server is running"));
}

/// Plain and authenticated requests, and some that are no good.
struct Load {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Load {
    fn start(server: &Server) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let is_over = Arc::clone(&stop);
        let client = udp_client(server.ntp());
        let mut association = server.mint(&server.master_keys()[2], Algorithm::AesSivCmac256, 8);
        let thread = thread::spawn(move || {
            let mut random = NonceGenerator::new().expect("random numbers");
            let mut buffer = [0; DATAGRAM_BYTES];
            for round in 0_u32.. {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let wave = (f64::from(round) / 130.0).sin() + (f64::from(round) / 23.0).sin() / 3.0;
                for _ in 0..(16.0 + 9.0 * wave) as u32 {
                    client.send(&plain_request(4, Mode::Client)).expect("sent");
                    client.recv(&mut buffer).expect("an answer");
                }
                for is_whole in [true, true, true, round % 7 != 0] {
                    let pending = association.request(&mut buffer, &mut random).expect("a cookie");
                    buffer[pending.request_bytes - 1] ^= u8::from(!is_whole);
                    client.send(&buffer[..pending.request_bytes]).expect("sent");
                    let bytes = client.recv(&mut buffer).expect("an answer");
                    let answer = association.response(&pending, &mut buffer[..bytes]);
                    assert_eq!(answer.is_ok(), is_whole);
                }
                if round % 3 == 0 {
                    client.send(&[0x23; 47]).expect("sent");
                }
                thread::sleep(Duration::from_millis(40));
            }
        });
        Self { stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a client that panicked");
    }
}

/// The screen as a page, each cell with its colours.
fn html(screen: &vt100::Screen) -> String {
    let mut page = String::from(
        "<!doctype html><meta charset=utf-8><style>body{margin:0;background:#16181d}\
         pre{margin:0;padding:14px 16px;color:#d8dbe2;display:inline-block;\
         font:15px/1.16 'DejaVu Sans Mono',monospace}</style><pre>",
    );
    for row in 0..LINES {
        for column in 0..COLUMNS {
            let cell = screen.cell(row, column).expect("on the screen");
            let colour = match cell.fgcolor() {
                vt100::Color::Idx(1 | 9) => "#ff7b72",
                vt100::Color::Idx(2 | 10) => "#6fcf7c",
                vt100::Color::Idx(3 | 11) => "#e3b341",
                vt100::Color::Idx(6 | 14) => "#56c8d8",
                _ if cell.dim() => "#868d9b",
                _ => "inherit",
            };
            let weight = if cell.bold() { "bold" } else { "normal" };
            let symbol = match cell.contents() {
                "" => " ".to_owned(),
                text => text.replace('&', "&amp;").replace('<', "&lt;"),
            };
            write!(page, "<span style='color:{colour};font-weight:{weight}'>{symbol}</span>")
                .expect("writing to a string");
        }
        page.push('\n');
    }
    page + "</pre>"
}

fn photograph(page: &str, folder: &std::path::Path) {
    let mut browser = Browser::start();
    browser.look_like(780, 446, "dark");
    browser.open(&format!("data:text/html;base64,{}", STANDARD.encode(page)));
    browser.wait_until("!!document.querySelector('pre')");
    browser.wait_for_looks(780, "dark");
    let overflow = browser.value("document.documentElement.scrollWidth");
    assert_eq!(overflow, 780, "the picture cuts lines off");
    let picture = STANDARD.decode(browser.screenshot()).expect("base64");
    assert!(picture.len() > 10_000, "an empty picture");
    fs::write(folder.join("top.png"), picture).expect("written");
    assert_eq!(browser.errors, Vec::<String>::new());
}
