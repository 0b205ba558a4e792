//! The tasks in which flights take place.
//!
//! To make a task and to take it apart costs more than what most flights do in it, so one that is done waits
//! for the next flight.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::Resolve;
use super::flight::Flight;

/// Tasks that wait at most.
const KEPT: usize = 64;

/// See the [module](self).
pub(super) struct Crew<R: Resolve> {
    idle: RefCell<Vec<Rc<Seat<R>>>>,
}

/// Where a task gets its next flight.
struct Seat<R: Resolve> {
    flight: Cell<Option<Flight<R>>>,
    waker: Cell<Option<Waker>>,
}

impl<R: Resolve> Crew<R> {
    pub(super) fn new() -> Rc<Crew<R>> {
        Rc::new(Crew { idle: RefCell::default() })
    }

    /// Has `flight` take place. To be called on a `LocalSet`.
    pub(super) fn fly(self: &Rc<Self>, flight: Flight<R>) {
        let idle = self.idle.borrow_mut().pop();
        match idle {
            Some(seat) => seat.take(flight),
            None => {
                let seat = Rc::new(Seat { flight: Cell::new(Some(flight)), waker: Cell::default() });
                tokio::task::spawn_local(Rc::clone(self).work(seat));
            }
        }
    }

    async fn work(self: Rc<Self>, seat: Rc<Seat<R>>) {
        loop {
            let mut flight = seat.next().await;
            // A panic in it ends this task, and no other.
            flight.fly().await;
            drop(flight);
            if self.idle.borrow().len() >= KEPT {
                return;
            }
            self.idle.borrow_mut().push(Rc::clone(&seat));
        }
    }
}

impl<R: Resolve> Seat<R> {
    fn take(&self, flight: Flight<R>) {
        self.flight.set(Some(flight));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    async fn next(&self) -> Flight<R> {
        poll_fn(|context| match self.flight.take() {
            Some(flight) => Poll::Ready(flight),
            None => {
                self.waker.set(Some(context.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}
