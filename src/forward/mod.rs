//! Upstreams: pipelined TCP and TLS, UDP with TCP fallback, policies and health.

mod config;

pub use config::{Config, HealthCheck, Policy, Source, Target, Tls, Transport};
