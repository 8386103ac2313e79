//! The status page in a real browser, at the width of a desk and of a phone, light and dark.
//!
//! `TIMEBALL_SCREENSHOTS=docs/screenshots cargo test --test status_page` takes the pictures of the
//! documents, with a minute of load before them; without it they go to the target directory.

mod browser;
mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use browser::Browser;
use common::leap;
use common::plain_request;
use common::server::{ANSWER_WAIT, Server, free_tcp_port, udp_client, wait_until};
use rustix::process::Signal;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use timeball::aead::{Algorithm, NonceGenerator};
use timeball::client::Association;
use timeball::ke::client::{Options, client_config, establish};
use timeball::ke::exchange::Offer;
use timeball::limits::DATAGRAM_BYTES;
use timeball::wire::ntp::Mode;

const CHARTS: [&str; 6] = ["requests", "refused", "latency", "workers", "ke", "clock"];

/// 2060-06-28: of the era that a list is read in, which is the one nearest to its end.
const LEAP_FILE_EXPIRES: i64 = 2_855_606_400;

/// Pictures of documents are no larger.
const SCREENSHOT_BYTES_MAX: usize = 300 * 1024;

/// Pairs of text and background whose contrast has to be readable, as names in the style sheet.
const TEXTS: [(&str, &str); 9] = [
    ("text", "background"),
    ("text", "card"),
    ("quiet", "background"),
    ("quiet", "card"),
    ("blue", "background"),
    ("good", "card"),
    ("good", "good-back"),
    ("bad", "bad-back"),
    ("waiting", "waiting-back"),
];
const LINES: [&str; 5] = ["blue", "teal", "orange", "red", "violet"];

#[test]
fn the_page_draws_itself_everywhere_and_reads_well() {
    let port = free_tcp_port();
    let more = format!("processes = 2\n[observe]\nlisten = \"127.0.0.1:{port}\"");
    let list = tempfile::NamedTempFile::new().expect("a file");
    fs::write(list.path(), leap::list(&[], LEAP_FILE_EXPIRES)).expect("written");
    let clock = format!("source = \"local\"\nleap_file = \"{}\"", list.path().display());
    let mut server = Server::start_with(Algorithm::AesSivCmac256, "", &clock, &more);
    let load = Load::start(&server);
    let (folder, samples) = match std::env::var_os("TIMEBALL_SCREENSHOTS") {
        Some(folder) => (PathBuf::from(folder), 60),
        None => (PathBuf::from(env!("CARGO_TARGET_TMPDIR")), 5),
    };
    let mut browser = Browser::start();
    browser.look_like(1200, 900, "light");
    wait_for_a_word(port);
    browser.open(&format!("http://127.0.0.1:{port}/"));
    wait_for_samples(&mut browser, samples);
    for (place, width, height) in [("desk", 1200, 900), ("phone", 360, 780)] {
        for scheme in ["light", "dark"] {
            browser.look_like(width, height, scheme);
            browser.wait_for_looks(width, scheme);
            assert_drawn(&mut browser, u64::from(width));
            assert_contrast(&mut browser);
            let picture = STANDARD.decode(browser.screenshot()).expect("base64");
            assert!(picture.len() < SCREENSHOT_BYTES_MAX, "{} bytes", picture.len());
            fs::write(folder.join(format!("status-{place}-{scheme}.png")), picture)
                .expect("written");
        }
    }
    assert_eq!(text(&mut browser, "#clock-leap"), "Leap-seconds file: good until 2060-06-28.");
    assert_usable_by_keyboard(&mut browser);
    assert_eq!(browser.errors, Vec::<String>::new());
    load.stop();

    // A page that hears nothing says so, and does not show old figures as new.
    server.signal(Signal::TERM);
    server.wait();
    wait_for_badge(&mut browser, "No answer");
    fs::write(list.path(), "garbage").expect("written");
    server.restart();
    wait_for_badge(&mut browser, "Ready");
    browser.wait_until("document.querySelector('#clock-leap.bad')?.textContent.includes('line 1')");
}

/// Waits for the supervisor's first word to the observer: before it `/api/status` is 503, which a
/// browser logs as an error.
fn wait_for_a_word(port: u16) {
    wait_until("the supervisor's first word", || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
        stream.set_read_timeout(Some(ANSWER_WAIT)).expect("a time limit");
        let request = "GET /api/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.starts_with("HTTP/1.1 200 ")
    });
}

/// Each takes a second, or as long as a busy machine takes: one after the other is waited for.
fn wait_for_samples(browser: &mut Browser, samples: u64) {
    for number in 1..=samples {
        browser
            .wait_until(&format!("+(document.documentElement?.dataset.samples ?? 0) >= {number}"));
    }
}

/// An answer that comes late turns it for a moment, so it is waited for.
fn wait_for_badge(browser: &mut Browser, text: &str) {
    browser.wait_until(&format!("document.getElementById('badge')?.textContent === '{text}'"));
}

fn text(browser: &mut Browser, selector: &str) -> String {
    let found = browser.value(&format!("document.querySelector('{selector}')?.textContent"));
    found.as_str().unwrap_or_default().to_owned()
}

fn assert_drawn(browser: &mut Browser, width: u64) {
    wait_for_badge(browser, "Ready");
    for chart in CHARTS {
        // A second in which nothing was answered has no latency: a line takes two that follow.
        let lines = format!("[...document.querySelectorAll('#chart-{chart} path.line')]");
        browser.wait_until(&format!("{lines}.some((line) => line.getTotalLength() > 0)"));
        let label = format!("document.querySelector('#chart-{chart} svg').ariaLabel");
        assert!(browser.value(&label).as_str().is_some_and(|label| label.contains(": ")));
    }
    let overflow = "document.documentElement.scrollWidth";
    assert_eq!(browser.value(overflow), width, "the page is wider than its window");
    let cut = "[...document.querySelectorAll('.tile .value, td, h2')]
        .filter((it) => it.scrollWidth > it.clientWidth + 1).map((it) => it.textContent).join()";
    assert_eq!(browser.value(cut), "", "text is cut off");
    let unlabelled = "[...document.querySelectorAll('section')]
        .filter((it) => !it.ariaLabel
            && !document.getElementById(it.getAttribute('aria-labelledby')))
        .length + document.querySelectorAll('img:not([alt])').length";
    assert_eq!(browser.value(unlabelled), 0);
    browser.wait_until("document.querySelectorAll('#table-reasons th').length >= 3");
}

/// WCAG 2.2, 1.4.3 and 1.4.11: 4.5 for text, 3 for what a chart is made of.
fn assert_contrast(browser: &mut Browser) {
    let texts = TEXTS.map(|(text, ground)| (text, ground, 4.5));
    let lines = LINES.map(|line| (line, "card", 3.0));
    for (above, below, least) in texts.into_iter().chain(lines) {
        let expression = format!(
            "(() => {{
                const style = getComputedStyle(document.documentElement);
                const [one, other] = ['{above}', '{below}'].map((name) => {{
                    const hex = style.getPropertyValue(`--${{name}}`).trim().slice(1);
                    const parts = hex.match(/../g).map((part) => parseInt(part, 16) / 255);
                    const linear = parts.map((part) =>
                        part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
                    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05;
                }});
                return Math.max(one, other) / Math.min(one, other);
            }})()"
        );
        let contrast = browser.value(&expression).as_f64().expect("a number");
        assert!(contrast >= least, "{above} on {below}: {contrast}");
    }
}

/// The first stop is the link past the head; a chart that has the focus is read with the arrows.
fn assert_usable_by_keyboard(browser: &mut Browser) {
    browser.press("Tab");
    assert_eq!(browser.value("document.activeElement.className"), "skip");
    browser.press("Tab");
    assert_eq!(browser.value("document.activeElement.closest('div').id"), "chart-requests");
    for _ in 0..2 {
        browser.press("ArrowLeft");
    }
    let when = text(browser, "#chart-requests .when");
    assert!(when.ends_with(" s ago"), "{when}");
    browser.press("Escape");
    assert_eq!(text(browser, "#chart-requests .when"), "");
}

/// Some clients of each kind, at a pace that changes, as people's would.
struct Load {
    stop: Arc<AtomicBool>,
    client: JoinHandle<()>,
}

impl Load {
    fn start(server: &Server) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let client = Client {
            time: udp_client(server.ntp()),
            association: server.mint(&server.master_keys()[2], Algorithm::AesSivCmac256, 8),
            establish: trusting(server),
            random: NonceGenerator::new().expect("random numbers"),
        };
        let is_over = Arc::clone(&stop);
        let client = thread::spawn(move || client.ask_until(&is_over));
        Self { stop, client }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.client.join().expect("a client that panicked");
    }
}

fn trusting(server: &Server) -> Options {
    let pem = fs::read(server.certificate()).expect("the certificate");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem).expect("PEM")).expect("usable");
    Options {
        host: "127.0.0.1".to_owned(),
        port: server.ke_port,
        config: client_config(Arc::new(roots)),
        offer: Offer::default(),
        timeout: ANSWER_WAIT,
    }
}

struct Client {
    time: std::net::UdpSocket,
    association: Association,
    establish: Options,
    random: NonceGenerator,
}

impl Client {
    fn ask_until(mut self, is_over: &AtomicBool) {
        for round in 0_u32.. {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            let wave = (f64::from(round) / 90.0).sin() + (f64::from(round) / 17.0).sin() / 3.0;
            let plain = 14 + (8.0 * wave) as i32;
            (0..plain).for_each(|_| self.ask(&plain_request(4, Mode::Client)));
            (0..plain / 2).for_each(|_| self.ask_authenticated(true));
            if round % 3 == 0 {
                self.ask_authenticated(false);
                self.time.send(&[0x23; 47]).expect("sent");
            }
            if round % 7 == 0 {
                self.time.send(&[0x1e; 48]).expect("sent");
                establish(&self.establish).expect("cookies");
            }
            if round % 23 == 0 {
                let address = ("127.0.0.1", self.establish.port);
                drop(TcpStream::connect(address).expect("connected"));
            }
            thread::sleep(Duration::from_millis(40));
        }
    }

    fn ask(&mut self, request: &[u8]) {
        self.time.send(request).expect("sent");
        self.time.recv(&mut [0; DATAGRAM_BYTES]).expect("an answer");
    }

    fn ask_authenticated(&mut self, is_whole: bool) {
        let mut buffer = [0; DATAGRAM_BYTES];
        let pending = self.association.request(&mut buffer, &mut self.random).expect("a cookie");
        buffer[pending.request_bytes - 1] ^= u8::from(!is_whole);
        self.time.send(&buffer[..pending.request_bytes]).expect("sent");
        let bytes = self.time.recv(&mut buffer).expect("an answer");
        let answer = self.association.response(&pending, &mut buffer[..bytes]);
        assert_eq!(answer.is_ok(), is_whole);
    }
}
