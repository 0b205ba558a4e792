//! Upstreams: pipelined TCP and TLS, UDP with TCP fallback, policies and health.
//!
//! ```text
//!  Chain ─► Directive ─► Exchange ──┬─► Upstream ──┬─► Pool ─► Connection ─► Frame   tcp, tls
//!  (block)  (forward)    (query)    │   health     └─► Datagrams                     udp
//!                                   └─► Upstream   latency
//! ```
//!
//! Octets in, octets out: nothing here knows a cache or a client. All of it lives on one thread
//! inside a [`tokio::task::LocalSet`]; no future is `Send`.

mod alarms;
mod budget;
mod chain;
mod config;
mod connection;
mod datagram;
mod dial;
mod directive;
mod directory;
mod edns;
mod error;
mod exchange;
mod flow;
mod frame;
mod health;
mod latency;
mod message;
mod metrics;
mod policy;
mod pool;
mod proof;
mod random;
mod tls;
mod upstream;

pub use chain::{Chain, DEADLINE};
pub use config::{ClientTransport, Config, HealthCheck, Policy, Source, Target, Tls, Transport};
pub use directory::Directory;
pub use error::{Error, Failure, ForwardError, Operation, Reason};
pub use frame::{BadFrame, FrameReader};
pub use metrics::{Metrics, NoMetrics, Protocol};
