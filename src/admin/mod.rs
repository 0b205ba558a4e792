//! The HTTP ports: `/metrics`, `/health`, `/ready`.

mod config;

pub use config::{Config, Health};
