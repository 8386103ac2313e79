//! Where the keys and cookies of `timeball-load nts` come from.

use std::sync::atomic::AtomicBool;

use indicatif::{ProgressBar, ProgressStyle};
use timeball::aead::{Algorithm, NonceGenerator};
use timeball::cookie::ntskeys;
use timeball::ke::client::Options;
use timeball::ke::exchange::Offer;
use timeball::limits::{COOKIES_PER_REPLY, NTP_PORT, NTS_KE_PORT};

use super::CommandError;
use super::arguments::NtsArguments;
use super::target::{host_and_port, resolve};
use crate::associations::harvest::{Trust, harvest};
use crate::associations::{Saved, mint};
use crate::limits::{
    CLIENTS_HARVESTED_DEFAULT, CLIENTS_MINTED_DEFAULT, KE_CONCURRENCY, KE_TIMEOUT_DEFAULT,
};

impl NtsArguments {
    pub(super) fn associations(&self, stop: &AtomicBool) -> Result<Saved, CommandError> {
        if !(1..=COOKIES_PER_REPLY).contains(&self.cookies_each) {
            return Err(CommandError::usage("--cookies-each: a client keeps one to eight"));
        }
        if !KE_CONCURRENCY.contains(&self.concurrency) {
            return Err(CommandError::usage("--concurrency: 1 to 4096 exchanges can be made"));
        }
        let algorithm = Algorithm::from_id(self.aead)
            .ok_or_else(|| CommandError::usage("--aead: 15, 17 or 30 can be asked for"))?;
        let saved = if let Some(path) = &self.mint {
            let server = resolve(&self.server, NTP_PORT)?;
            let clients = self.load.clients(CLIENTS_MINTED_DEFAULT)?;
            let text = zeroize::Zeroizing::new(std::fs::read_to_string(path).map_err(|error| {
                CommandError::usage(format_args!("cannot read {}: {error}", path.display()))
            })?);
            let keys = ntskeys::parse(&text).map_err(|error| {
                CommandError::usage(format_args!("{} is no ntskeys: {error}", path.display()))
            })?;
            let mut random = NonceGenerator::new()?;
            let associations =
                mint(&keys.ring, algorithm, clients, self.cookies_each, &mut random)?;
            Saved { server, associations }
        } else if let Some(path) = &self.load_file {
            let server = resolve(&self.server, NTP_PORT)?;
            Saved { server, ..Saved::load(path)? }
        } else {
            self.harvest(algorithm, stop)?
        };
        if let Some(path) = &self.save {
            saved.save(path)?;
        }
        Ok(saved)
    }

    fn harvest(&self, algorithm: Algorithm, stop: &AtomicBool) -> Result<Saved, CommandError> {
        let (host, port) = host_and_port(&self.server, NTS_KE_PORT)
            .ok_or_else(|| CommandError::usage(format_args!("\"{}\" is no host", self.server)))?;
        let trust = match &self.ca {
            Some(path) => Trust::File(path.clone()),
            None if self.insecure => Trust::Anybody,
            None => Trust::System,
        };
        let algorithms = [algorithm].into_iter().collect();
        let options = Options {
            host,
            port,
            config: trust.config()?,
            offer: Offer { algorithms, ..Offer::default() },
            timeout: KE_TIMEOUT_DEFAULT,
        };
        let clients = self.load.clients(CLIENTS_HARVESTED_DEFAULT)?;
        let style =
            ProgressStyle::with_template("NTS-KE {bar:30} {pos} of {len} clients, {per_sec}");
        let bar =
            ProgressBar::new(clients as u64).with_style(style.expect("the template is constant"));
        let harvested = harvest(&options, clients, self.concurrency, stop, || bar.inc(1));
        bar.finish_and_clear();
        Ok(harvested?)
    }
}
