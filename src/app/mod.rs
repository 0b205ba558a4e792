//! The wiring: flags and configuration to a serving process, and back to nothing.
//!
//! ```text
//! start   load ─► bind ─► link ─► threads answer ─► rules ─► ready
//! reload  load ─► bind what is new ─► swap zones ─► leave what is old
//! stop    rules ─► in-flight queries ─► link
//! ```

mod environment;
mod host;
mod plan;
mod reload;
pub mod remedy;
mod upstream_metrics;
mod worker;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::LocalSet;

use crate::admin::{self, Admin, Endpoint};
use crate::cli::{Args, EXIT_CONFIG};
use crate::config::{Config, LoadError, Watch};
use crate::logging;
use crate::metrics::{Registry, names};
use crate::ready::{Latch, Ready};
use crate::server::Moderation;
use crate::sockets::{BindError, Listen, Role, Sockets, is_supported};
use environment::NodeEnvironment;
use host::Host;
use plan::Plan;
use reload::Reloader;
use worker::Worker;

/// A second signal, or one that asks for no grace, ends the process with this.
const EXIT_INTERRUPTED: i32 = 2;

/// Serves until a signal ends it. The result is the process's exit status.
pub fn serve(args: &Args) -> Result<i32> {
    let _log = logging::start().context("cannot start the log")?;
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let moderation = Rc::new(Moderation::default());
    let tasks = LocalSet::new();
    let serving = tasks.run_until(async {
        // Listened to before there is anything that a signal would leave behind.
        let signals = Signals::new()?;
        match start(args, moderation.clone()).await? {
            Ok(running) => running.run(signals).await,
            Err(exit) => Ok(exit),
        }
    });
    runtime.block_on(moderation.moderate(serving))
}

/// Each TCP client is a file. The soft limit is often 1024 only for the sake of `select`, which nothing
/// here uses.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Not being allowed to leaves the limit as it was, and `accept` copes.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Everything that runs.
struct Running {
    args: Args,
    config: Config,
    sockets: Sockets,
    worker: Worker,
    host: Host,
    admin: Admin,
    reloader: Reloader,
}

/// The signals that mean something; SIGHUP and SIGUSR2 are taken and ignored, as by node-cache.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    reload: Signal,
    _ignored: [Signal; 2],
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            reload: signal(SignalKind::user_defined1())?,
            _ignored: [signal(SignalKind::hangup())?, signal(SignalKind::user_defined2())?],
        })
    }

    /// The next signal to end.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}

/// Brings everything up; `Err` inside is an exit status whose reason was printed.
async fn start(args: &Args, moderation: Rc<Moderation>) -> Result<Result<Running, i32>> {
    let registry = new_registry();
    let mut watch = Watch::default();
    let config = match first_load(args, &mut watch, &registry) {
        Ok(config) => config,
        Err(error) => return Ok(Err(refuse(&error))),
    };
    announce(args, &config);
    write_expanded(args, &config);
    let mut worker = Worker::new(&registry, moderation)?;
    let plan = worker.plan(&config)?;
    let mut sockets = Sockets::default();
    let wanted = [plan.listens(), http_listens(&config)].concat();
    if let Err(errors) = sockets.bind(&wanted) {
        errors.iter().for_each(|error| eprintln!("doorstep: {error}"));
        return Ok(Err(1));
    }
    bind_metrics(args, &mut sockets);
    let mut host = Host::new(args.node(config.health_port), args.skip_teardown, &registry);
    host.ensure_link();
    let ready = Ready::new();
    let latch = ready.latch("dns");
    let admin = admin::spawn(endpoints(args, &config, &sockets)?, registry.clone(), ready)?;
    worker.apply(plan, &sockets)?;
    let reloader = Reloader::new(args, watch, &config, &registry);
    let mut running = Running { args: args.clone(), config, sockets, worker, host, admin, reloader };
    running.announce_readiness(latch);
    Ok(Ok(running))
}

impl Running {
    /// Every address answers: rules, pidfile, ready.
    fn announce_readiness(&mut self, latch: Latch) {
        self.host.intercept(&self.served(&self.worker.addresses()));
        if let Some(path) = &self.args.pid_file
            && let Err(error) = std::fs::write(path, std::process::id().to_string())
        {
            tracing::error!("cannot write -pidfile {}: {error}", path.display());
        }
        drop(latch);
        tracing::info!("doorstep {} serves", env!("CARGO_PKG_VERSION"));
    }

    /// Those of `-localip` that a listener on one of `addresses` answers on, at the rules' port.
    fn served(&self, addresses: &[SocketAddr]) -> Vec<IpAddr> {
        let serves = |ip: IpAddr| {
            move |address: &&SocketAddr| {
                let everywhere = address.ip().is_unspecified() && address.is_ipv4() == ip.is_ipv4();
                address.port() == self.args.dns_port && (everywhere || address.ip() == ip)
            }
        };
        let listened = |ip: &&IpAddr| addresses.iter().any(|address| serves(**ip)(&address));
        self.args.local_ips.iter().filter(listened).copied().collect()
    }

    async fn run(mut self, mut signals: Signals) -> Result<i32> {
        loop {
            tokio::select! {
                () = self.reloader.due() => self.reload(false),
                _ = signals.reload.recv() => self.reload(true),
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
                // No grace: what is on the node is undone by the drop.
                _ = signals.quit.recv() => return Ok(0),
            }
        }
        tokio::select! {
            () = self.stop() => Ok(0),
            // The operator insists: what is not undone by now is undone at once.
            () = signals.end() => Ok(EXIT_INTERRUPTED),
        }
    }

    /// Takes up a changed configuration, or keeps the old one and says why.
    fn reload(&mut self, forced: bool) {
        let Some(config) = self.reloader.load(forced) else {
            return;
        };
        if let Err(error) = self.apply(&config) {
            self.reloader.failed(&format!("{error:#}"));
            return;
        }
        self.reloader.succeeded(&config);
        self.config = config;
    }

    fn apply(&mut self, config: &Config) -> Result<()> {
        let plan = self.worker.plan(config)?;
        let listens = [plan.listens(), http_listens(config)].concat();
        if let Err(errors) = self.sockets.bind(&listens) {
            anyhow::bail!("{}", errors.iter().map(BindError::to_string).collect::<Vec<_>>().join("; "));
        }
        self.replace(plan)?;
        self.admin.replace(endpoints(&self.args, config, &self.sockets)?)?;
        let metrics = self.args.metrics_addresses.iter().map(|address| http(*address));
        self.sockets.retain(&listens.into_iter().chain(metrics).collect::<Vec<_>>());
        write_expanded(&self.args, config);
        logging::set_debug(config.debug);
        config.warnings.iter().for_each(|line| tracing::warn!("{line}"));
        config.omitted.iter().for_each(|line| tracing::error!("{line}"));
        Ok(())
    }

    /// Serves `plan`. Rules of addresses that it leaves go before their listeners, and rules of new
    /// ones come after.
    fn replace(&mut self, plan: Plan) -> Result<()> {
        let (old, new) = (self.worker.addresses(), plan.addresses());
        let (before, after) = (self.served(&old), self.served(&new));
        let staying: Vec<IpAddr> = before.iter().filter(|ip| after.contains(ip)).copied().collect();
        if staying != before {
            self.host.intercept(&staying);
        }
        self.worker.apply(plan, &self.sockets)?;
        if after != staying {
            self.host.intercept(&after);
        }
        Ok(())
    }

    /// Undoes everything, in the mirror image of the start.
    async fn stop(mut self) {
        let lameduck =
            self.config.admin.health.iter().map(|health| health.lameduck).max().unwrap_or_default();
        if !lameduck.is_zero() {
            tracing::info!("going on for {lameduck:?} (lameduck)");
            tokio::time::sleep(lameduck).await;
        }
        self.host.release();
        self.worker.drain().await;
        self.host.remove_link();
        self.admin.stop();
        if let Some(path) = &self.args.pid_file {
            let _ = std::fs::remove_file(path);
        }
        tracing::info!("stopped");
    }
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

/// Leaves the expanded template where `-conf` points, for those who read it there. Read-only mounts
/// are common and no harm.
fn write_expanded(args: &Args, config: &Config) {
    let (Some(text), Some(path)) = (&config.expanded, &args.conf) else {
        return;
    };
    if std::fs::read_to_string(path).is_ok_and(|there| there == *text) {
        return;
    }
    if let Err(error) = write_whole(path, text) {
        tracing::warn!("cannot write the expanded Corefile to -conf {}: {error}", path.display());
    }
}

/// Writes beside `path` and renames, so that nobody reads half a file.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, path).inspect_err(|_| drop(std::fs::remove_file(&beside)))
}

fn http(address: SocketAddr) -> Listen {
    Listen { role: Role::Http, address, index: 0 }
}

fn http_listens(config: &Config) -> Vec<Listen> {
    config.admin.listeners().into_keys().filter(is_supported).map(http).collect()
}

/// node-cache's own metrics port. As there, it does not keep DNS from being served.
fn bind_metrics(args: &Args, sockets: &mut Sockets) {
    for address in &args.metrics_addresses {
        for error in sockets.bind(&[http(*address)]).err().unwrap_or_default() {
            tracing::error!("-metrics-listen-address: {error}");
        }
    }
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
