//! Log lines as CoreDNS writes them, `[LEVEL] text` on standard output, without ever waiting for it.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use crate::metrics::Counter;

/// Lines that may wait for a slow reader of the log; more are dropped and counted.
const QUEUE: usize = 8192;

static DEBUG: AtomicBool = AtomicBool::new(false);
static DROPPED: OnceLock<Arc<Counter>> = OnceLock::new();

/// The running log. Dropping it writes out what waits.
pub struct Log {
    lines: Sender<Message>,
    thread: Option<JoinHandle<()>>,
}

enum Message {
    Line(Vec<u8>),
    End,
}

/// Sends the log of this process to standard output. To be called once.
pub fn start() -> io::Result<Log> {
    // A channel without a bound of its own: one with a bound holds the memory of all its places.
    let (lines, written) = channel();
    let queue = Queue { lines: lines.clone(), waiting: Arc::default() };
    let waiting = queue.waiting.clone();
    let thread = thread::Builder::new()
        .name("log".into())
        .stack_size(64 * 1024)
        .spawn(move || write(&written, &waiting))?;
    let layer = tracing_subscriber::fmt::layer().event_format(CorednsFormat).with_writer(queue);
    let filter = tracing_subscriber::filter::filter_fn(is_shown);
    // The only error is that a subscriber is there already, as in a test that starts two servers.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer).with(filter));
    Ok(Log { lines, thread: Some(thread) })
}

/// Shows debug lines from now on, or not.
pub fn set_debug(on: bool) {
    DEBUG.store(on, Relaxed);
    tracing::callsite::rebuild_interest_cache();
}

/// Counts dropped lines in `counter`.
pub fn count_dropped(counter: Arc<Counter>) {
    let _ = DROPPED.set(counter);
}

fn is_shown(metadata: &Metadata<'_>) -> bool {
    let own = metadata.target().starts_with("doorstep");
    let most = match (own, DEBUG.load(Relaxed)) {
        (true, true) => Level::DEBUG,
        (true, false) => Level::INFO,
        (false, _) => Level::WARN,
    };
    *metadata.level() <= most
}

fn write(lines: &Receiver<Message>, waiting: &AtomicUsize) {
    let mut out = io::stdout().lock();
    while let Ok(Message::Line(line)) = lines.recv() {
        waiting.fetch_sub(1, Relaxed);
        // There is nobody to tell that the log is gone.
        let _ = out.write_all(&line);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if self.lines.send(Message::End).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

struct CorednsFormat;

impl<S, N> FormatEvent<S, N> for CorednsFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARNING",
            Level::INFO => "INFO",
            _ => "DEBUG",
        };
        write!(out, "[{level}] ")?;
        context.field_format().format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}

/// The way to the thread that writes.
#[derive(Clone)]
struct Queue {
    lines: Sender<Message>,
    /// Lines sent and not yet taken.
    waiting: Arc<AtomicUsize>,
}

impl Queue {
    /// Hands a line over; `false` when too many wait already.
    fn push(&self, line: Vec<u8>) -> bool {
        if self.waiting.fetch_add(1, Relaxed) < QUEUE && self.lines.send(Message::Line(line)).is_ok() {
            return true;
        }
        self.waiting.fetch_sub(1, Relaxed);
        false
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { queue: self, octets: Vec::with_capacity(128) }
    }
}

/// One line, queued when it is complete.
struct Line<'a> {
    queue: &'a Queue,
    octets: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.octets.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if !self.queue.push(std::mem::take(&mut self.octets))
            && let Some(dropped) = DROPPED.get()
        {
            dropped.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_the_bound_is_not_kept() {
        let (lines, written) = channel();
        let queue = Queue { lines, waiting: Arc::default() };
        assert!((0..QUEUE).all(|_| queue.push(Vec::new())));
        assert!(!queue.push(Vec::new()));
        assert_eq!(written.try_iter().count(), QUEUE);
        assert_eq!(queue.waiting.load(Relaxed), QUEUE);
    }
}
