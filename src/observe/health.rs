//! Whether the server does what it is there for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::OBSERVER_FACTS_AGE_MAX;
use crate::process::clock_status::ClockStatus;
use crate::process::role::Role;
use crate::process::status::Status;

/// What `/health` answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The supervisor works. If not, restarting the service is the remedy.
    pub live: bool,
    /// Clients get what the configuration promises them. If not, a restart is no remedy.
    pub ready: bool,
    /// What is wrong, a sentence each; none when ready.
    pub reasons: Vec<String>,
}

/// Before the supervisor's first word.
pub(super) fn unknown() -> Health {
    let reasons = vec!["the supervisor has not yet said how the server stands".to_owned()];
    Health { live: true, ready: false, reasons }
}

/// Judges what the supervisor said `age` ago.
pub(crate) fn judge(status: &Status, age: Duration) -> Health {
    let mut reasons = Vec::new();
    let now_unix = status.taken_unix_milliseconds / 1000;
    let live = age <= OBSERVER_FACTS_AGE_MAX;
    if !live {
        reasons.push(format!("the supervisor has been silent for {} s", age.as_secs()));
    }
    reasons.extend(of_processes(status));
    reasons.extend(of_clock(&status.clock));
    let expired = status.certificates.iter().filter(|found| found.expires_unix < now_unix);
    reasons
        .extend(expired.map(|found| {
            format!("the certificate {} has expired; renew it", found.file.display())
        }));
    Health { live, ready: reasons.is_empty(), reasons }
}

/// A role serves if one of its processes does.
fn of_processes(status: &Status) -> impl Iterator<Item = String> {
    let has_ke = !status.ke_listen.is_empty();
    let needed = [Role::Responder].into_iter().chain(has_ke.then_some(Role::KeyEstablishment));
    needed.map(Role::name).filter_map(|role| {
        let mut processes = status.processes.iter().filter(|process| process.role == role);
        (!processes.any(|process| process.is_serving))
            .then(|| format!("no process of the {role} serves; it is being started again"))
    })
}

/// The clock is as good as clients are told: also while its source is silent, for as long as its
/// last word holds.
fn of_clock(clock: &ClockStatus) -> Option<String> {
    let why = if clock.why.is_empty() { "its source has not spoken" } else { &clock.why };
    // "Nobody listens there" is of no use without the place.
    let of = clock.followed.as_ref().map(|followed| format!("{followed}: ")).unwrap_or_default();
    (clock.stratum == 0).then(|| {
        format!(
            "clients are told that the clock is unsynchronised: {of}{why}; see to the time daemon \
             that keeps it"
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn process(role: &str, is_serving: bool) -> Value {
        json!({
            "role": role, "pid": 7, "is_serving": is_serving, "age_seconds": 1, "restarts": 0,
        })
    }

    /// A server that is well, until `change` is made to it.
    fn health(age: Duration, change: impl FnOnce(&mut Value)) -> Health {
        let mut status = json!({
            "taken_unix_milliseconds": 1_800_000_000_000_i64,
            "health": Health::default(),
            "release": "0", "uptime_seconds": 1, "configuration": null,
            "reloads": 0, "reloads_refused": 0,
            "processes": [
                process("responder", true),
                process("key establishment", false),
                process("key establishment", true),
            ],
            "ntp_listen": [], "worker_cpus": [], "workers": [], "ke_listen": ["127.0.0.1:4460"],
            "clock": {
                "source": "kernel", "followed": null, "source_state": "synchronised", "why": "",
                "leap": "none", "stratum": 3, "root_delay_seconds": 0.0,
                "root_dispersion_seconds": 0.001,
                "holdover_left_seconds": 3600.0,
                "kernel_is_synchronised": true, "kernel_error_bound_seconds": 0.001,
            },
            "keys": {
                "ids": [], "fingerprints": [], "current": "0",
                "newest_age_seconds": 1, "next_rotation_seconds": 1,
            },
            "certificates": [
                { "file": "/a", "names": [], "expires_unix": 1_800_000_000, "warnings": [] },
            ],
            "serverstats": {
                "ntp_packets_received": 0, "nts_ke_connections_accepted": 0,
                "ntp_packets_dropped": 0, "authenticated_ntp_packets": 0,
                "interleaved_ntp_packets": 0,
                "responder": {}, "key_establishment": {},
            },
        });
        change(&mut status);
        judge(&serde_json::from_value(status).expect("a status"), age)
    }

    #[test]
    fn each_reason_is_told() {
        let well = Health { live: true, ready: true, reasons: Vec::new() };
        assert_eq!(health(OBSERVER_FACTS_AGE_MAX, |_| {}), well);
        let no_responder =
            health(Duration::ZERO, |it| it["processes"][0]["is_serving"] = false.into());
        assert_eq!(
            no_responder.reasons,
            ["no process of the responder serves; it is being started again"]
        );
        let no_ke = |it: &mut Value| it["processes"][2]["is_serving"] = false.into();
        assert!(health(Duration::ZERO, no_ke).reasons[0].contains("key establishment"));
        let plain_only = |it: &mut Value| {
            it["ke_listen"] = json!([]);
            it["processes"] = json!([process("responder", true)]);
        };
        assert_eq!(health(Duration::ZERO, plain_only), well);
        for (followed, why, expected) in [
            (Value::Null, "it is unsynchronised", "unsynchronised: it is unsynchronised; see to"),
            (Value::Null, "", "unsynchronised: its source has not spoken; see to"),
            (json!("[::1]:323"), "nobody listens there", ": [::1]:323: nobody listens there; see"),
        ] {
            let unsynchronised = health(Duration::ZERO, |it| {
                it["clock"]["stratum"] = 0.into();
                it["clock"]["followed"] = followed;
                it["clock"]["why"] = why.into();
            });
            assert!(unsynchronised.reasons[0].contains(expected), "{unsynchronised:?}");
            assert!(unsynchronised.live && !unsynchronised.ready);
        }
        let held_over = |it: &mut Value| {
            it["clock"]["why"] = "chronyd is silent".into();
            it["clock"]["kernel_is_synchronised"] = false.into();
        };
        assert_eq!(health(Duration::ZERO, held_over), well);
        let expired = |it: &mut Value| it["certificates"][0]["expires_unix"] = 1_799_999_999.into();
        assert!(health(Duration::ZERO, expired).reasons[0].contains("/a has expired"));
        let silent = health(OBSERVER_FACTS_AGE_MAX + Duration::from_secs(1), |_| {});
        assert!(!silent.live && !silent.ready && silent.reasons[0].contains("silent for 6 s"));
    }
}
