//! One `forward` directive at work.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use rustls::ClientConfig;
use tokio::time::Instant;

use super::alarms::Alarms;
use super::budget::Budget;
use super::config::{ClientTransport, Config, Tls, Transport};
use super::directory::Directory;
use super::error::{Error, ForwardError};
use super::exchange::{Entrant, Exchange};
use super::message::Query;
use super::metrics::Metrics;
use super::policy::Rotation;
use super::random::Random;
use super::tls;
use super::upstream::Upstream;

/// A directive's upstreams and what its queries share.
pub(super) struct Directive {
    pub(super) config: Config,
    pub(super) upstreams: Vec<Rc<Upstream>>,
    pub(super) rotation: Rotation,
    pub(super) random: Rc<Random>,
    pub(super) metrics: Rc<dyn Metrics>,
    pub(super) hedges: Budget,
    pub(super) alarms: Alarms,
    in_flight: Cell<usize>,
}

impl Directive {
    pub(super) fn new(config: &Config, directory: &Directory) -> Result<Directive, Error> {
        let tls = tls_for(config)?;
        let upstreams = config
            .to
            .iter()
            .map(|target| directory.upstream(target, config, tls.as_ref()))
            .collect::<Result<_, _>>()?;
        Ok(Directive {
            config: config.clone(),
            upstreams,
            rotation: Rotation::new(config.policy),
            random: Rc::clone(&directory.random),
            metrics: Rc::clone(&directory.metrics),
            hedges: Budget::new(),
            alarms: Alarms::default(),
            in_flight: Cell::new(0),
        })
    }

    /// Whether queries for `name` (folded wire octets) are this directive's.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        let excepted = || self.config.except.iter().any(|except| except.contains(name));
        self.config.from.contains(name) && !excepted()
    }

    /// Asks the upstreams, from `now` until `deadline` at most.
    pub(super) async fn resolve(
        &self,
        query: &Query<'_>,
        client: ClientTransport,
        now: Instant,
        deadline: Instant,
    ) -> Result<Vec<u8>, ForwardError> {
        let _place = self.enter()?;
        let datagram = match self.config.transport {
            Transport::ForceTcp => false,
            Transport::PreferUdp => true,
            Transport::AsClient => client == ClientTransport::Udp,
        };
        let mut entrants = Entrant::all(self);
        self.hedges.earn();
        let mut exchange = Exchange::new(self, query, datagram, &mut entrants, now..deadline)?;
        exchange.run().await
    }

    /// Counts a query in, unless `max_concurrent` are.
    fn enter(&self) -> Result<Place<'_>, ForwardError> {
        if let Some(limit) = self.config.max_concurrent
            && self.in_flight.get() >= limit
        {
            self.metrics.overloaded();
            return Err(ForwardError::Overloaded { limit });
        }
        self.in_flight.set(self.in_flight.get() + 1);
        Ok(Place(&self.in_flight))
    }
}

/// One of the queries in flight.
struct Place<'a>(&'a Cell<usize>);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The TLS configuration, if any upstream needs it or the directive names files for it: a wrong
/// path is an error today, not on the day a `tls://` upstream is added.
fn tls_for(config: &Config) -> Result<Option<Arc<ClientConfig>>, Error> {
    let Tls { identity, roots, .. } = &config.tls;
    let wanted = config.to.iter().any(|target| target.tls) || identity.is_some() || roots.is_some();
    wanted.then(|| tls::client_config(&config.tls)).transpose()
}
