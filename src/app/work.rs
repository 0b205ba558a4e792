//! The worker process: serves one configuration, and does what its guardian says.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;
use rustix::process::{Signal, set_parent_process_death_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval};

use super::environment::NodeEnvironment;
use super::plan::Plan;
use super::reload::Reloader;
use super::threads::Threads;
use super::{expanded, inspection, relays};
use crate::admin::{self, Admin, Endpoint};
use crate::cli::{Args, EXIT_CONFIG};
use crate::clock;
use crate::config::{Config, LoadError, Watch};
use crate::confinement::{self, Confinement};
use crate::guardian::channel::{Channel, ReceiveError};
use crate::guardian::message::{CacheFile, Message, Standing};
use crate::guardian::state::PULSE_MS;
use crate::logging;
use crate::metrics::{Registry, names};
use crate::ready::{Latch, Ready};
use crate::resident;
use crate::server::Moderation;
use crate::sockets::{Listen, Role, Sockets, is_supported};

/// The guardian is gone; nobody is left to tell.
const EXIT_ORPHAN: i32 = 1;

/// Serves for the guardian at the other end of standard input. The result is the exit status.
pub fn work(args: &Args) -> Result<i32> {
    let guardian = guardian()?;
    // The guardian's end is this process's end, even if the other end of the channel lives on in a copy.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It would be `exe`, after the path it was started by.
    rustix::thread::set_name(c"doorstep")?;
    let confinement = confinement::confine(expanded::directory(args));
    ignore_signals()?;
    let _log = logging::start().context("cannot start the log")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let moderation = Rc::new(Moderation::default());
    let tasks = LocalSet::new();
    let serving = tasks.run_until(async {
        match start(args, guardian, &confinement, moderation.clone()).await? {
            Ok(running) => running.run().await,
            Err(exit) => Ok(exit),
        }
    });
    runtime.block_on(moderation.moderate(serving))
}

fn guardian() -> Result<Channel> {
    let stdin = io::stdin();
    if socket_type(&stdin) != Ok(SocketType::SEQPACKET) {
        bail!("a worker is started by doorstep itself; leave `{}` away", crate::cli::WORKER);
    }
    Ok(Channel::new(stdin.as_fd().try_clone_to_owned()?))
}

/// Signals are the guardian's to act on; some reach the whole process group.
fn ignore_signals() -> io::Result<()> {
    for signal in [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    Ok(())
}

/// Everything that runs.
struct Running {
    args: Args,
    config: Config,
    guardian: Channel,
    /// The same socket, for the runtime to watch.
    readable: UnixStream,
    registry: Registry,
    threads: Threads,
    sockets: Sockets,
    /// The caches of the worker before, until it takes no more queries.
    heritage: Vec<CacheFile>,
    /// Whether another worker served when this one began.
    beside: bool,
    ready: Ready,
    latch: Option<Latch>,
    admin: Option<Admin>,
    reloader: Reloader,
}

/// Brings everything up; `Err` inside is an exit status whose reason was printed.
async fn start(
    args: &Args,
    guardian: Channel,
    confinement: &Confinement,
    moderation: Rc<Moderation>,
) -> Result<Result<Running, i32>> {
    let registry = new_registry();
    let mut watch = Watch::default();
    let config = match first_load(args, &mut watch, &registry) {
        Ok(config) => config,
        Err(error) => return Ok(Err(refuse(&error))),
    };
    announce(args, &config);
    confinement.log();
    let mut threads = Threads::new(&registry, moderation)?;
    let plan = threads.plan(&config)?;
    let needed = [plan.listens(), http_listens(&config)].concat();
    let optional = args.metrics_addresses.iter().map(|address| http(*address)).collect();
    guardian.send(&Message::Want { needed, optional })?;
    let (sockets, beside, heritage) = match guardian.receive() {
        Ok(Message::Sockets { sockets, beside, caches, .. }) => (sockets, beside, caches),
        // The guardian says why, to whom it concerns.
        Ok(Message::Refused(_)) => return Ok(Err(1)),
        Err(ReceiveError::Closed) => return Ok(Err(EXIT_ORPHAN)),
        other => bail!("the guardian gave no sockets: {other:?}"),
    };
    let mut bound = Sockets::default();
    bound.adopt(sockets);
    let ready = Ready::new();
    let latch = ready.latch("dns");
    // Before the first query, so that none is a miss that need not be one.
    let inherited = plan.inherit_caches(&heritage, clock::now());
    if inherited > 0 {
        tracing::info!("{inherited} cache entries come from the worker before");
    }
    threads.start(plan, &bound)?;
    let reloader = Reloader::new(args, watch, &config, &registry);
    let readable = readable(&guardian)?;
    let mut running = Running {
        args: args.clone(),
        config,
        guardian,
        readable,
        registry,
        threads,
        sockets: bound,
        beside,
        ready,
        latch: Some(latch),
        heritage,
        admin: None,
        reloader,
    };
    // Beside another worker, requests are that one's until this one goes on with its numbers.
    if !beside {
        running.serve_http()?;
    }
    running.guardian.send(&Message::Standing(running.standing()?))?;
    Ok(Ok(running))
}

impl Running {
    fn standing(&self) -> Result<Standing> {
        let lameduck = self.config.admin.health.iter().map(|health| health.lameduck).max();
        Ok(Standing {
            health_port: self.args.health_port.or(self.config.health_port),
            lameduck: lameduck.unwrap_or_default(),
            relays: relays::upstreams(&self.config.server.blocks),
            unrelayed: relays::unrelayed(&self.config.server.blocks),
            caches: self.threads.plan_served().map_or(Ok(Vec::new()), Plan::share_caches)?,
        })
    }

    fn serve_http(&mut self) -> Result<()> {
        if self.admin.is_none() {
            let endpoints = endpoints(&self.args, &self.config, &self.sockets)?;
            self.admin = Some(admin::spawn(endpoints, self.registry.clone(), self.ready.clone())?);
        }
        Ok(())
    }

    async fn run(mut self) -> Result<i32> {
        let mut pulse = interval(Duration::from_millis(PULSE_MS));
        pulse.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let order = tokio::select! {
                order = order(&self.guardian, &self.readable) => order,
                _ = pulse.tick() => {
                    // A guardian that is stopped lets its socket fill up; one that is gone shows below.
                    let _ = self.guardian.send(&Message::Pulse);
                    continue;
                }
                () = self.reloader.due() => {
                    self.look(false);
                    continue;
                }
            };
            match order {
                Ok(Message::Retire { linger }) => return self.retire(linger).await,
                Ok(order) => self.obey(order)?,
                Err(ReceiveError::Closed) => return Ok(EXIT_ORPHAN),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn obey(&mut self, order: Message) -> Result<()> {
        match order {
            Message::Serve { lease } => {
                // Closed by the kernel once no thread of this process answers any more.
                lease.map(IntoRawFd::into_raw_fd);
                self.latch = None;
                expanded::write(&self.args, &self.config);
                if !self.beside {
                    self.alone();
                }
            }
            Message::CatchUp { totals } => {
                if let Some(totals) = totals {
                    self.registry.inherit(&io::read_to_string(File::from(totals))?);
                }
                self.catch_up();
                self.serve_http()?;
                self.alone();
            }
            Message::Look => self.look(true),
            Message::Stay(why) => self.reloader.failed(&why),
            Message::Counts(counts) => inspection::show(&counts, &self.registry),
            other => bail!("the guardian has no business to say {other:?}"),
        }
        Ok(())
    }

    /// From here on this worker alone answers.
    fn alone(&mut self) {
        if self.reloader.in_effect() {
            self.threads.look_for_loops();
            // The start is over. Failing to save memory is no failure.
            let _ = resident::drop_code();
        }
    }

    /// Takes over what the worker before has learnt since this one began.
    fn catch_up(&mut self) {
        let heritage = std::mem::take(&mut self.heritage);
        if let Some(plan) = self.threads.plan_served() {
            plan.inherit_caches(&heritage, clock::now());
        }
    }

    /// Asks to be replaced if there is another configuration, and it is good.
    fn look(&mut self, forced: bool) {
        if self.reloader.look(forced)
            && let Err(error) = self.guardian.send(&Message::Reload)
        {
            self.reloader.failed(&error.to_string());
        }
    }

    /// Undoes everything, in the mirror image of the start.
    async fn retire(mut self, linger: bool) -> Result<i32> {
        // Another worker serves them now; without one they tell how the end goes on.
        if linger && let Some(admin) = self.admin.take() {
            admin.stop();
        }
        self.threads.quiet();
        let totals = in_memory(&self.registry.totals()).ok();
        // Who is not there to hear it does not need it.
        let _ = self.guardian.send(&Message::Quiet { totals });
        self.threads.drain(linger).await;
        if let Some(admin) = self.admin.take() {
            admin.stop();
        }
        Ok(0)
    }
}

/// A file of this text, to be read from its beginning.
fn in_memory(text: &str) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("doorstep-totals", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

/// The next message.
async fn order(guardian: &Channel, readable: &UnixStream) -> Result<Message, ReceiveError> {
    loop {
        let received = readable.try_io(Interest::READABLE, || match guardian.try_receive() {
            Err(ReceiveError::Empty) => Err(io::ErrorKind::WouldBlock.into()),
            received => Ok(received),
        });
        if let Ok(received) = received {
            return received;
        }
        if readable.readable().await.is_err() {
            return Err(ReceiveError::Closed);
        }
    }
}

/// Something that the runtime tells when the guardian has spoken.
fn readable(guardian: &Channel) -> io::Result<UnixStream> {
    let socket = std::os::unix::net::UnixStream::from(guardian.as_fd().try_clone_to_owned()?);
    // Shared by all copies of the socket: from here on `receive` does not wait either.
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

fn new_registry() -> Registry {
    let registry = Registry::new();
    let version = [env!("CARGO_PKG_VERSION"), "", "rust"];
    registry.gauge(&names::BUILD_INFO, version).set(1);
    logging::count_dropped(registry.counter(&names::LOG_DROPPED, []));
    registry
}

/// Loads the configuration, if need be without a kube-dns ConfigMap that is wrong: there is no earlier
/// one to go on with.
fn first_load(args: &Args, watch: &mut Watch, registry: &Registry) -> Result<Config, LoadError> {
    let environment = NodeEnvironment::new(args);
    let mut options = args.options();
    match watch.load(&options, &environment) {
        Err(LoadError::KubeDns(_)) => {
            registry.counter(&names::SETUP_ERRORS, ["configmap"]).inc();
            options.tolerate_bad_kube_dns = true;
            watch.load(&options, &environment)
        }
        loaded => loaded,
    }
}

/// Prints why there is nothing to serve, and gives the exit status.
fn refuse(error: &LoadError) -> i32 {
    eprintln!("{error}");
    EXIT_CONFIG
}

fn announce(args: &Args, config: &Config) {
    logging::set_debug(config.debug);
    if !args.quiet {
        for line in crate::config::describe(config).lines().filter(|line| !line.is_empty()) {
            tracing::info!("{line}");
        }
    }
    let lint = args.lint(config);
    args.warnings.iter().chain(&config.warnings).chain(&lint).for_each(|line| tracing::warn!("{line}"));
    config.omitted.iter().for_each(|line| tracing::error!("{line}"));
}

fn http(address: SocketAddr) -> Listen {
    Listen { role: Role::Http, address, index: 0 }
}

fn http_listens(config: &Config) -> Vec<Listen> {
    config.admin.listeners().into_keys().filter(is_supported).map(http).collect()
}

fn endpoints(args: &Args, config: &Config, sockets: &Sockets) -> io::Result<Vec<Endpoint>> {
    let mut wanted = config.admin.listeners();
    for address in &args.metrics_addresses {
        if sockets.tcp(&http(*address)).is_ok() {
            wanted.entry(*address).or_default().metrics = true;
        }
    }
    let endpoint = |(address, serves)| Ok(Endpoint { listener: sockets.tcp(&http(address))?, serves });
    wanted.into_iter().filter(|(address, _)| is_supported(address)).map(endpoint).collect()
}
