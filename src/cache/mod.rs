//! Answers kept as wire bytes (the semantics of CoreDNS's `cache`).

mod config;

pub use config::{Config, Prefetch, ServeStale, StaleMode, StoreConfig};
