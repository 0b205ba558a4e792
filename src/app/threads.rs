//! What serves DNS in a worker: a thread for each UDP socket, and tasks for everything else.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::plan::{MISS_WRITER, Plan, PlanError};
use super::upstream_metrics::UpstreamMetrics;
use crate::clock::Clock;
use crate::config::Config;
use crate::forward::{self, Directory};
use crate::metrics::{Registration, Registry, names};
use crate::server::{
    MISS_QUEUE, Miss, Misses, Moderation, Refusals, Streams, UdpThread, UdpWorker, Wake, probe_for_loop,
    thread_name,
};
use crate::sockets::{Listen, Role, Sockets};

/// In-flight queries get this long to be answered when the process stops. An upstream exchange never
/// takes longer.
const DRAIN: Duration = forward::DEADLINE;
/// Connections get this long to be closed by their clients. A server may close one at any time
/// (RFC 7766 §6.2.4); this only makes it rare that a query is on its way just then.
const LINGER: Duration = Duration::from_secs(2);

/// Everything that serves DNS. Lives on one thread, in a tokio `LocalSet`.
pub struct Threads {
    refusals: Arc<Refusals>,
    registry: Registry,
    directory: Directory,
    misses: Rc<Misses>,
    queue: mpsc::Sender<Box<Miss>>,
    wake: Wake,
    serving: Option<(Plan, Rc<Streams>)>,
    udp: Vec<UdpThread>,
    tasks: Vec<JoinHandle<()>>,
    _queue_length: Registration,
}

/// A thread or task could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve {0}: {1}")]
pub struct StartError(SocketAddr, #[source] io::Error);

impl Threads {
    /// None yet. To be called on a `LocalSet`.
    ///
    /// `moderation` is told when there was work.
    pub fn new(registry: &Registry, moderation: Rc<Moderation>) -> io::Result<Threads> {
        let refusals = Arc::<Refusals>::default();
        let misses = Misses::new(registry, Clock::system(), moderation, refusals.clone());
        let (queue, waiting) = mpsc::channel(MISS_QUEUE);
        tokio::task::spawn_local(misses.clone().serve(waiting));
        let length = queue.downgrade();
        let length = registry.gauge_fn(&names::MISS_QUEUE_LENGTH, [], move || {
            length.upgrade().map_or(0.0, |queue| (MISS_QUEUE - queue.capacity()) as f64)
        });
        Ok(Threads {
            registry: registry.clone(),
            refusals,
            directory: Directory::new(Rc::new(UpstreamMetrics::new(registry))),
            misses,
            queue,
            wake: Wake::install()?,
            serving: None,
            udp: Vec::new(),
            tasks: Vec::new(),
            _queue_length: length,
        })
    }

    /// Makes a plan for `config`.
    pub fn plan(&self, config: &Config) -> Result<Plan, PlanError> {
        Plan::new(config, &self.registry, &self.directory)
    }

    /// Serves `plan` on `sockets`, which hold every socket the plan listens on.
    pub fn start(&mut self, plan: Plan, sockets: &Sockets) -> Result<(), StartError> {
        self.misses.set_upstreams(plan.upstreams());
        let streams = Streams::new(self.misses.clone(), Clock::system(), plan.timeouts, &self.registry);
        for listen in plan.listens() {
            let started = match listen.role {
                Role::DnsUdp => self.serve_udp(&plan, listen, sockets),
                Role::DnsTcp | Role::Http => self.serve_tcp(&plan, listen, sockets, streams.clone()),
            };
            started.map_err(|error| StartError(listen.address, error))?;
        }
        self.serving = Some((plan, streams));
        Ok(())
    }

    /// Looks for loops. Only once no other worker reads the sockets, which might take the probes.
    pub fn look_for_loops(&mut self) {
        for probe in self.plan_served().map(Plan::probes).unwrap_or_default() {
            let task = probe_for_loop(probe.block, probe.zone, probe.address, self.registry.clone());
            self.tasks.push(tokio::task::spawn_local(task));
        }
    }

    fn serve_udp(&mut self, plan: &Plan, listen: Listen, sockets: &Sockets) -> io::Result<()> {
        let name = thread_name(listen.address, listen.index);
        let worker = UdpWorker {
            socket: Arc::new(sockets.udp(&listen)?),
            zones: plan.zones(listen.address, &name, &self.registry),
            misses: self.queue.clone(),
            refusals: self.refusals.clone(),
        };
        self.udp.push(worker.spawn(&name, &self.registry)?);
        Ok(())
    }

    fn serve_tcp(
        &mut self,
        plan: &Plan,
        listen: Listen,
        sockets: &Sockets,
        streams: Rc<Streams>,
    ) -> io::Result<()> {
        let zones = plan.zones(listen.address, MISS_WRITER, &self.registry);
        let listener = tokio::net::TcpListener::from_std(sockets.tcp(&listen)?)?;
        self.tasks.push(tokio::task::spawn_local(streams.serve(listener, zones)));
        Ok(())
    }

    /// What is served.
    pub fn plan_served(&self) -> Option<&Plan> {
        self.serving.as_ref().map(|(plan, _)| plan)
    }

    /// Takes no more queries in: TCP accepts nothing from here on, and UDP has answered what was in the
    /// sockets.
    pub fn quiet(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
        self.udp.drain(..).for_each(|thread| thread.stop(&self.wake));
    }

    /// Waits for the answers to what was taken in; with `linger`, also for clients to be done with their
    /// TCP connections, which they may use for as long as these are open.
    pub async fn drain(self, linger: bool) {
        let start = Instant::now();
        if !linger && let Some((_, streams)) = &self.serving {
            streams.gather_answers();
        }
        while self.is_busy() && start.elapsed() < DRAIN
            || linger && self.has_connections() && start.elapsed() < LINGER
        {
            sleep(Duration::from_millis(5)).await;
        }
        // What was just answered over TCP still has to be written.
        sleep(Duration::from_millis(10)).await;
        if let Some(plan) = self.plan_served() {
            plan.flush_errors();
        }
    }

    fn is_busy(&self) -> bool {
        self.misses.waiting() > 0 || self.queue.capacity() < MISS_QUEUE
    }

    fn has_connections(&self) -> bool {
        self.serving.as_ref().is_some_and(|(_, streams)| streams.open() > 0)
    }
}
