//! Doorstep: a node-local DNS cache for Kubernetes.
//!
//! The modules, lowest layer first; arrows only point up this list (`tests/layers.rs` keeps it so):
//!
//! ```text
//! clock logging metrics ready sockets   leaves: anyone may use them
//! wire                             bytes: queries, answers, replies
//! cache   forward                  memory and upstreams; neither knows the other
//! server                           joins cache and forward behind the sockets
//! node                             link and netfilter rules; never sees a DNS message
//! admin                            /metrics /health /ready
//! config                           Corefile to the Config types of the modules above
//! app cli demo                     the wiring, the flags, the try-it cluster
//! ```

pub mod admin;
pub mod app;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
pub mod forward;
pub mod guardian;
pub mod logging;
pub mod metrics;
pub mod node;
pub mod ready;
pub mod server;
pub mod sockets;
pub mod wire;
