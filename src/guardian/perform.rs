//! Doing what the state machine says.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use super::counts::what;
use super::message::Message;
use super::relay::Relay;
use super::state::{Action, Cause, Event, Id};
use super::worker::Worker;
use super::{Guardian, Outcome};
use crate::node;
use crate::resident;
use crate::sockets::{Listen, Role};

/// Why queries are not relayed.
const STEPS: &str = "for the Corefile does more there than to forward them";

impl Cause {
    fn label(self) -> &'static str {
        match self {
            Cause::Start => "start",
            Cause::Reload => "reload",
            Cause::Crash => "crash",
            Cause::Silence => "silence",
            Cause::TakeBack => "take-back",
        }
    }
}

impl Guardian<'_> {
    pub(super) fn perform(&mut self, action: Action) {
        tracing::debug!("{action:?}");
        match action {
            Action::Spawn(id, cause) => self.spawn(id, cause),
            Action::Serve(id) => self.install(id),
            Action::Stay(id) => {
                let why = std::mem::take(&mut self.refusal);
                let why = if why.is_empty() { "its worker ended before it answered".into() } else { why };
                self.tell(id, &Message::Stay(why));
            }
            Action::Retire { worker, linger } => self.tell(worker, &Message::Retire { linger }),
            Action::CatchUp(id) => {
                let totals = self.totals.take();
                self.tell(id, &Message::CatchUp { totals });
            }
            Action::Kill(id) => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    tracing::error!("worker {} is killed", worker.pid());
                    worker.kill();
                }
            }
            Action::Relay(true) => self.start_relay(),
            Action::Relay(false) => {
                if self.relay.take().is_some() {
                    tracing::warn!("the relay has ended");
                }
            }
            Action::Disown => {
                self.host.disown();
                tracing::info!("a successor serves this node");
            }
            Action::Own => {
                tracing::error!("the successor is gone, this process serves again");
                self.host.own();
                self.open_door();
            }
            Action::TellQuiet => {
                let totals = self.totals.take();
                if let Some(successor) = &self.succession.successor {
                    // One that is gone is found gone.
                    let _ = successor.send(&Message::Quiet { totals });
                }
            }
            Action::Release => self.release(),
            Action::End(status) => self.end(status),
        }
    }

    fn spawn(&mut self, id: Id, cause: Cause) {
        self.counts.add(what::STARTS, cause.label(), 1);
        match Worker::spawn(&self.config.arguments) {
            Ok(worker) => {
                if cause != Cause::Start {
                    tracing::info!("worker {} is started ({})", worker.pid(), cause.label());
                }
                self.workers.insert(id, worker);
            }
            Err(error) => {
                tracing::error!("cannot start a worker: {error}");
                self.pending.push_back(Event::Ended(id, Some(1)));
            }
        }
    }

    /// Worker `id` answers: its rules, its sockets and no others, its readiness.
    fn install(&mut self, id: Id) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let listens = worker.listens.clone();
        let mut health_port = None;
        if let Some(standing) = &mut worker.standing {
            health_port = standing.health_port;
            self.lameduck_ms = standing.lameduck.as_millis().try_into().unwrap_or(u64::MAX);
            self.relays = std::mem::take(&mut standing.relays);
            self.unrelayed = std::mem::take(&mut standing.unrelayed);
            self.caches = std::mem::take(&mut standing.caches);
        }
        // At an address that is left, rules for queries go before the worker that answers there does, those for
        // answers after it.
        let elsewhere = (!self.announced).then(|| self.elsewhere());
        let lease = self.host.intercept(&self.served(&listens), health_port, elsewhere.as_deref());
        self.forget_left();
        self.sockets.retain(&listens);
        self.tell(id, &Message::Counts(self.counts.all()));
        self.tell(id, &Message::Serve { lease });
        self.refusal.clear();
        self.neighbour.missing = std::mem::take(&mut self.neighbour.missed);
        for ip in absent(&listens) {
            tracing::warn!("{ip} is no address of this node: nobody is answered there until it is");
        }
        if !self.announced {
            self.announced = true;
            self.announce();
            if self.succession.predecessor.is_none() {
                // It may have been there when the worker was told so.
                self.tell(id, &Message::CatchUp { totals: None });
            }
        }
    }

    /// Where only a worker that has ended answered, answers need no rules any more.
    pub(super) fn forget_left(&mut self) {
        if self.workers.len() <= 1 {
            self.host.forget_left();
        }
    }

    fn announce(&mut self) {
        if let Some(path) = &self.config.pid_file
            && let Err(error) = std::fs::write(path, std::process::id().to_string())
        {
            tracing::error!("cannot write -pidfile {}: {error}", path.display());
        }
        self.take_over();
        self.open_door();
        self.greet_the_neighbour();
        tracing::info!("doorstep {} serves", env!("CARGO_PKG_VERSION"));
        // It mostly waits from here on. Failing to save memory is no failure.
        let _ = resident::drop_code();
    }

    fn start_relay(&mut self) {
        if self.relays.is_empty() {
            return tracing::error!(
                "no worker stands, and there is no upstream without TLS to relay queries to"
            );
        }
        let relayed = self.sockets.listens().into_iter().filter(|listen| self.is_relayed(listen));
        let relayed: Vec<Listen> = relayed.collect();
        if relayed.is_empty() {
            return tracing::error!("no worker stands: queries wait for the next one, {STEPS}");
        }
        let started = self
            .relay_sockets(&relayed)
            .and_then(|(udp, tcp)| Relay::start(udp, tcp, self.relays.clone(), self.counts.clone()));
        match started {
            Ok(relay) => {
                tracing::error!("no worker stands: queries are relayed to {}, uncached", self.relays[0]);
                for address in &self.unrelayed {
                    tracing::error!("those to {address} wait for the next one, {STEPS}");
                }
                self.relay = Some(relay);
            }
            Err(error) => tracing::error!("no worker stands, and queries cannot be relayed: {error}"),
        }
    }

    /// Whether an upstream's answer at `listen` is what a worker would have said. Where it may not be, queries wait
    /// in the socket for the next worker.
    fn is_relayed(&self, listen: &Listen) -> bool {
        listen.role != Role::Http && !self.unrelayed.contains(&listen.address)
    }

    fn relay_sockets(
        &self,
        relayed: &[Listen],
    ) -> io::Result<(Vec<std::net::UdpSocket>, Vec<std::net::TcpListener>)> {
        let of = |role| move |listen: &&Listen| listen.role == role;
        let udp = relayed.iter().filter(of(Role::DnsUdp)).map(|listen| self.sockets.udp(listen));
        let tcp = relayed.iter().filter(of(Role::DnsTcp)).map(|listen| self.sockets.tcp(listen));
        Ok((udp.collect::<io::Result<_>>()?, tcp.collect::<io::Result<_>>()?))
    }

    /// Undoes whatever is left. Rules for answers outlive everybody who answers, and the link all rules.
    fn end(&mut self, status: i32) {
        if !self.announced && self.succession.predecessor.is_some() {
            // Nothing was taken over: all is still the predecessor's.
            self.host.disown();
        }
        self.release();
        self.relay = None;
        std::mem::take(&mut self.workers).into_values().for_each(|worker| {
            worker.bury();
        });
        let (sockets, port) = (&self.sockets, self.config.node.dns_port);
        self.host.undo(|| sockets.elsewhere(port));
        if let Some(path) =
            self.config.pid_file.as_ref().filter(|_| self.announced && !self.host.is_disowned())
        {
            let _ = std::fs::remove_file(path);
        }
        if self.announced {
            tracing::info!("stopped");
        }
        self.outcome = Some(Outcome::Exit(status));
    }
}

/// Addresses that are bound although nobody has them yet.
fn absent(listens: &[Listen]) -> BTreeSet<IpAddr> {
    let all = listens.iter().map(|listen| listen.address.ip());
    all.filter(|ip| !ip.is_unspecified() && !node::is_on_this_node(*ip)).collect()
}
