//! The sample file, made from the table of keys.

use std::fmt::Write as _;

use super::keys::KEYS;

/// The sample file: every key with its help and its default, valid as it stands.
pub fn sample_file() -> String {
    let mut text = String::from(
        "# timeball configuration. Every key is here; a key that is commented out has no default\n\
         # or takes it from another.\n",
    );
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            write!(text, "\n[{section}]").expect("writing to a string cannot fail");
        }
        text.push('\n');
        for line in key.help {
            writeln!(text, "# {line}").expect("writing to a string cannot fail");
        }
        let comment = if key.is_default { "" } else { "#" };
        writeln!(text, "{comment}{} = {}", key.name, key.sample)
            .expect("writing to a string cannot fail");
    }
    text
}
