//! The interfaces whose own timestamps are used.

use toml::Spanned;

use super::checked::is_interface_name;
use super::raw::{ConfigError, RawNtp};
use crate::limits::hardware::HARDWARE_INTERFACES_MAX;

/// The interfaces that `ntp.hardware_timestamps` names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StampingInterfaces {
    /// None: the kernel stamps.
    #[default]
    None,
    /// All that can, `"*"`.
    All,
    /// These.
    Named(Vec<String>),
}

pub(super) fn check(text: &str, raw: &RawNtp) -> Result<StampingInterfaces, ConfigError> {
    let Some(list) = &raw.hardware_timestamps else { return Ok(StampingInterfaces::None) };
    let wrong = |place: &Spanned<String>, what: String| Err(ConfigError::at(text, place, what));
    let mut names: Vec<String> = Vec::new();
    for place in list.get_ref() {
        let name = place.get_ref();
        if name == "*" && list.get_ref().len() == 1 {
            return Ok(StampingInterfaces::All);
        }
        if name == "*" {
            return wrong(place, "\"*\" is all interfaces; write it alone".to_owned());
        }
        if !is_interface_name(name) {
            let what = format!("\"{name}\" is no interface's name; `ip link` lists them");
            return wrong(place, what);
        }
        if names.contains(name) {
            return wrong(place, format!("\"{name}\" stands there twice"));
        }
        names.push(name.clone());
    }
    if names.len() > HARDWARE_INTERFACES_MAX {
        let what = format!("hardware_timestamps takes {HARDWARE_INTERFACES_MAX} interfaces");
        return Err(ConfigError::at(text, list, what));
    }
    let is_none = names.is_empty();
    Ok(if is_none { StampingInterfaces::None } else { StampingInterfaces::Named(names) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::checked::parse;

    #[test]
    fn interfaces_are_named_or_all_or_none() {
        let interfaces = |list: &str| {
            let settings = parse(&format!("[ntp]\nhardware_timestamps = {list}"));
            settings.map(|settings| (settings.hardware_timestamps, settings.udp.hardware_stamps))
        };
        assert_eq!(parse("").map(|it| it.hardware_timestamps), Ok(StampingInterfaces::None));
        assert_eq!(interfaces("[]"), Ok((StampingInterfaces::None, false)));
        assert_eq!(interfaces("[\"*\"]"), Ok((StampingInterfaces::All, true)));
        let named = vec!["eth0".to_owned(), "eth1".to_owned()];
        let expected = Ok((StampingInterfaces::Named(named), true));
        assert_eq!(interfaces("[\"eth0\", \"eth1\"]"), expected);
        let message = |list: &str| interfaces(list).expect_err(list).to_string();
        assert_eq!(message("[\"eth0\", \"*\"]"), "line 2: \"*\" is all interfaces; write it alone");
        assert_eq!(message("[\"a\", \"a\"]"), "line 2: \"a\" stands there twice");
        assert_eq!(
            message("[\"a/b\"]"),
            "line 2: \"a/b\" is no interface's name; `ip link` lists them"
        );
        let many = r#"["a", "b", "c", "d", "e", "f", "g", "h", "i"]"#;
        assert_eq!(message(many), "line 2: hardware_timestamps takes 8 interfaces");
    }
}
