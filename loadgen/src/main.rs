//! timeball-load: see the library.

fn main() -> std::process::ExitCode {
    timeball_load::cli::run()
}
