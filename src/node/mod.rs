//! The node's state: the link with its addresses, and the netfilter rules.

mod config;

pub use config::{Backend, Config};
