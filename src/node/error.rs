//! What can go wrong with the node's state, under node-cache's names for it.

use super::{iptables, netlink};

/// A failure to read or change the node's state.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The link or one of its addresses could not be created or deleted.
    #[error(transparent)]
    InterfaceAdd(netlink::Error),
    /// The link or its addresses could not be read.
    #[error(transparent)]
    InterfaceCheck(netlink::Error),
    /// The nftables table could not be read or changed.
    #[error("nftables: {0}")]
    Nftables(netlink::Error),
    /// The iptables rules could not be read or changed.
    #[error(transparent)]
    Iptables(#[from] iptables::Error),
    /// A file of the kernel's could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system call says.
        source: std::io::Error,
    },
}

impl Error {
    /// Under which `errortype` node-cache's `setup_errors_total` counts it: `interface_add`,
    /// `interface_check`, `iptables_lock` or `iptables` (for either backend of the rules).
    pub fn error_type(&self) -> &'static str {
        match self {
            Error::InterfaceAdd(_) => "interface_add",
            Error::InterfaceCheck(_) | Error::File { .. } => "interface_check",
            Error::Iptables(iptables::Error::Locked { .. }) => "iptables_lock",
            Error::Nftables(_) | Error::Iptables(_) => "iptables",
        }
    }
}
