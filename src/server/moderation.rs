//! Rest between turns while misses come fast, as network cards hold interrupts back under load.
//!
//! A turn of the thread that asks upstreams costs a wake-up, and a read and a write per connection,
//! however little there is to do. Sleeping a moment between two turns lets one turn serve several
//! misses. While they are few nobody sleeps.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;

use crate::clock::nanoseconds;

/// Misses are counted over this long, nanoseconds.
const WINDOW: u64 = 8_000_000;
/// So many in a window are a load: 6 000 a second. What is left of one client's flood must not be, or the others'
/// misses would rest with it: 3 000 a second, in bursts as the machine lets it send.
const LOAD: u32 = 48;
/// So many misses are to gather during a rest.
const TOGETHER: u32 = 16;
/// No rest is longer, nanoseconds. The kernel adds its timer slack, 50 µs. A miss waits for one rest at most until
/// it is sent, and its answer for another: benches/README.md has what that costs and saves.
const MAX_REST: u64 = 2_000_000;

/// Tells when to rest.
#[derive(Debug, Default)]
pub struct Moderation {
    /// When the window began, nanoseconds on the monotonic clock.
    began: Cell<u64>,
    /// Misses since then.
    count: Cell<u32>,
    /// Of the window before.
    before: Cell<u32>,
    /// Whether anything was done since the last rest.
    worked: Cell<bool>,
}

impl Moderation {
    /// A miss came.
    pub fn taken_in(&self) {
        self.count.set(self.count.get() + 1);
        self.worked.set(true);
    }

    /// A reply went.
    pub fn replied(&self) {
        self.worked.set(true);
    }

    /// Whether misses come so fast that it pays to let them gather.
    pub fn is_due(&self) -> bool {
        self.before.get() >= LOAD
    }

    /// Runs `future`, a whole thread's work, and sleeps after its turns when that is due.
    pub async fn moderate<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let outer = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
        let turn =
            Arc::new(Turn { thread: thread::current().id(), unfinished: AtomicBool::new(false), outer });
        let waker = Waker::from(turn.clone());
        poll_fn(|_| {
            turn.unfinished.store(false, Relaxed);
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            if polled.is_pending()
                && !turn.unfinished.load(Relaxed)
                && self.worked.take()
                && let Some(rest) = self.rest(nanoseconds())
            {
                // The thread, not the task: nothing of it shall run.
                thread::sleep(rest);
            }
            polled
        })
        .await
    }

    /// How long to rest at `now`, nanoseconds on the monotonic clock.
    fn rest(&self, now: u64) -> Option<Duration> {
        let elapsed = now.saturating_sub(self.began.get());
        if elapsed >= WINDOW {
            let count = self.count.take();
            // A window that nobody closed in time was a quiet one.
            self.before.set(if elapsed < 2 * WINDOW { count } else { 0 });
            self.began.set(now);
        }
        let gathering = WINDOW * u64::from(TOGETHER) / u64::from(self.before.get().max(1));
        self.is_due().then(|| Duration::from_nanos(gathering.min(MAX_REST)))
    }
}

/// Wakes the thread's future, and notices when the thread itself does: then there is more to do than was done
/// in this turn, which is no time to rest. What comes from other threads can wait.
struct Turn {
    thread: ThreadId,
    unfinished: AtomicBool,
    outer: Waker,
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if thread::current().id() == self.thread {
            self.unfinished.store(true, Relaxed);
        }
        self.outer.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_lone_miss_is_never_held_back() {
        let moderation = Moderation::default();
        for second in 1..100 {
            moderation.taken_in();
            assert_eq!(moderation.rest(second * 1000 * MS), None);
        }
    }

    #[test]
    fn a_load_is_and_its_end_is_noticed() {
        let moderation = Moderation::default();
        let mut now = 1000 * MS;
        let mut rests = 0;
        for _ in 0..100 {
            now += MS;
            (0..LOAD).for_each(|_| moderation.taken_in());
            rests += u32::from(moderation.rest(now).is_some());
        }
        assert!(rests > 90, "{rests}");
        assert!(moderation.is_due());
        moderation.taken_in();
        assert_eq!(moderation.rest(now + 1000 * MS), None);
        assert!(!moderation.is_due());
    }

    /// Some 3 100 a second, a flood's share and another client's, two dozen at a time: the others' misses must not
    /// wait for it.
    #[test]
    fn what_one_client_may_send_is_no_load() {
        let moderation = Moderation::default();
        for burst in 0..1000 {
            (0..22).for_each(|_| moderation.taken_in());
            assert_eq!(moderation.rest(1000 * MS + burst * 7 * MS), None, "{burst}");
        }
    }

    #[test]
    fn the_more_come_the_shorter_it_rests() {
        let rest_at = |per_second: u32| {
            let moderation = Moderation::default();
            moderation.rest(1000 * MS);
            (0..per_second / 125).for_each(|_| moderation.taken_in());
            moderation.rest(1008 * MS).map(|rest| rest.as_micros())
        };
        assert_eq!([5_000, 6_000, 8_000, 40_000].map(rest_at), [None, Some(2000), Some(2000), Some(400)]);
    }

    #[tokio::test]
    async fn what_is_not_finished_is_not_held_back() {
        let moderation = Moderation { before: Cell::new(LOAD), ..Moderation::default() };
        let started = Instant::now();
        let steps = async {
            for _ in 0..1000 {
                // The load does not end.
                moderation.began.set(nanoseconds());
                moderation.taken_in();
                let mut again = true;
                // Wakes itself, as a LocalSet does that has more tasks than a turn takes.
                poll_fn(|context| {
                    context.waker().wake_by_ref();
                    if std::mem::take(&mut again) { Poll::Pending } else { Poll::Ready(()) }
                })
                .await;
            }
        };
        moderation.moderate(steps).await;
        assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    }
}
