//! Which inputs a configuration came from, and whether they have changed since.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::{Config, LoadError, Options, load};

/// Remembers everything the last [`load`](Watch::load) asked for, absent files included, with a hash
/// of each answer: template, Corefile, imports, patterns, the kube-dns ConfigMap, resolv.conf files,
/// interfaces. Files are read through whatever symlinks lead to them, so the kubelet's swap of
/// `..data` is seen.
///
/// Looking is up to the caller, who also decides when.
#[derive(Debug, Default)]
pub struct Watch {
    inputs: BTreeMap<Input, u64>,
}

/// One question to the [`Environment`] whose answer can change while the process runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Input {
    File(PathBuf, usize),
    Pattern(String),
    Interface(String),
    Index(String),
}

impl Watch {
    /// Loads the configuration and remembers what it was made from, also when it is refused: the
    /// same mistake is not worth a second look.
    pub fn load(&mut self, options: &Options, env: &dyn Environment) -> Result<Config, LoadError> {
        let recorder = Recorder { env, inputs: RefCell::default() };
        let result = load(options, &recorder);
        self.inputs = recorder.inputs.into_inner();
        result
    }

    /// Whether any input differs from what the last load saw.
    pub fn changed(&self, env: &dyn Environment) -> bool {
        self.inputs.iter().any(|(input, seen)| input.answer(env) != *seen)
    }

    /// The files the last load read or looked for, sorted.
    pub fn files(&self) -> Vec<&Path> {
        let mut files: Vec<&Path> = self
            .inputs
            .keys()
            .filter_map(|input| match input {
                Input::File(path, _) => Some(path.as_path()),
                _ => None,
            })
            .collect();
        files.dedup();
        files
    }
}

impl Input {
    /// A hash of what the environment answers now.
    fn answer(&self, env: &dyn Environment) -> u64 {
        match self {
            Input::File(path, limit) => hash(&env.read(path, *limit)),
            Input::Pattern(pattern) => hash_of(&env.glob(pattern).ok()),
            Input::Interface(name) => hash(&env.interface_addresses(name)),
            Input::Index(name) => hash(&env.interface_index(name)),
        }
    }
}

/// Passes questions on and keeps hashes of the answers.
struct Recorder<'a> {
    env: &'a dyn Environment,
    inputs: RefCell<BTreeMap<Input, u64>>,
}

impl Recorder<'_> {
    fn record(&self, input: Input, answer: u64) {
        self.inputs.borrow_mut().insert(input, answer);
    }
}

impl Environment for Recorder<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        // A process's environment does not change.
        self.env.variable(name)
    }

    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        let answer = self.env.read(path, limit);
        self.record(Input::File(path.to_owned(), limit), hash(&answer));
        answer
    }

    fn glob(&self, pattern: &str) -> Result<Vec<PathBuf>, glob::PatternError> {
        let answer = self.env.glob(pattern);
        let files = answer.as_ref().ok();
        self.record(Input::Pattern(pattern.to_owned()), hash_of(&files));
        answer
    }

    fn interface_addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let answer = self.env.interface_addresses(name);
        self.record(Input::Interface(name.to_owned()), hash(&answer));
        answer
    }

    fn interface_index(&self, name: &str) -> io::Result<u32> {
        let answer = self.env.interface_index(name);
        self.record(Input::Index(name.to_owned()), hash(&answer));
        answer
    }
}

fn hash<T: Hash>(answer: &io::Result<T>) -> u64 {
    hash_of(&answer.as_ref().map_err(io::Error::kind))
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
