//! Stopping: tell everyone, with a deadline, and wait until everyone is done.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// The side that says stop and waits.
#[derive(Debug)]
pub struct Shutdown(Arc<Shared>);

/// The side that is told. Each worker holds one (clones count) and drops it when it is done.
#[derive(Debug)]
pub struct Watch(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// A copy of `state.deadline.is_some()` that a hot loop can look at without taking the lock.
    stopping: AtomicBool,
    state: Mutex<State>,
    /// Wakes threads.
    changed: Condvar,
    /// Wakes tasks.
    notify: Notify,
}

#[derive(Debug, Default)]
struct State {
    deadline: Option<Instant>,
    watches: usize,
}

impl Shutdown {
    /// Nobody watches yet, and nothing was said.
    #[allow(clippy::new_without_default, reason = "a default nobody stops is a mistake")]
    pub fn new() -> Shutdown {
        Shutdown(Arc::default())
    }

    /// One more worker to wait for.
    pub fn watch(&self) -> Watch {
        Watch::register(&self.0)
    }

    /// Says stop: work that is not done at `deadline` will be abandoned. Said again, an earlier
    /// deadline replaces a later one.
    pub fn stop(&self, deadline: Instant) {
        let mut state = self.0.lock();
        let sooner = state.deadline.map_or(deadline, |set| set.min(deadline));
        state.deadline = Some(sooner);
        self.0.stopping.store(true, Ordering::Release);
        self.0.announce(state);
    }

    /// Waits until every [`Watch`] is dropped, or until the deadline given to
    /// [`stop`](Shutdown::stop) is over. Returns how many watches are left.
    pub async fn drained(&self) -> usize {
        let stop_or_drained = |state: &State| match state.deadline {
            Some(deadline) => Some(Some(deadline)),
            None => (state.watches == 0).then_some(None),
        };
        if let Some(deadline) = self.0.until(stop_or_drained).await {
            let drained = self.0.until(|state| (state.watches == 0).then_some(()));
            // Late or not, the count tells.
            let _ = tokio::time::timeout_at(deadline.into(), drained).await;
        }
        self.0.lock().watches
    }

    /// [`drained`](Shutdown::drained) for a thread without a runtime.
    pub fn drained_blocking(&self) -> usize {
        let mut state = self.0.lock();
        while state.watches > 0 {
            let left = state.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            state = match left {
                Some(Duration::ZERO) => break,
                Some(left) => self.0.wait_timeout(state, left),
                None => self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        state.watches
    }
}

impl Watch {
    fn register(shared: &Arc<Shared>) -> Watch {
        shared.lock().watches += 1;
        Watch(Arc::clone(shared))
    }

    /// Whether stop was said. One load of a line that nobody writes, fit for a loop over packets.
    #[inline]
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }

    /// When unfinished work will be abandoned; `None` before stop was said.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.lock().deadline
    }

    /// Waits for the stop and returns its deadline.
    pub async fn stopped(&self) -> Instant {
        self.0.until(|state| state.deadline).await
    }

    /// Blocks the thread until the stop or for `timeout`. Returns the deadline if stop was said.
    pub fn stopped_within(&self, timeout: Duration) -> Option<Instant> {
        let end = Instant::now().checked_add(timeout);
        let mut state = self.0.lock();
        while state.deadline.is_none() {
            let left = end.map_or(timeout, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            state = self.0.wait_timeout(state, left);
        }
        state.deadline
    }
}

impl Clone for Watch {
    fn clone(&self) -> Watch {
        Watch::register(&self.0)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.watches -= 1;
        self.0.announce(state);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self, state: MutexGuard<'_, State>) {
        drop(state);
        self.changed.notify_all();
        self.notify.notify_waiters();
    }

    fn wait_timeout<'a>(&'a self, state: MutexGuard<'a, State>, timeout: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, timeout);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    async fn until<T>(&self, reached: impl Fn(&State) -> Option<T>) -> T {
        loop {
            // Listening before looking: what is announced in between wakes us.
            let mut announced = std::pin::pin!(self.notify.notified());
            announced.as_mut().enable();
            if let Some(value) = reached(&self.lock()) {
                return value;
            }
            announced.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn tasks_are_told_and_waited_for() {
        let shutdown = Shutdown::new();
        let watch = shutdown.watch();
        let clone = watch.clone();
        assert!(!watch.is_stopping());
        assert_eq!(watch.deadline(), None);
        let task = tokio::spawn(async move {
            let deadline = clone.stopped().await;
            drop(clone);
            deadline
        });
        tokio::task::yield_now().await;
        let deadline = soon();
        shutdown.stop(deadline);
        assert!(watch.is_stopping());
        assert_eq!(task.await.unwrap(), deadline);
        drop(watch);
        assert_eq!(shutdown.drained().await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_ends_at_the_deadline() {
        let shutdown = Shutdown::new();
        let _stuck = shutdown.watch();
        shutdown.stop(Instant::now());
        assert_eq!(shutdown.drained().await, 1);
        assert_eq!(shutdown.drained_blocking(), 1);
    }

    #[test]
    fn an_earlier_deadline_wins() {
        let shutdown = Shutdown::new();
        let watch = shutdown.watch();
        let early = Instant::now();
        shutdown.stop(early);
        shutdown.stop(early + Duration::from_secs(1));
        assert_eq!(watch.deadline(), Some(early));
    }

    #[test]
    fn threads_are_told_and_waited_for() {
        let shutdown = Shutdown::new();
        let watch = shutdown.watch();
        assert_eq!(watch.stopped_within(Duration::ZERO), None);
        let thread = std::thread::spawn(move || watch.stopped_within(Duration::from_secs(60)).is_some());
        let start = Instant::now();
        shutdown.stop(soon());
        assert_eq!(shutdown.drained_blocking(), 0);
        assert!(thread.join().unwrap());
        assert!(start.elapsed().as_secs() < 30, "woken by nothing but time");
    }
}
