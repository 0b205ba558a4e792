//! Timers that outlive what they were set for.
//!
//! Most queries are answered long before their timer rings, and to enter a timer into the runtime's wheel and
//! to take it out again costs more than all else about it. Tokio moves one that is set to a later time without
//! touching the wheel, so a timer is left where it is for the next query, which sets it to a later time.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// Timers kept at most.
const KEPT: usize = 64;

/// See the [module](self).
#[derive(Default)]
pub(super) struct Alarms {
    idle: RefCell<Vec<Pin<Box<Sleep>>>>,
}

/// A timer on loan. Before its time it may wake the task that had it last, which then has nothing to do.
pub(super) struct Alarm<'a> {
    alarms: &'a Alarms,
    /// Gone only once it is dropped.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarms {
    /// One to be [set](Alarm::set), at `deadline` at the latest.
    pub(super) fn lend(&self, deadline: Instant) -> Alarm<'_> {
        let idle = self.idle.borrow_mut().pop();
        Alarm { alarms: self, sleep: Some(idle.unwrap_or_else(|| Box::pin(sleep_until(deadline)))) }
    }
}

impl Alarm<'_> {
    /// Has it ring at `deadline`.
    pub(super) fn set(&mut self, deadline: Instant) {
        if let Some(sleep) = &mut self.sleep
            && sleep.deadline() != deadline
        {
            sleep.as_mut().reset(deadline);
        }
    }

    /// Ready once it rings.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().map_or(Poll::Pending, |sleep| sleep.as_mut().poll(context))
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        let mut idle = self.alarms.idle.borrow_mut();
        if idle.len() < KEPT {
            idle.extend(self.sleep.take());
        }
    }
}
