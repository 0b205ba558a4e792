//! The serving part: threads, tasks, and their replacement when the configuration changes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::plan::{MISS_WRITER, Plan, PlanError};
use super::upstream_metrics::UpstreamMetrics;
use crate::clock::Clock;
use crate::config::Config;
use crate::forward::{self, Directory};
use crate::metrics::{Registration, Registry, names};
use crate::server::zones::Zones;
use crate::server::{
    MISS_QUEUE, Miss, Misses, Moderation, Refusals, Streams, Timeouts, UdpThread, UdpWorker, Wake,
    probe_for_loop, thread_name,
};
use crate::sockets::{Listen, Role, Sockets};

/// In-flight queries get this long to be answered when the process stops. An upstream exchange never
/// takes longer.
const DRAIN: Duration = forward::DEADLINE;

/// Everything that serves DNS. Lives on one thread, in a tokio `LocalSet`.
pub struct Worker {
    refusals: Arc<Refusals>,
    registry: Registry,
    directory: Directory,
    misses: Rc<Misses>,
    queue: mpsc::Sender<Miss>,
    wake: Wake,
    plan: Option<Plan>,
    udp: BTreeMap<Listen, (UdpThread, Arc<ArcSwap<Zones>>)>,
    streams: Rc<Streams>,
    tcp: BTreeMap<SocketAddr, (JoinHandle<()>, Arc<ArcSwap<Zones>>)>,
    probes: Vec<JoinHandle<()>>,
    _queue_length: Registration,
}

/// Why a configuration could not be taken up. What served before still does.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// No plan could be made.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A thread or task could not be started.
    #[error("cannot serve {0}: {1}")]
    Start(SocketAddr, io::Error),
}

impl Worker {
    /// A worker that serves nothing yet. To be called on a `LocalSet`.
    ///
    /// `moderation` is told when there was work.
    pub fn new(registry: &Registry, moderation: Rc<Moderation>) -> io::Result<Worker> {
        let refusals = Arc::<Refusals>::default();
        let misses = Misses::new(registry, Clock::system(), moderation, refusals.clone());
        let (queue, waiting) = mpsc::channel(MISS_QUEUE);
        tokio::task::spawn_local(misses.clone().serve(waiting));
        let length = queue.downgrade();
        let length = registry.gauge_fn(&names::MISS_QUEUE_LENGTH, [], move || {
            length.upgrade().map_or(0.0, |queue| (MISS_QUEUE - queue.capacity()) as f64)
        });
        Ok(Worker {
            registry: registry.clone(),
            refusals,
            directory: Directory::new(Rc::new(UpstreamMetrics::new(registry))),
            streams: Streams::new(misses.clone(), Clock::system(), Timeouts::default(), registry),
            misses,
            queue,
            wake: Wake::install()?,
            plan: None,
            udp: BTreeMap::new(),
            tcp: BTreeMap::new(),
            probes: Vec::new(),
            _queue_length: length,
        })
    }

    /// Makes a plan for `config` that carries over what did not change.
    pub fn plan(&self, config: &Config) -> Result<Plan, ApplyError> {
        Ok(Plan::new(config, self.plan.as_ref(), &self.registry, &self.directory)?)
    }

    /// Serves `plan` from now on, on `sockets`, which hold every socket the plan listens on.
    ///
    /// Addresses that stay do not miss a query: their threads go on and find new zones at the next
    /// batch. Addresses that are gone are served to the last query in their sockets.
    pub fn apply(&mut self, plan: Plan, sockets: &Sockets) -> Result<(), ApplyError> {
        self.misses.set_upstreams(plan.upstreams());
        self.set_timeouts(plan.timeouts);
        let listens = plan.listens();
        for listen in &listens {
            let started = match listen.role {
                Role::DnsUdp => self.serve_udp(&plan, *listen, sockets),
                Role::DnsTcp | Role::Http => self.serve_tcp(&plan, listen.address, sockets),
            };
            started.map_err(|error| ApplyError::Start(listen.address, error))?;
        }
        self.leave_all_but(&listens);
        self.probes.drain(..).for_each(|probe| probe.abort());
        for probe in plan.probes() {
            let task = probe_for_loop(probe.block, probe.zone, probe.address, self.registry.clone());
            self.probes.push(tokio::task::spawn_local(task));
        }
        self.plan = Some(plan);
        Ok(())
    }

    /// Open connections keep the time-outs they were accepted with.
    fn set_timeouts(&mut self, timeouts: Timeouts) {
        if self.streams.timeouts() != timeouts {
            self.streams = Streams::new(self.misses.clone(), Clock::system(), timeouts, &self.registry);
        }
    }

    fn serve_udp(&mut self, plan: &Plan, listen: Listen, sockets: &Sockets) -> io::Result<()> {
        let name = thread_name(listen.address, listen.index);
        let zones = plan.zones(listen.address, &name, &self.registry);
        if let Some((_, served)) = self.udp.get(&listen) {
            served.store(zones);
            return Ok(());
        }
        let zones = Arc::new(ArcSwap::new(zones));
        let socket = Arc::new(sockets.udp(&listen)?);
        let worker = UdpWorker {
            socket,
            zones: zones.clone(),
            misses: self.queue.clone(),
            refusals: self.refusals.clone(),
        };
        self.udp.insert(listen, (worker.spawn(&name, &self.registry)?, zones));
        Ok(())
    }

    fn serve_tcp(&mut self, plan: &Plan, address: SocketAddr, sockets: &Sockets) -> io::Result<()> {
        let zones = plan.zones(address, MISS_WRITER, &self.registry);
        // Open connections look for their zones where they always did; only the acceptor is a new one,
        // and who waits to be accepted waits in the socket.
        let place = match self.tcp.remove(&address) {
            Some((acceptor, place)) => {
                acceptor.abort();
                place.store(zones);
                place
            }
            None => Arc::new(ArcSwap::new(zones)),
        };
        let listener = sockets.tcp(&Listen { role: Role::DnsTcp, address, index: 0 })?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let acceptor = tokio::task::spawn_local(self.streams.clone().serve(listener, place.clone()));
        self.tcp.insert(address, (acceptor, place));
        Ok(())
    }

    /// Stops serving what is not in `listens`.
    fn leave_all_but(&mut self, listens: &[Listen]) {
        let addresses: BTreeSet<SocketAddr> = listens.iter().map(|listen| listen.address).collect();
        self.tcp.retain(|address, (task, _)| {
            let stays = addresses.contains(address);
            if !stays {
                task.abort();
            }
            stays
        });
        let gone: Vec<Listen> = self.udp.keys().filter(|listen| !listens.contains(listen)).copied().collect();
        for listen in gone {
            if let Some((thread, _)) = self.udp.remove(&listen) {
                thread.stop(&self.wake);
            }
        }
    }

    /// Addresses that threads answer on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.plan.as_ref().map(Plan::addresses).unwrap_or_default()
    }

    /// Takes no more queries in, answers those that are, and ends.
    pub async fn drain(mut self) {
        self.probes.drain(..).for_each(|probe| probe.abort());
        // From here on TCP accepts nothing, and UDP answers what is in the sockets.
        self.leave_all_but(&[]);
        let deadline = Instant::now() + DRAIN;
        while self.is_busy() && Instant::now() < deadline {
            sleep(Duration::from_millis(5)).await;
        }
        // What was just answered over TCP still has to be written.
        sleep(Duration::from_millis(10)).await;
        if let Some(plan) = &self.plan {
            plan.flush_errors();
        }
    }

    fn is_busy(&self) -> bool {
        self.misses.waiting() > 0 || self.queue.capacity() < MISS_QUEUE
    }
}
