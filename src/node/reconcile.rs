//! The thread that keeps a part of the node's state as it should be.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::Node;
use super::monitor::{Change, Monitor};

/// Changes of rules come in bursts (a flush is a notification for each): look once, when it is over. Without
/// the link nobody is answered: that is looked at immediately, but not again within this time.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// The shortest interval, which also stands in for zero; and the time in which rules are taken over
/// from another process that held them: their end is not announced.
const SHORTEST: Duration = Duration::from_secs(1);

/// Differences between the wanted and the found state, and what became of them.
#[derive(Debug, Default)]
pub struct Drift {
    /// 1 when the link had to be created.
    pub links: usize,
    /// Addresses added or removed.
    pub addresses: usize,
    /// Rules added or removed.
    pub rules: usize,
    /// What could not be compared or repaired.
    pub errors: Vec<super::Error>,
}

impl Drift {
    /// Whether all was as it should be.
    pub fn is_none(&self) -> bool {
        self.repairs() == 0 && self.errors.is_empty()
    }

    /// Repairs of all kinds.
    pub fn repairs(&self) -> usize {
        self.links + self.addresses + self.rules
    }
}

/// Why the state was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The interval elapsed.
    Interval,
    /// The kernel announced a change, or may have before the watch began.
    Notification,
}

/// One comparison.
#[derive(Debug)]
pub struct Event {
    /// Why.
    pub trigger: Trigger,
    /// With what outcome.
    pub drift: Drift,
}

/// A part of the node's state: the thread compares it with what is there.
pub trait Kept: Send + 'static {
    /// Compares what is wanted with what is there, and repairs it.
    fn reconcile(&mut self) -> Drift;

    /// Whether `change` may have touched it.
    fn concerned_by(&self, change: Change<'_>) -> bool;

    /// Whether to look every second: what is waited for is announced to nobody.
    fn is_waiting(&self) -> bool {
        false
    }
}

/// Why the thread could not be started. The node comes back unchanged.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch the node's state: {reason}")]
pub struct SpawnError<K = Node> {
    /// What was to be watched.
    pub node: Box<K>,
    /// What failed.
    pub reason: String,
}

/// The running thread, `node`. Dropping it stops and joins it; the state stays as it is, except
/// for what ends with its owner.
#[derive(Debug)]
pub struct Reconciler<K = Node> {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<K>>,
}

impl<K: Kept> Reconciler<K> {
    /// Watches over what `node` has set up: at once, at every `interval` (at least 1 s), and when the kernel
    /// announces a change to it: immediately to the link, after about 100 ms to rules. `on_event` is called
    /// from the thread after each comparison, whatever its outcome.
    pub fn spawn(
        node: K,
        interval: Duration,
        on_event: impl Fn(Event) + Send + 'static,
    ) -> Result<Reconciler<K>, SpawnError<K>> {
        let prepared = Monitor::open().map_err(|e| e.to_string()).and_then(|monitor| {
            let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(|e| e.to_string())?;
            Ok((monitor, Arc::new(stop)))
        });
        let (monitor, stop) = match prepared {
            Ok(prepared) => prepared,
            Err(reason) => {
                let node = Box::new(node);
                return Err(SpawnError { node, reason });
            }
        };
        let watched = Watch { node, monitor, stop: Arc::clone(&stop), interval: interval.max(SHORTEST) };
        let thread = std::thread::spawn(move || watched.run(on_event));
        Ok(Reconciler { stop, thread: Some(thread) })
    }

    /// Ends the thread, waiting for a repair in progress, and gives the node back: from here on
    /// nothing races with its teardown.
    pub fn stop(mut self) -> K {
        match self.join() {
            Some(Ok(node)) => node,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => unreachable!("the thread is joined by stop or by drop, never both"),
        }
    }
}

impl<K> Reconciler<K> {
    fn join(&mut self) -> Option<std::thread::Result<K>> {
        let thread = self.thread.take()?;
        // Fails only when the counter is full, that is when it was told already.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        Some(thread.join())
    }
}

impl<K> Drop for Reconciler<K> {
    fn drop(&mut self) {
        self.join();
    }
}

struct Watch<K> {
    node: K,
    monitor: Monitor,
    stop: Arc<OwnedFd>,
    interval: Duration,
}

impl<K: Kept> Watch<K> {
    fn run(mut self, on_event: impl Fn(Event)) -> K {
        // A thread without its name works as well.
        let _ = rustix::thread::set_name(c"node");
        let mut by_interval = self.next_by_interval();
        let mut by_notification: Option<Instant> = None;
        let drift = self.node.reconcile();
        let mut looked = Instant::now();
        on_event(Event { trigger: Trigger::Notification, drift });
        loop {
            let due = by_interval.into_iter().chain(by_notification).min();
            if self.wait(due) {
                return self.node;
            }
            let link = Cell::new(false);
            let concerned = self.monitor.drain(|change| {
                let concerned = self.node.concerned_by(change);
                link.set(link.get() || concerned && matches!(change, Change::Route(_)));
                concerned
            });
            let now = Instant::now();
            if concerned {
                let due = if link.get() { looked + DEBOUNCE } else { now + DEBOUNCE };
                by_notification = Some(by_notification.map_or(due, |earlier| earlier.min(due)));
            }
            let elapsed = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
            let trigger = match (elapsed(by_notification), elapsed(by_interval)) {
                (true, _) => Trigger::Notification,
                (false, true) => Trigger::Interval,
                (false, false) => continue,
            };
            let drift = self.node.reconcile();
            looked = Instant::now();
            on_event(Event { trigger, drift });
            by_notification = None;
            by_interval = self.next_by_interval();
        }
    }

    /// `None`: farther off than the clock can say.
    fn next_by_interval(&self) -> Option<Instant> {
        let interval = if self.node.is_waiting() { SHORTEST } else { self.interval };
        Instant::now().checked_add(interval)
    }

    /// Waits for a notification, the stop signal or `until`. Returns whether it was the stop signal.
    fn wait(&self, until: Option<Instant>) -> bool {
        let left = until.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let [route, netfilter] = self.monitor.sockets();
        let mut waiting = [
            PollFd::new(&*self.stop, PollFlags::IN),
            PollFd::from_borrowed_fd(route, PollFlags::IN),
            PollFd::from_borrowed_fd(netfilter, PollFlags::IN),
        ];
        match poll(&mut waiting, timeout.as_ref()) {
            Ok(_) => !waiting[0].revents().is_empty(),
            Err(Errno::INTR) => false,
            // Nothing that poll(2) can refuse here mends itself: end rather than spin.
            Err(_) => true,
        }
    }
}
