//! Upstreams by address and options, so that blocks with the same ones share them.
//!
//! A stock configuration names kube-dns in three blocks. It is one server: one pool of connections,
//! one opinion about its health and its speed.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use rustls::ClientConfig;

use super::config::{Config, Target, Transport};
use super::error::Error;
use super::metrics::Metrics;
use super::random::Random;
use super::upstream::Upstream;

/// The upstreams in use, whoever uses them; see [`Chain::shared`](super::Chain::shared).
pub struct Directory {
    pub(super) random: Rc<Random>,
    pub(super) metrics: Rc<dyn Metrics>,
    known: RefCell<Vec<(Config, Weak<Upstream>)>>,
}

impl Directory {
    /// An empty one. What its upstreams do is told to `metrics`.
    pub fn new(metrics: Rc<dyn Metrics>) -> Directory {
        Directory { random: Rc::new(Random::new()), metrics, known: RefCell::default() }
    }

    /// The upstream `target` as `config` wants it: one in use, or a new one.
    ///
    /// One with TLS is always new: its certificates are read when a configuration is loaded.
    pub(super) fn upstream(
        &self,
        target: &Target,
        config: &Config,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Rc<Upstream>, Error> {
        let new = || Upstream::new(target, config, tls, &self.random, &self.metrics);
        if target.tls {
            return new();
        }
        let mut known = self.known.borrow_mut();
        known.retain(|(_, upstream)| upstream.strong_count() > 0);
        let wanted = essence(target, config);
        let found = known.iter().find(|(config, _)| *config == wanted);
        if let Some(upstream) = found.and_then(|(_, upstream)| upstream.upgrade()) {
            return Ok(upstream);
        }
        let upstream = new()?;
        known.push((wanted, Rc::downgrade(&upstream)));
        Ok(upstream)
    }
}

/// What an upstream without TLS takes from its directive, with `target` alone.
fn essence(target: &Target, config: &Config) -> Config {
    Config {
        transport: match config.transport {
            Transport::ForceTcp => Transport::ForceTcp,
            // The same to an upstream: probes go over UDP.
            Transport::AsClient | Transport::PreferUdp => Transport::AsClient,
        },
        expire: config.expire,
        max_fails: config.max_fails,
        health_check: config.health_check.clone(),
        ..Config::new(crate::wire::Name::root(), vec![target.clone()])
    }
}

#[cfg(test)]
mod tests {
    use super::super::metrics::NoMetrics;
    use super::*;

    #[test]
    fn the_same_upstream_is_one_and_a_different_one_is_not() {
        let directory = Directory::new(Rc::new(NoMetrics));
        let [one, other] = ["192.0.2.1:53", "192.0.2.2:53"].map(|to| Target::plain(to.parse().unwrap()));
        let plain = Config::new(crate::wire::Name::root(), vec![one.clone(), other.clone()]);
        let patient = Config { max_fails: 9, ..plain.clone() };
        let sequential = Config { max_concurrent: Some(7), ..plain.clone() };
        let get = |target, config| directory.upstream(target, config, None).unwrap();
        let first = get(&one, &plain);
        assert!(Rc::ptr_eq(&first, &get(&one, &sequential)));
        assert!(!Rc::ptr_eq(&first, &get(&one, &patient)));
        assert!(!Rc::ptr_eq(&first, &get(&other, &plain)));
        drop(first);
        assert_eq!(directory.known.borrow().iter().filter(|(_, weak)| weak.strong_count() > 0).count(), 0);
    }
}
