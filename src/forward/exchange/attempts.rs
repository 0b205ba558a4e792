//! Futures of which the first to end is wanted.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use super::super::alarms::Alarm;

/// Hardly ever more than one at a time, for which there is a place, so that nothing is allocated for it.
pub(super) struct Attempts<'a, F> {
    place: Pin<&'a mut Option<F>>,
    others: Vec<Pin<Box<F>>>,
}

impl<'a, F: Future> Attempts<'a, F> {
    /// None yet.
    pub(super) fn new(place: Pin<&'a mut Option<F>>) -> Attempts<'a, F> {
        Attempts { place, others: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.place.is_none() && self.others.is_empty()
    }

    pub(super) fn add(&mut self, attempt: F) {
        if self.place.is_none() {
            self.place.set(Some(attempt));
        } else {
            self.others.push(Box::pin(attempt));
        }
    }

    /// What the first one to end ends with, or `None` when the alarm rings before.
    pub(super) async fn first(&mut self, alarm: &mut Alarm<'_>) -> Option<F::Output> {
        poll_fn(|context| {
            if let Some(attempt) = self.place.as_mut().as_pin_mut()
                && let Poll::Ready(output) = attempt.poll(context)
            {
                self.place.set(None);
                return Poll::Ready(Some(output));
            }
            for index in 0..self.others.len() {
                if let Poll::Ready(output) = self.others[index].as_mut().poll(context) {
                    drop(self.others.swap_remove(index));
                    return Poll::Ready(Some(output));
                }
            }
            alarm.poll(context).map(|()| None)
        })
        .await
    }
}
