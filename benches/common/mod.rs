//! What the benches share: the host's facts, medians, and where records go.
#![allow(dead_code, unreachable_pub, reason = "each bench uses a part of it")]

use std::fs;

use timeball::aead::Backend;

/// What a reader needs to place the figures.
pub fn host_facts() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split(": ").nth(1).unwrap_or("?").to_owned()
    };
    let is_native = cfg!(target_feature = "aes");
    let backends: Vec<String> = Backend::available().iter().map(ToString::to_string).collect();
    format!(
        "cpu       {} (family {}, model {}), {} visible\n\
         kernel    {}\n\
         build     {} instruction set\n\
         back ends {}\n",
        field("model name"),
        field("cpu family"),
        field("model\t"),
        std::thread::available_parallelism().map_or(0, usize::from),
        read("/proc/sys/kernel/osrelease").trim(),
        if is_native { "native" } else { "default x86-64" },
        backends.join(", "),
    )
}

/// Median, lower and upper quartile.
pub fn quartiles(times: &[f64]) -> (f64, f64, f64) {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
    (at(0.5), at(0.25), at(0.75))
}

/// Whether a word stands on the command line (`cargo bench` adds words of its own).
pub fn is_asked(word: &str) -> bool {
    std::env::args().any(|argument| argument == word)
}

/// Prints a table, and with `--record NAME` writes it to `benches/record/NAME` too.
pub fn publish(table: &str) {
    print!("{table}");
    let mut arguments = std::env::args().skip_while(|argument| argument != "--record").skip(1);
    if let Some(name) = arguments.next() {
        let path = format!("{}/benches/record/{name}", env!("CARGO_MANIFEST_DIR"));
        fs::write(&path, table).expect("benches/record can be written");
    }
}
