//! The roles that the supervisor starts.

/// A role with a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Answers NTP and NTS.
    Responder,
    /// NTS key establishment.
    KeyEstablishment,
    /// Asks the source of the time.
    Clock,
}

impl Role {
    /// The name on the command line.
    pub const fn argument(self) -> &'static str {
        match self {
            Self::Responder => "responder",
            Self::KeyEstablishment => "key-establishment",
            Self::Clock => "clock",
        }
    }

    /// The name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Responder => "responder",
            Self::KeyEstablishment => "key establishment",
            Self::Clock => "clock",
        }
    }
}
