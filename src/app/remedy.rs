//! `doorstep remedy`: a remedy at work until a signal ends it.

use std::time::Instant;

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{complain, print};
use crate::node::remedy::{self, Cure, Order, Remedy, random_fully};
use crate::node::{self, Event, Kept, Reconciler};

/// Puts the remedy in place, keeps it there until SIGTERM, SIGINT or SIGHUP, and undoes it. Returns the
/// exit status.
pub fn run(order: &Order) -> i32 {
    if let Cure::RandomFully(random_fully::Config { apply: false }) = order.cure {
        return report();
    }
    let log = crate::logging::start();
    if let Err(error) = &log {
        complain(format_args!("doorstep: there will be no log: {error}"));
    }
    match serve(order) {
        Ok(()) => 0,
        Err(message) => {
            // After what was logged before.
            drop(log);
            complain(format_args!("doorstep: {message}"));
            1
        }
    }
}

/// Says which rules lack the flag; the log would keep standard output to itself.
fn report() -> i32 {
    match random_fully::lacking() {
        Ok(found) => print(random_fully::report(&found)),
        Err(error) => {
            complain(format_args!("doorstep: remedy random-fully: {error}"));
            return 1;
        }
    }
    0
}

fn serve(order: &Order) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    if node::missing_capabilities().contains(&"CAP_NET_ADMIN") {
        return Err(format!("remedy {}: CAP_NET_ADMIN is missing; run it as root", order.name()));
    }
    // Before anything is changed: a signal from here on ends in an undoing.
    let mut ended = runtime.block_on(async { Ended::listen() }).map_err(|error| error.to_string())?;
    let mut remedy = remedy::start(order).map_err(|error| error.to_string())?;
    let first = remedy.reconcile();
    if let Some(error) = first.errors.first() {
        let message = error.to_string();
        undo(&mut *remedy);
        return Err(format!("remedy {}: {message}", order.name()));
    }
    tracing::info!("remedy {} is in place", remedy.name());
    let name = remedy.name();
    match Reconciler::spawn(remedy, order.interval, move |event| note(name, &event)) {
        Ok(reconciler) => {
            runtime.block_on(ended.wait());
            undo(&mut *reconciler.stop());
        }
        Err(error) => {
            tracing::error!("{error}; {name} is not watched");
            runtime.block_on(ended.wait());
            let mut remedy = error.node;
            undo(&mut **remedy);
        }
    }
    Ok(())
}

fn undo(remedy: &mut dyn Remedy) {
    let started = Instant::now();
    let errors = remedy.undo();
    errors.iter().for_each(|error| tracing::error!("{}: {error}", remedy.name()));
    tracing::info!("remedy {} is undone, in {:.1?}", remedy.name(), started.elapsed());
}

fn note(name: &str, event: &Event) {
    let drift = &event.drift;
    if drift.repairs() > 0 {
        tracing::warn!("{name}: put back {} that were otherwise", drift.repairs());
    }
    drift.errors.iter().for_each(|error| tracing::error!("{name}: {error}"));
}

struct Ended([tokio::signal::unix::Signal; 3]);

impl Ended {
    fn listen() -> std::io::Result<Ended> {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        let [terminate, interrupt, hangup] = kinds.map(signal);
        Ok(Ended([terminate?, interrupt?, hangup?]))
    }

    async fn wait(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
