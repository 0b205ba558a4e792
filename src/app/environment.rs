//! The machine as the configuration sees it.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::cli::Args;
use crate::config::{Environment, System};

/// The machine, with our own link already on it: a Corefile may `bind nodelocaldns` although the link
/// is made only after the sockets are bound.
pub struct NodeEnvironment {
    link: String,
    addresses: Vec<IpAddr>,
}

impl NodeEnvironment {
    /// The link and addresses that `args` name.
    pub fn new(args: &Args) -> NodeEnvironment {
        NodeEnvironment { link: args.interface.clone(), addresses: args.local_ips.clone() }
    }
}

impl Environment for NodeEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        System.variable(name)
    }

    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        System.read(path, limit)
    }

    fn glob(&self, pattern: &str) -> Result<Vec<PathBuf>, glob::PatternError> {
        System.glob(pattern)
    }

    fn interface_addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        if name == self.link && !self.addresses.is_empty() {
            return Ok(self.addresses.clone());
        }
        System.interface_addresses(name)
    }

    fn interface_index(&self, name: &str) -> io::Result<u32> {
        System.interface_index(name)
    }
}
