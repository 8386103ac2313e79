//! Every outcome that a datagram can have.

/// Declares the outcomes once: variant, name in counters and metrics, what it means.
macro_rules! outcomes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// What has become of a datagram.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Outcome {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Outcome {
            /// All of them, in the order of the stages.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in counters and metrics.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

outcomes! {
    /// No stage has decided; never the outcome of a whole pass.
    Undecided = "undecided",
    /// A plain NTP request was answered.
    AnsweredPlain = "answered_plain",
    /// An NTS request was answered, authenticated.
    AnsweredNts = "answered_nts",
    /// An NTS request could not be authenticated and was told so (NTS NAK).
    NtsNak = "nts_nak",
    /// A plain request beyond its client's limit was told so (kiss code RATE).
    KissRate = "kiss_rate",
    /// The same of an authentic request; the kiss is authenticated.
    KissRateNts = "kiss_rate_nts",
    /// From an address that is not answered (`access`).
    DroppedDenied = "dropped_denied",
    /// A plain request beyond its client's limit.
    DroppedRate = "dropped_rate",
    /// An authentic request beyond its client's limit.
    DroppedRateNts = "dropped_rate_nts",
    /// An authentic request whose cookie was used too often.
    DroppedReplay = "dropped_replay",
    /// A request that could not be authenticated, of a client that had enough NTS NAKs.
    DroppedRateNak = "dropped_rate_nak",
    /// Longer than the receive buffer.
    DroppedTruncated = "dropped_truncated",
    /// Shorter than a header, or no multiple of four bytes.
    DroppedLength = "dropped_length",
    /// A version that timeball does not speak: 0, 5, 6 or 7.
    DroppedVersion = "dropped_version",
    /// A mode that is no request: 2, 4 to 7, or 0 in other versions than 1.
    DroppedMode = "dropped_mode",
    /// Broken framing behind the header.
    DroppedMalformed = "dropped_malformed",
    /// A message authentication code: symmetric keys are not supported.
    DroppedMac = "dropped_mac",
    /// Some NTS fields, but not all that a request needs; or NTS in another mode than 3.
    DroppedNtsIncomplete = "dropped_nts_incomplete",
    /// NTS fields that RFC 8915 forbids: a second one, or a short unique identifier.
    DroppedNtsInvalid = "dropped_nts_invalid",
    /// An authenticator whose lengths contradict each other, or without the required padding.
    DroppedAuthenticator = "dropped_authenticator",
    /// Authentic, but what was encrypted is no sequence of extension fields.
    DroppedEncryptedFields = "dropped_encrypted_fields",
}
