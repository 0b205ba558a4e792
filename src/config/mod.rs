//! Corefile, templates and resolv.conf, turned into the Config types of the other modules.
//!
//! ```text
//! base template ──► pillar tokens ─┐
//! kube-dns ConfigMap ──────────────┼─► Corefile tree ─► directive/* ─► Config
//! -conf, or the built-in one ──────┘
//! ```
//!
//! [`load`] does all of it once; [`Watch`] says when it is worth doing again; [`describe`] says what
//! came out.

mod blocks;
mod builtin;
pub mod corefile;
mod describe;
pub mod directive;
pub mod duration;
pub mod environment;
pub mod error;
mod interfaces;
mod kube_dns;
mod listen;
mod load;
pub mod nearest;
mod pillar;
mod watch;
mod zone;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use describe::describe;
pub use environment::{Environment, System};
pub use error::Diagnostics;
pub use kube_dns::{KubeDns, KubeDnsError};
pub use listen::listen_addresses;
pub use load::load;
pub use watch::Watch;

use crate::{admin, server};

/// Where the configuration is, from the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `-conf`: read when there is no base template; otherwise the expanded template is for it.
    pub corefile: PathBuf,
    /// `-basecorefile`; `None`: no template.
    pub base: Option<PathBuf>,
    /// `-kubednscm`: where the kube-dns ConfigMap is mounted.
    pub kube_dns: Option<PathBuf>,
    /// `-localip`.
    pub local_ips: Vec<IpAddr>,
    /// `-upstreamsvc`.
    pub upstream_service: String,
    /// `-dns.port`.
    pub dns_port: u16,
    /// `-prometheus-listen-address`.
    pub prometheus: String,
    /// Serve the built-in Corefile when neither file exists.
    pub allow_builtin: bool,
    /// Go on without an invalid kube-dns ConfigMap, with a line in [`Config::omitted`]: right at the
    /// first load, when there is no earlier configuration to keep.
    pub tolerate_bad_kube_dns: bool,
}

/// Everything a configuration says.
#[derive(Debug, Clone)]
pub struct Config {
    /// The server blocks.
    pub server: server::Config,
    /// The HTTP ports.
    pub admin: admin::Config,
    /// `reload`; `None`: changes of the Corefile are not taken up.
    pub reload: Option<Reload>,
    /// `debug`.
    pub debug: bool,
    /// Port of the first `health`.
    pub health_port: Option<u16>,
    /// Served, but probably not meant: one line each, `FILE:LINE: ...`.
    pub warnings: Vec<String>,
    /// Not served, to be logged as errors: one line each.
    pub omitted: Vec<String>,
    /// What the configuration was read from.
    pub origin: Origin,
    /// The expanded template, to be written to [`Options::corefile`]; failing to is no harm.
    pub expanded: Option<String>,
    /// Equal for two configurations with equal effect: a hash of the expanded Corefile and of the
    /// addresses it led to.
    pub fingerprint: u64,
}

/// What a configuration was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A template.
    Template(PathBuf),
    /// A Corefile as it stands.
    Corefile(PathBuf),
    /// The built-in Corefile.
    Builtin,
}

/// `reload [INTERVAL [JITTER]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reload {
    /// Time between two looks.
    pub interval: Duration,
    /// Each interval is longer or shorter by up to half of this.
    pub jitter: Duration,
}

impl Default for Reload {
    fn default() -> Reload {
        Reload { interval: Duration::from_secs(30), jitter: Duration::from_secs(15) }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The Corefile has mistakes; the report lists all of them.
    #[error("{0}")]
    Invalid(Diagnostics),
    /// The kube-dns ConfigMap has mistakes.
    #[error("kube-dns ConfigMap: {0}")]
    KubeDns(#[from] KubeDnsError),
    /// A Corefile cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: std::io::Error,
    },
    /// Every block was left out.
    #[error("no server block is left to serve: {}", .0.join("; "))]
    NothingToServe(Vec<String>),
}
