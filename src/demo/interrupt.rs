//! SIGINT, SIGTERM and SIGHUP as a value, so that the cluster is removed before the process ends.

use std::io::{self, Read};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::DemoError;

/// From here on the three signals no longer end the process; they are reported here.
#[derive(Debug)]
pub(super) struct Interrupt {
    received: Receiver<()>,
    report: Sender<()>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Interrupt {
    pub(super) fn watch() -> Result<Interrupt, DemoError> {
        let (report, received) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let (ready, watching) = mpsc::channel();
        let reporter = report.clone();
        let thread = thread::Builder::new()
            .name("signals".into())
            .spawn(move || watch(&ready, stopped, &reporter))
            .map_err(fail())?;
        match watching.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(fail()(error)),
            Err(_) => return Err(fail()(io::ErrorKind::BrokenPipe.into())),
        }
        Ok(Interrupt { received, report, stop: Some(stop), thread: Some(thread) })
    }

    /// Sleeps; a signal ends the sleep with [`DemoError::Interrupted`].
    pub(super) fn sleep(&self, duration: Duration) -> Result<(), DemoError> {
        match self.received.recv_timeout(duration) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            _ => Err(DemoError::Interrupted),
        }
    }

    /// Fails when a signal came since the start.
    pub(super) fn check(&self) -> Result<(), DemoError> {
        self.sleep(Duration::ZERO)
    }

    /// Waits for a signal or the end of the standard input.
    pub(super) fn wait(&self) {
        let report = self.report.clone();
        // Never joined: a read cannot be cut short. It ends with the process.
        thread::spawn(move || {
            let mut ignored = [0; 256];
            while io::stdin().read(&mut ignored).is_ok_and(|read| read > 0) {}
            report.send(())
        });
        // The sender above or our own is alive, so this cannot fail.
        let _ = self.received.recv();
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn fail() -> impl FnOnce(io::Error) -> DemoError {
    DemoError::io("listen for signals")
}

fn watch(ready: &Sender<io::Result<()>>, stopped: oneshot::Receiver<()>, report: &Sender<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(error))),
    };
    runtime.block_on(async {
        let signals = || {
            let interrupt = signal(SignalKind::interrupt())?;
            let terminate = signal(SignalKind::terminate())?;
            Ok((interrupt, terminate, signal(SignalKind::hangup())?))
        };
        let (mut interrupt, mut terminate, mut hangup) = match signals() {
            Ok(signals) => signals,
            Err(error) => return drop(ready.send(Err(error))),
        };
        // Both channels end only with the value that this thread is joined by.
        let _ = ready.send(Ok(()));
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = stopped => return,
        }
        let _ = report.send(());
    });
}
