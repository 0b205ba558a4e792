//! Serving: sockets, the hit path, misses in flight, TCP.

mod batch;
mod config;

pub use config::{Block, Config, Consolidate, ErrorsLog, LogClass, LogLevel, QueryLog, Timeouts};
