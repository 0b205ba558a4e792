//! Doorstep: a node-local DNS cache for Kubernetes.
//!
//! The modules, lowest layer first; arrows only point up this list (`tests/layers.rs` keeps it so):
//!
//! ```text
//! clock confinement json logging      leaves: anyone may use them
//! metrics ready resident route_message sockets
//! wire                             bytes: queries, answers, replies
//! cache   forward   plugin         memory, upstreams, and what is done between; none knows another
//! server                           joins cache and forward behind the sockets
//! node                             link and netfilter rules; never sees a DNS message
//! doctor                           what is wrong with a node, from what it shows
//! guardian                         owns sockets, link and rules; replaces the worker
//! admin                            /metrics /health /ready
//! config                           Corefile to the Config types of the modules above
//! app cli demo                     the wiring, the flags, the race laboratory
//! ```

pub mod admin;
pub mod app;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod confinement;
#[cfg(feature = "demo")]
pub mod demo;
pub mod doctor;
pub mod forward;
pub mod guardian;
pub mod json;
pub mod logging;
pub mod metrics;
pub mod node;
pub mod plugin;
pub mod ready;
pub mod resident;
pub mod route_message;
pub mod server;
pub mod sockets;
pub mod wire;
