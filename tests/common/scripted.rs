//! The scripted upstream on a thread of its own, for tests of the whole process.

#![allow(dead_code, reason = "each suite uses its own part")]

use std::net::SocketAddr;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::upstream::{Asked, Step, Upstream};

/// A running upstream. Dropping it closes its sockets.
pub struct Scripted {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Scripted {
    /// Starts on a free port of 127.0.0.1.
    pub fn start(script: impl Fn(&Asked) -> Vec<Step> + Send + 'static) -> Scripted {
        Scripted::run(None, None, script)
    }

    /// Starts at `address`, which must be free.
    pub fn start_at(address: SocketAddr, script: impl Fn(&Asked) -> Vec<Step> + Send + 'static) -> Scripted {
        Scripted::run(Some(address), None, script)
    }

    /// Starts with TLS on TCP.
    pub fn start_tls(
        config: Arc<rustls::ServerConfig>,
        script: impl Fn(&Asked) -> Vec<Step> + Send + 'static,
    ) -> Scripted {
        Scripted::run(None, Some(config), script)
    }

    fn run(
        at: Option<SocketAddr>,
        tls: Option<Arc<rustls::ServerConfig>>,
        script: impl Fn(&Asked) -> Vec<Step> + Send + 'static,
    ) -> Scripted {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = oneshot::channel();
        let (started, address) = mpsc::channel();
        let seen = asked.clone();
        let script = move |query: &Asked| {
            seen.lock().unwrap().push(query.clone());
            script(query)
        };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, async {
                let upstream = match (at, tls) {
                    (_, Some(config)) => Upstream::start_tls(config, script).await,
                    (Some(address), None) => Upstream::start_at(address, script).await,
                    (None, None) => Upstream::start(script).await,
                };
                started.send(upstream.address).unwrap();
                let _ = stopped.await;
            });
        });
        Scripted { address: address.recv().unwrap(), asked, stop: Some(stop), thread: Some(thread) }
    }

    /// Every query that came, health checks (`. NS`) left out.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().iter().filter(|asked| asked.name != ".").cloned().collect()
    }

    /// How often `name` was asked for.
    pub fn count(&self, name: &str) -> usize {
        self.asked().iter().filter(|asked| asked.name == name).count()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().unwrap().join();
    }
}

/// Answers everything with an address.
pub fn answer(asked: &Asked) -> Vec<Step> {
    vec![Step::Send(asked.answer())]
}
