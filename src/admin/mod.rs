//! The HTTP ports: `/metrics`, `/health`, `/ready`.
//!
//! They live on a thread of their own with a runtime of its own, so that a large scrape never delays a
//! DNS answer. The HTTP is hand-written: three paths without arguments need no framework.

mod config;
mod http;
mod poll;
mod routes;
mod serve;

use std::io;
use std::net::TcpListener;
use std::thread::JoinHandle;

use tokio::runtime::{self, Handle, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::metrics::Registry;
use crate::ready::Ready;

pub use config::{Config, Health};

/// Which paths a listener answers; all others are not found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Serves {
    /// `/metrics`.
    pub metrics: bool,
    /// `/health`.
    pub health: bool,
    /// `/ready`.
    pub ready: bool,
}

/// A bound and listening socket, and what it is for.
#[derive(Debug)]
pub struct Endpoint {
    /// Accepts the connections.
    pub listener: TcpListener,
    /// Answered on them.
    pub serves: Serves,
}

/// What the answers are made from.
#[derive(Debug, Clone)]
struct Sources {
    registry: Registry,
    ready: Ready,
}

/// A listener that the thread's runtime already watches.
type Listening = (tokio::net::TcpListener, Serves);

/// The running thread. Dropping this ends it without waiting for that.
#[derive(Debug)]
pub struct Admin {
    runtime: Handle,
    replacements: mpsc::UnboundedSender<Vec<Listening>>,
    thread: JoinHandle<()>,
}

/// Serves the endpoints on a new thread named `admin`, and measures `/health` from inside once a
/// second (`coredns_health_request_*`).
///
/// # Errors
///
/// When the runtime, the thread, or a listener's registration with the runtime cannot be had.
pub fn spawn(endpoints: Vec<Endpoint>, registry: Registry, ready: Ready) -> io::Result<Admin> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let listening = match register(&handle, endpoints) {
        Ok(listening) => listening,
        Err(error) => {
            // A plain drop would panic if the caller is on a runtime itself.
            runtime.shutdown_background();
            return Err(error);
        }
    };
    let (replacements, receiver) = mpsc::unbounded_channel();
    let sources = Sources { registry, ready };
    let thread = std::thread::Builder::new()
        .name("admin".into())
        .stack_size(STACK_SIZE)
        .spawn(move || run(runtime, listening, receiver, sources))?;
    Ok(Admin { runtime: handle, replacements, thread })
}

/// Octets; the deepest call is the text encoder's.
const STACK_SIZE: usize = 256 * 1024;

impl Admin {
    /// Serves these endpoints instead of the present ones. Open connections live on.
    ///
    /// The new listeners accept before the old ones are closed. For an address that stays, pass a
    /// clone of the same socket ([`TcpListener::try_clone`]): its backlog survives, so that nobody is
    /// refused.
    ///
    /// # Errors
    ///
    /// When a listener cannot be registered with the runtime; the present ones then stay.
    pub fn replace(&self, endpoints: Vec<Endpoint>) -> io::Result<()> {
        let listening = register(&self.runtime, endpoints)?;
        self.replacements.send(listening).map_err(|_| io::Error::other("the admin thread is gone"))
    }

    /// Closes everything and waits for the thread's end, which takes no longer than encoding one scrape.
    pub fn stop(self) {
        drop(self.replacements);
        if self.thread.join().is_err() {
            tracing::error!("the admin thread panicked");
        }
    }
}

fn register(runtime: &Handle, endpoints: Vec<Endpoint>) -> io::Result<Vec<Listening>> {
    let _context = runtime.enter();
    endpoints
        .into_iter()
        .map(|Endpoint { listener, serves }| {
            listener.set_nonblocking(true)?;
            Ok((tokio::net::TcpListener::from_std(listener)?, serves))
        })
        .collect()
}

fn run(
    runtime: Runtime,
    first: Vec<Listening>,
    mut replacements: mpsc::UnboundedReceiver<Vec<Listening>>,
    sources: Sources,
) {
    runtime.block_on(async {
        let mut current = start(first, &sources);
        while let Some(listening) = replacements.recv().await {
            // Assigning drops the old set, which aborts its tasks: new ones first, then that.
            current = start(listening, &sources);
        }
        drop(current);
    });
}

/// One accepting task for each listener, and one polling task for each that serves `/health`.
fn start(listening: Vec<Listening>, sources: &Sources) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for (listener, serves) in listening {
        if serves.health
            && let Ok(address) = listener.local_addr()
        {
            tasks.spawn(poll::health(address, sources.registry.clone()));
        }
        tasks.spawn(serve::accept(listener, serves, sources.clone()));
    }
    tasks
}
