//! A server within this process: timeball's engine and port on a loopback socket.
//!
//! Before a run the generator is tried on it: are all its answers authentic, and does it send at
//! the planned rate? If it does not here, it would not to the real server.

use std::io::{self, PipeWriter, Write as _, pipe};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use core_affinity::CoreId;
use timeball::aead::{Aead, Algorithm, NonceGenerator};
use timeball::clock::host::HostClock;
use timeball::cookie::ring::KeyRing;
use timeball::engine::Engine;
use timeball::limits::LOCAL_STRATUM_DEFAULT;
use timeball::net::Port as _;
use timeball::net::mmsg::MmsgPort;
use timeball::sys::socket::{UdpOptions, open_udp};

use crate::associations::mint;
use crate::limits::{
    LAGGING_SHARE_MAX, SELF_TEST_CLIENTS, SELF_TEST_DURATION, SELF_TEST_RATE_PER_SECOND,
    SELF_TEST_REQUESTS, TICK,
};
use crate::plan::{Ask, Plan, Shape};
use crate::request::Clients;
use crate::run::{RunError, run};

/// The running server; ends when dropped.
pub struct Reflector {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its master keys.
    pub ring: KeyRing,
    answers: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    waker: PipeWriter,
    thread: Option<JoinHandle<()>>,
}

impl Reflector {
    /// Listens on a loopback address of the given IP version, on `cpu` if given.
    pub fn start(is_ipv6: bool, cpu: Option<usize>) -> io::Result<Self> {
        let address: IpAddr =
            if is_ipv6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        let socket = open_udp(SocketAddr::new(address, 0), false, &UdpOptions::default())?;
        let address = socket.local_addr()?;
        let mut random = NonceGenerator::new().map_err(io::Error::other)?;
        let mut seed = [0; 32];
        random.fill(&mut seed);
        // The ring cannot be copied; the same seed makes it twice.
        let ring = || {
            let mut random = NonceGenerator::from_seed(&seed);
            KeyRing::generate(Algorithm::AesSivCmac256, |bytes| random.fill(bytes))
        };
        let clock = HostClock::declared(LOCAL_STRATUM_DEFAULT)?;
        let mut engine = Engine::new(Aead::detect());
        let keys = ring();
        let stop = Arc::new(AtomicBool::new(false));
        let (wake, waker) = pipe()?;
        let mut port = MmsgPort::new(vec![socket], wake.into(), Duration::ZERO);
        let is_stopped = Arc::clone(&stop);
        let answers = Arc::new(AtomicU64::new(0));
        let answered = Arc::clone(&answers);
        let thread = thread::spawn(move || {
            if let Some(id) = cpu {
                // Elsewhere it is only slower.
                core_affinity::set_for_current(CoreId { id });
            }
            while !is_stopped.load(Ordering::Relaxed) {
                if port.recv() > 0 {
                    let mut batch = port.batch();
                    let verdicts = engine.answer(&mut batch, &keys, &clock, &mut random);
                    drop(batch);
                    port.send(&verdicts);
                    answered.fetch_add(verdicts.len() as u64, Ordering::Relaxed);
                }
            }
        });
        Ok(Self { address, ring: ring(), answers, stop, waker, thread: Some(thread) })
    }
}

impl Reflector {
    /// Waits until it has taken so many more datagrams.
    pub fn wait_for_answers(&self, more: u64) {
        let target = self.answers.load(Ordering::Relaxed) + more;
        while self.answers.load(Ordering::Relaxed) < target {
            thread::sleep(TICK);
        }
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Without it the thread ends when its wait does.
        let _ = self.waker.write_all(&[1]);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the self-test found.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SelfTest {
    /// Requests per second that were asked for.
    pub planned_per_second: f64,
    /// Requests per second that left.
    pub reached_per_second: f64,
    /// Share of them that lagged.
    pub lagging_share: f64,
}

impl SelfTest {
    /// Whether the generator kept the planned rate.
    pub fn passed(&self) -> bool {
        self.lagging_share <= LAGGING_SHARE_MAX
    }
}

/// Why the self-test did not come to an end, or found the generator wrong.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// No server of our own.
    #[error("the self-test cannot open a socket on loopback ({0}): use --no-self-test")]
    Reflector(#[from] io::Error),
    /// It does not run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Answers of our own server were not accepted.
    #[error("the self-test failed: {0} of {SELF_TEST_REQUESTS} answers are good; this is a bug")]
    Wrong(u64),
}

/// Tries `plan` on a reflector: first that everything is answered, then that the rate is kept.
pub fn self_test(plan: &Plan, algorithm: Algorithm) -> Result<SelfTest, SelfTestError> {
    let is_free = |cpu: &CoreId| !plan.cpus.contains(&Some(cpu.id));
    let free = core_affinity::get_core_ids().unwrap_or_default().into_iter().find(is_free);
    let is_pinned = plan.cpus.iter().any(Option::is_some);
    let cpu = free.filter(|_| is_pinned).map(|cpu| cpu.id);
    let reflector = Reflector::start(plan.target.is_ipv6(), cpu)?;
    let mut trial = Plan {
        target: reflector.address,
        sources: None,
        source_port: None,
        requests_max: SELF_TEST_REQUESTS,
        rate_per_second: SELF_TEST_RATE_PER_SECOND,
        shape: Shape::Constant,
        duration: Duration::from_secs(1),
        verify_every: 1,
        ..plan.clone()
    };
    let stop = AtomicBool::new(false);
    let found = run(&trial, clients(&trial, &reflector, algorithm)?, &stop, |_, _| {})?;
    if found.total.tally.answered != SELF_TEST_REQUESTS {
        return Err(SelfTestError::Wrong(found.total.tally.answered));
    }
    trial = Plan {
        requests_max: u64::MAX,
        rate_per_second: plan.peak_per_second(),
        shape: match plan.shape {
            Shape::Ramp { .. } => Shape::Constant,
            same => same,
        },
        duration: SELF_TEST_DURATION,
        verify_every: plan.verify_every,
        ..trial
    };
    let found = run(&trial, clients(&trial, &reflector, algorithm)?, &stop, |_, _| {})?;
    let tally = &found.total.tally;
    Ok(SelfTest {
        planned_per_second: plan.peak_per_second(),
        reached_per_second: tally.offered as f64 / found.offer_time.as_secs_f64(),
        lagging_share: tally.lagging as f64 / tally.offered.max(1) as f64,
    })
}

fn clients(
    plan: &Plan,
    reflector: &Reflector,
    algorithm: Algorithm,
) -> Result<Vec<Clients>, RunError> {
    let threads = plan.cpus.len();
    Ok(match plan.ask {
        Ask::Ntp => (0..threads).map(|_| Clients::Plain(SELF_TEST_CLIENTS)).collect(),
        Ask::Nts(placeholders, cookie_use) => {
            let mut random = NonceGenerator::new().map_err(crate::pump::PumpError::from)?;
            let minted = mint(&reflector.ring, algorithm, SELF_TEST_CLIENTS, 1, &mut random)?;
            let split = minted.split(threads).into_iter();
            split.map(|part| Clients::Nts(part, placeholders, cookie_use)).collect()
        }
    })
}
