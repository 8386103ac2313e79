//! Configurations of other servers, turned into one of timeball's.

pub mod chrony;
pub mod directives;
pub mod ntpd_rs;

use std::fmt::{self, Write as _};

use ipnet::IpNet;
use toml::Value;

use super::keys::KEYS;

/// A configuration that was taken over, with the story of every directive.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Import {
    /// Section, name and value of each key.
    settings: Vec<(&'static str, &'static str, Value)>,
    /// What became of each directive, in its order.
    findings: Vec<Finding>,
    /// What is left to do by hand.
    steps: Vec<String>,
}

/// What became of one directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its file and line.
    pub place: String,
    /// The directive as it was written.
    pub directive: String,
    /// What became of it.
    pub fate: Fate,
    /// The key that it became, or why it became none.
    pub why: String,
}

/// What can become of a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A key of timeball says the same.
    Kept,
    /// A key of timeball says nearly the same.
    Changed,
    /// timeball needs nothing like it.
    Ignored,
    /// timeball has nothing like it, and clients may notice.
    Missing,
}

impl Fate {
    /// All of them, in the order of a summary.
    pub const ALL: [Self; 4] = [Self::Kept, Self::Changed, Self::Ignored, Self::Missing];
}

impl fmt::Display for Fate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Kept => "kept",
            Self::Changed => "changed",
            Self::Ignored => "ignored",
            Self::Missing => "missing",
        })
    }
}

/// A directive's fate with its reason.
type Verdict = (Fate, String);

fn kept(key: &str) -> Verdict {
    (Fate::Kept, key.to_owned())
}

fn changed(why: impl Into<String>) -> Verdict {
    (Fate::Changed, why.into())
}

fn ignored(why: impl Into<String>) -> Verdict {
    (Fate::Ignored, why.into())
}

fn missing(why: impl Into<String>) -> Verdict {
    (Fate::Missing, why.into())
}

impl Import {
    /// What became of each directive.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How many directives had this fate.
    pub fn count(&self, fate: Fate) -> usize {
        self.findings.iter().filter(|finding| finding.fate == fate).count()
    }

    /// Sets a key; a later value replaces an earlier one.
    fn set(&mut self, section: &'static str, name: &'static str, value: impl Into<Value>) {
        self.settings.retain(|setting| (setting.0, setting.1) != (section, name));
        self.settings.push((section, name, value.into()));
    }

    /// The configuration file, its comments telling where it came `from`, what became of each
    /// directive and what is left to do.
    pub fn text(&self, from: &str) -> String {
        let mut text = format!("# Made by `timeball config import` of {from}.\n");
        text.push_str("#\n# What became of its directives:\n");
        for finding in &self.findings {
            writeln!(text, "#\n# {}: {}", finding.place, finding.directive).expect(IN_MEMORY);
            writeln!(text, "#     {}: {}", finding.fate, finding.why).expect(IN_MEMORY);
        }
        text.push_str("#\n# What is left to do:\n#\n");
        for (number, step) in (1..).zip(&self.steps) {
            writeln!(text, "# {number}. {step}").expect(IN_MEMORY);
        }
        let mut section = "";
        for key in KEYS {
            let found =
                self.settings.iter().find(|(of, name, _)| (*of, *name) == (key.section, key.name));
            let Some((_, name, value)) = found else { continue };
            if key.section != section {
                section = key.section;
                write!(text, "\n[{section}]").expect(IN_MEMORY);
            }
            write!(text, "\n{name} = {value}").expect(IN_MEMORY);
            text.push('\n');
        }
        text
    }
}

/// Who was answered.
#[derive(Debug, Default)]
struct Access {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
}

impl Access {
    /// The last word on a network holds.
    fn add(&mut self, network: IpNet, is_allowed: bool) {
        for list in [&mut self.allow, &mut self.deny] {
            list.retain(|known| *known != network);
        }
        (if is_allowed { &mut self.allow } else { &mut self.deny }).push(network);
    }

    fn set(&self, import: &mut Import) {
        // Whoever is on no list is not answered, so there is no need to deny everybody.
        let deny = self.deny.iter().filter(|network| network.prefix_len() > 0);
        let texts = |list: Vec<&IpNet>| -> Vec<Value> {
            list.into_iter().map(|network| Value::from(network.to_string())).collect()
        };
        let (allow, deny) = (texts(self.allow.iter().collect()), texts(deny.collect()));
        for (name, list) in [("allow", allow), ("deny", deny)] {
            if !list.is_empty() {
                import.set("access", name, list);
            }
        }
    }
}

/// The addresses of a `listen` key.
fn listen(addresses: impl IntoIterator<Item = std::net::SocketAddr>) -> Value {
    addresses.into_iter().map(|address| Value::from(address.to_string())).collect::<Vec<_>>().into()
}

/// Sets certificates and their keys: the first pair, and further ones.
fn set_certificates(import: &mut Import, pairs: &[(String, String)]) {
    let mut pairs = pairs.iter();
    if let Some((certificate, key)) = pairs.next() {
        import.set("ke", "certificate", certificate.as_str());
        import.set("ke", "key", key.as_str());
    }
    let further: Vec<Value> = pairs
        .map(|(certificate, key)| {
            let pair = [("certificate", certificate), ("key", key)];
            let table = pair.map(|(name, path)| (name.to_owned(), Value::from(path.as_str())));
            Value::Table(table.into_iter().collect())
        })
        .collect();
    if !further.is_empty() {
        import.set("ke", "certificates", further);
    }
}

const IN_MEMORY: &str = "writing to a string cannot fail";
