//! What the configuration depends on besides its own text: variables, files, interfaces.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::interfaces;

/// Everything [`load`](super::load) asks the machine for; tests answer from memory.
pub trait Environment {
    /// The value of an environment variable; `None` when it is unset or not UTF-8.
    fn variable(&self, name: &str) -> Option<String>;

    /// The bytes of a file, at most `limit` of them plus one.
    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>>;

    /// The files (not directories, not hidden) that match a shell pattern, sorted.
    fn glob(&self, pattern: &str) -> Result<Vec<PathBuf>, glob::PatternError>;

    /// The addresses of a network interface; an error of kind `NotFound` when there is none of
    /// that name.
    fn interface_addresses(&self, name: &str) -> io::Result<Vec<IpAddr>>;

    /// The index of a network interface, the scope of its link-local addresses (RFC 4007 §11); an
    /// error of kind `NotFound` when there is none of that name.
    fn interface_index(&self, _name: &str) -> io::Result<u32> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// The machine itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Environment for System {
    fn variable(&self, name: &str) -> Option<String> {
        // `std::env::var` panics on names the kernel could not hold.
        if name.is_empty() || name.contains(['=', '\0']) {
            return None;
        }
        std::env::var(name).ok()
    }

    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        use std::io::Read;
        let mut bytes = Vec::new();
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        std::fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn glob(&self, pattern: &str) -> Result<Vec<PathBuf>, glob::PatternError> {
        // Hidden entries of a ConfigMap mount (`..data`, `..2024_...`) are the kubelet's, not the
        // operator's.
        let options = glob::MatchOptions {
            require_literal_separator: true,
            require_literal_leading_dot: true,
            ..glob::MatchOptions::default()
        };
        let found = glob::glob_with(pattern, options)?;
        let mut files: Vec<PathBuf> = found.flatten().filter(|path| path.is_file()).collect();
        files.sort();
        Ok(files)
    }

    fn interface_addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        interfaces::addresses(name)
    }

    fn interface_index(&self, name: &str) -> io::Result<u32> {
        interfaces::index(name)
    }
}
