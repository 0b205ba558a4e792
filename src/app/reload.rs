//! When to look for a new configuration, and what to say about it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::environment::NodeEnvironment;
use crate::cli::Args;
use crate::config::{Config, LoadError, Options, Watch};
use crate::metrics::{Counter, Registry, names};

/// node-cache looks at the template and the kube-dns ConfigMap this often.
const TEMPLATE_INTERVAL: Duration = Duration::from_secs(10);

/// Watches what the configuration was made from.
pub struct Reloader {
    options: Options,
    watch: Watch,
    environment: NodeEnvironment,
    fingerprint: u64,
    by_itself: bool,
    announced: bool,
    ticks: Interval,
    registry: Registry,
    failures: Arc<Counter>,
}

impl Reloader {
    /// Watches what `watch` loaded as `config`.
    pub fn new(args: &Args, watch: Watch, config: &Config, registry: &Registry) -> Reloader {
        let period = config.reload.map_or(TEMPLATE_INTERVAL, |reload| reload.interval.min(TEMPLATE_INTERVAL));
        let mut ticks = interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Reloader {
            options: args.options(),
            watch,
            environment: NodeEnvironment::new(args),
            fingerprint: config.fingerprint,
            by_itself: config.reload.is_some() || args.reload_with_signal,
            announced: false,
            ticks,
            registry: registry.clone(),
            failures: registry.counter(&names::RELOAD_FAILED, []),
        }
    }

    /// Waits until it is time to look.
    pub async fn due(&mut self) {
        self.ticks.tick().await;
    }

    /// Whether there is a configuration other than the one in effect, and it is good; `forced`: looks
    /// even if no file changed, and without `reload` in the Corefile.
    pub fn look(&mut self, forced: bool) -> bool {
        let changed = self.by_itself && self.watch.changed(&self.environment);
        if !forced && !changed {
            return false;
        }
        match self.watch.load(&self.options, &self.environment) {
            Ok(config) if config.fingerprint == self.fingerprint => {
                tracing::debug!("plugin/reload: the configuration means what it meant");
                false
            }
            Ok(_) => true,
            Err(error) => {
                if matches!(error, LoadError::KubeDns(_)) {
                    self.registry.counter(&names::SETUP_ERRORS, ["configmap"]).inc();
                }
                self.failed(&error.to_string());
                false
            }
        }
    }

    /// Notes that nobody but this worker answers: its configuration is in effect. Says whether that is
    /// news.
    pub fn in_effect(&mut self) -> bool {
        if std::mem::replace(&mut self.announced, true) {
            return false;
        }
        let value = format!("{:016x}", self.fingerprint);
        self.registry.gauge(&names::RELOAD_VERSION_INFO, ["fingerprint", &value]).set(1);
        tracing::info!("plugin/reload: running configuration {value}");
        true
    }

    /// Notes that a new configuration was refused, and why; the old one serves on.
    pub fn failed(&self, reason: &str) {
        self.failures.inc();
        tracing::error!("plugin/reload: the old configuration serves on, the new one is refused: {reason}");
    }
}
