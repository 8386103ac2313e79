//! The HTML page as a browser shows it (Debian package chromium, by `tests/install-peers`).
//!
//! The page itself has no script. A second page holds it in a frame of a given width, and measures
//! it there.

mod made;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize;
use timeball_load::report::{Document, SearchReport, html};

/// Widths in pixels: a small phone, a desk.
const WIDTHS: [u32; 2] = [360, 1280];

/// What the measuring page found.
#[derive(Debug, Deserialize)]
struct Measured {
    /// Of the frame, without its scroll bar.
    window_width: f64,
    /// Without what is within its boxes that scroll.
    page_width: f64,
    page_height: f64,
    charts: Vec<Chart>,
}

#[derive(Debug, Deserialize)]
struct Chart {
    width: f64,
    height: f64,
    /// Size of the smallest letters, as shown.
    font_pixels: f64,
    lines: usize,
    /// Pairs of labels that lie on each other.
    collisions: Vec<String>,
}

#[test]
fn the_page_of_runs_and_searches_fits_a_phone_and_a_desk() {
    let runs = [("one".to_owned(), made::report(50)), ("two".to_owned(), made::report(50))];
    let searches = [("a".to_owned(), made::search()), ("b".to_owned(), made::search())];
    assert_shown_well(&html::page(&runs, &searches), 6);
}

#[test]
fn the_searches_in_the_docs_are_shown_well_and_pictured() {
    let page = html::page(&[], &recorded());
    assert_shown_well(&page, 3);
    let picture = picture(&page);
    let made = std::fs::read(&picture).expect("made");
    assert_is_picture(&made);
    let committed = docs().join("load-report.png");
    if std::env::var_os("TIMEBALL_WRITE_PICTURE").is_some() {
        std::fs::write(&committed, &made).expect("written");
    }
    // Another browser draws letters otherwise, so that no pixels can be compared.
    assert_is_picture(&std::fs::read(&committed).expect("committed"));
}

/// What `loadgen/side-by-side` found once.
fn recorded() -> Vec<(String, SearchReport)> {
    let read = |name: &str| {
        let file = docs().join("load-report").join(name).with_extension("json");
        let text = std::fs::read_to_string(file).expect("committed");
        match serde_json::from_str(&text).expect("a document") {
            Document::Search(search) => (name.to_owned(), *search),
            _ => panic!("{name} is no search"),
        }
    };
    ["chronyd", "timeball"].map(read).into()
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn assert_shown_well(page: &str, charts: usize) {
    for width in WIDTHS {
        let measured = measure(page, width);
        assert!(measured.window_width > f64::from(width) * 0.9, "{measured:?}");
        assert_eq!(measured.page_width, measured.window_width, "nothing sticks out at {width}");
        assert!(measured.page_height > 600.0, "{measured:?}");
        assert_eq!(measured.charts.len(), charts);
        for chart in &measured.charts {
            assert!(chart.width >= 600.0 && chart.height >= 200.0, "{width}: {chart:?}");
            assert!(chart.font_pixels >= 9.0, "too small to read at {width}: {chart:?}");
            assert!(chart.lines >= 1, "nothing is drawn: {chart:?}");
            assert!(chart.collisions.is_empty(), "{:?}", chart.collisions);
        }
    }
}

fn measure(page: &str, width: u32) -> Measured {
    let directory = tempfile::tempdir().expect("a directory");
    let framed = page.replace('&', "&amp;").replace('"', "&quot;");
    let outer = MEASURING.replace("WIDTH", &width.to_string()).replace("PAGE", &framed);
    let file = directory.path().join("measure.html");
    std::fs::write(&file, outer).expect("written");
    let output = browser(directory.path(), &["--dump-dom"], &file);
    let document = String::from_utf8_lossy(&output.stdout);
    let found = document.split("<pre id=\"found\">").nth(1).and_then(|rest| rest.split('<').next());
    let found = found.expect("the script ran").replace("&amp;", "&").replace("&quot;", "\"");
    serde_json::from_str(&found).unwrap_or_else(|error| panic!("{error}: {found}"))
}

fn picture(page: &str) -> PathBuf {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("page.html");
    std::fs::write(&file, page).expect("written");
    let picture = Path::new(env!("CARGO_TARGET_TMPDIR")).join("load-report.png");
    let argument = format!("--screenshot={}", picture.display());
    browser(directory.path(), &[&argument, "--window-size=960,1640", "--hide-scrollbars"], &file);
    picture
}

/// Runs to its end; what goes wrong within the page is on the browser's console.
fn browser(directory: &Path, arguments: &[&str], page: &Path) -> Output {
    let profile = directory.join("profile");
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--enable-logging=stderr", "--lang=en"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(arguments)
        .arg(format!("file://{}", page.display()))
        .env("HOME", directory)
        .output()
        .expect("chromium: run tests/install-peers");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {log}", output.status);
    assert!(!log.contains("CONSOLE"), "{log}");
    output
}

/// A PNG that shows something and is small enough to be kept (PNG specification, section 11.2.2).
fn assert_is_picture(bytes: &[u8]) {
    assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"), "no PNG");
    let side = |at: usize| u32::from_be_bytes(*bytes[at..].first_chunk().expect("four bytes"));
    assert_eq!((side(16), side(20)), (960, 1640));
    // One colour takes a tenth of it.
    assert!((40_000..300_000).contains(&bytes.len()), "{} bytes", bytes.len());
}

const MEASURING: &str = r#"<!doctype html><meta charset="utf-8">
<iframe id="frame" style="border: 0; width: WIDTHpx; height: 800px" srcdoc="PAGE"></iframe>
<pre id="found"></pre>
<script>
addEventListener("load", () => {
  const inner = document.getElementById("frame").contentDocument;
  const meets = (a, b) => a.left < b.right - 1 && b.left < a.right - 1
    && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  const charts = [...inner.querySelectorAll("svg")].map((svg) => {
    const box = svg.getBoundingClientRect();
    const scale = box.width / svg.viewBox.baseVal.width;
    const texts = [...svg.querySelectorAll("text")].filter((text) => text.textContent.trim());
    const boxes = texts.map((text) => text.getBoundingClientRect());
    const collisions = [];
    boxes.forEach((one, i) => boxes.slice(i + 1).forEach((other, j) => {
      if (meets(one, other)) {
        collisions.push(texts[i].textContent.trim() + " / " + texts[i + 1 + j].textContent.trim());
      }
    }));
    const style = (text) => inner.defaultView.getComputedStyle(text);
    const sizes = texts.map((text) => parseFloat(style(text).fontSize));
    return {
      width: box.width, height: box.height, font_pixels: Math.min(...sizes) * scale,
      lines: svg.querySelectorAll("polyline").length, collisions,
    };
  });
  document.getElementById("found").textContent = JSON.stringify({
    window_width: inner.documentElement.clientWidth,
    page_width: inner.documentElement.scrollWidth,
    page_height: inner.documentElement.scrollHeight,
    charts,
  });
});
</script>
"#;
