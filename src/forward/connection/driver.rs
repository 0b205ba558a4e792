//! What moves a connection's octets.

use std::future::Future;
use std::mem;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

use super::super::dial::Stream;
use super::super::error::Reason;
use super::super::frame::FrameReader;
use super::{BUSY, Connection, Delivery};

/// The task behind a connection.
pub(super) struct Driver<S> {
    stream: S,
    reader: FrameReader,
    connection: Rc<Connection>,
    alarm: Pin<Box<Sleep>>,
    /// Whether what was read is still to be acknowledged.
    owes_acknowledgement: bool,
}

impl<S: Stream> Future for Driver<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let connection = Rc::clone(&self.connection);
        match self.turn(context) {
            Ok(()) => Poll::Pending,
            Err(reason) => {
                connection.close(reason);
                Poll::Ready(())
            }
        }
    }
}

impl<S: Stream> Driver<S> {
    pub(super) fn new(stream: S, connection: Rc<Connection>) -> Driver<S> {
        let alarm = Box::pin(sleep_until(connection.opened + connection.remote.expire));
        Driver { stream, reader: FrameReader::default(), connection, alarm, owes_acknowledgement: false }
    }

    /// Moves what can be moved. An error ends the connection.
    fn turn(&mut self, context: &mut Context<'_>) -> Result<(), Reason> {
        self.write(context)?;
        self.read(context)?;
        let state = self.connection.state.borrow();
        if state.retired && state.in_flight.waiting() == 0 {
            return Err(Reason::Closed);
        }
        drop(state);
        self.expire_if_idle(context)
    }

    fn write(&mut self, context: &mut Context<'_>) -> Result<(), Reason> {
        let mut state = self.connection.state.borrow_mut();
        if let Some(reason) = &state.closed {
            return Err(reason.clone());
        }
        match &state.driver {
            Some(waker) if waker.will_wake(context.waker()) => {}
            _ => state.driver = Some(context.waker().clone()),
        }
        let writes = state.outbox.len() > 0;
        if mem::take(&mut self.owes_acknowledgement) && !writes {
            self.stream.acknowledge();
        }
        match state.outbox.poll_drain(&mut self.stream, context) {
            Poll::Ready(Err(error)) => Err(Reason::from(&error)),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Reads until the stream has no more. Tokio's streams yield by themselves when a peer never
    /// stops sending.
    fn read(&mut self, context: &mut Context<'_>) -> Result<(), Reason> {
        loop {
            match self.reader.poll_fill(&mut self.stream, context) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(Reason::from(&error)),
                Poll::Ready(Ok(0)) => return Err(Reason::Closed),
                Poll::Ready(Ok(_)) => {}
            }
            let now = Instant::now();
            let mut state = self.connection.state.borrow_mut();
            while let Some(frame) = self.reader.take().map_err(|_| Reason::Garbage)? {
                let remote = &self.connection.remote;
                let delivery = state.deliver(frame, now)?;
                if delivery.is_some() {
                    remote.flow.answered(now);
                    if state.lag > BUSY {
                        remote.slow.set(Some(now));
                    }
                }
                match delivery {
                    Some(Delivery::InOrder) => {}
                    Some(Delivery::Overtaken) => remote.overtaken.set(Some(now)),
                    None => remote.metrics.unrelated(remote.to),
                }
            }
            // What is owed may wait for it. A query does it, too: those that are ready to be sent go first.
            if state.in_flight.unanswered() > 0 && !mem::replace(&mut self.owes_acknowledgement, true) {
                wake_after_others(context);
            }
        }
    }

    /// The alarm is set for the earliest moment at which the connection can have been idle long
    /// enough, and moved only when it rings: queries never touch it.
    fn expire_if_idle(&mut self, context: &mut Context<'_>) -> Result<(), Reason> {
        let expire = self.connection.remote.expire;
        while self.alarm.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            let state = self.connection.state.borrow();
            let idle_since = if state.in_flight.waiting() == 0 { state.idle_since } else { now };
            if now >= idle_since + expire {
                return Err(Reason::Closed);
            }
            self.alarm.as_mut().reset(idle_since + expire);
        }
        Ok(())
    }
}

/// Has the task woken once all that is ready has run and the kernel was asked for more: what polling
/// `yield_now` for the first time does.
fn wake_after_others(context: &mut Context<'_>) {
    let _ = pin!(tokio::task::yield_now()).poll(context);
}
