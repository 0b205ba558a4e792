//! Receive packet steering on pods' links: the kernel chooses a packet's CPU by the hash of its
//! addresses and ports, so both queries of one socket meet on one CPU, one after the other, and the
//! second finds the conntrack entry that the first has confirmed.
//!
//! A mask that a killed process left does no harm, and goes with the pod's link.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tracing::info;

use super::links::{PodLink, Selection};
use super::{Refusal, Remedy};
use crate::node::monitor::Change;
use crate::node::netlink::Connection;
use crate::node::{Drift, Error, Kept};

/// What the operator says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// `-mask`; `None`: all CPUs that are online.
    pub mask: Option<CpuMask>,
    /// `-links`.
    pub links: Selection,
}

/// A set of CPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuMask {
    /// 32 CPUs each, the lowest first; the last one is not zero.
    words: Vec<u32>,
}

/// The remedy, at work from its first [`Kept::reconcile`].
#[derive(Debug)]
pub struct Rps {
    links: Selection,
    mask: CpuMask,
    /// Where sysfs is.
    sys: PathBuf,
    /// Queues that were steered, by the link's index and their own name.
    steered: HashMap<(u32, String), Steered>,
}

/// A receive queue with a mask of ours.
#[derive(Debug)]
struct Steered {
    /// Its file; the link's name, which may change, is in it.
    path: PathBuf,
    /// What it had before.
    earlier: CpuMask,
    /// What the kernel made of ours: it leaves out CPUs that are offline or isolated.
    accepted: CpuMask,
}

impl Rps {
    /// Reads the CPUs below `sys`, where sysfs of this network namespace is mounted (`/sys`), unless
    /// `config` says which.
    pub fn new(config: Config, sys: &Path) -> Result<Rps, Refusal> {
        let mask = match config.mask {
            Some(mask) => mask,
            None => {
                let path = sys.join("devices/system/cpu/online");
                let list = std::fs::read_to_string(&path).unwrap_or_default();
                let online = CpuMask::of_list(list.trim());
                online.ok_or(Refusal::Unknown { remedy: "rps", flag: "-mask".into() })?
            }
        };
        info!("rps: the mask is {mask}");
        Ok(Rps { links: config.links, mask, sys: sys.into(), steered: HashMap::new() })
    }

    fn folder(&self, link: &PodLink) -> PathBuf {
        self.sys.join("class/net").join(&link.name)
    }

    /// Whether sysfs shows this link. It shows the namespace in which it was mounted, which may have another
    /// link of this name.
    fn shows(&self, link: &PodLink) -> bool {
        let index = std::fs::read_to_string(self.folder(link).join("ifindex"));
        index.is_ok_and(|index| index.trim().parse() == Ok(link.index))
    }

    fn queues(&self, link: &PodLink) -> Vec<(String, PathBuf)> {
        let folder = self.folder(link).join("queues");
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let receiving = names.filter(|name| name.starts_with("rx-"));
        receiving.map(|name| (name.clone(), folder.join(name).join("rps_cpus"))).collect()
    }

    /// Sets the mask where it is otherwise. Returns whether somebody had undone it.
    fn set(&mut self, queue: (u32, String), path: PathBuf) -> io::Result<bool> {
        let present = match read(&path) {
            // The pod ended meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            present => present?,
        };
        let is_known = self.steered.contains_key(&queue);
        let steered = self.steered.entry(queue).or_insert_with(|| Steered {
            path: path.clone(),
            earlier: present.clone(),
            accepted: self.mask.clone(),
        });
        steered.path = path;
        if present == steered.accepted {
            return Ok(false);
        }
        write(&steered.path, &self.mask)?;
        steered.accepted = read(&steered.path)?;
        Ok(is_known)
    }

    fn read_links(&self) -> Result<Vec<PodLink>, Error> {
        let mut connection = Connection::route().map_err(Error::InterfaceCheck)?;
        self.links.read(&mut connection)
    }
}

impl Kept for Rps {
    fn reconcile(&mut self) -> Drift {
        let mut drift = Drift::default();
        let links = match self.read_links() {
            Ok(links) => links,
            Err(e) => {
                drift.errors.push(e);
                return drift;
            }
        };
        self.steered.retain(|(index, _), _| links.iter().any(|link| link.index == *index));
        let (shown, unseen): (Vec<&PodLink>, Vec<&PodLink>) = links.iter().partition(|link| self.shows(link));
        // A pod may have ended meanwhile.
        let is_still_there = |link: &&&PodLink| self.read_links().is_ok_and(|links| links.contains(link));
        if shown.is_empty()
            && let Some(link) = unseen.iter().find(is_still_there)
        {
            let reason = "it shows the links of another network namespace, or is not mounted";
            drift.errors.push(file(&self.folder(link))(io::Error::other(reason)));
        }
        for link in shown {
            for (queue, path) in self.queues(link) {
                match self.set((link.index, queue), path.clone()) {
                    Ok(undone) => drift.links += usize::from(undone),
                    Err(e) => drift.errors.push(file(&path)(e)),
                }
            }
        }
        drift
    }

    fn concerned_by(&self, change: Change<'_>) -> bool {
        matches!(change, Change::Route(message) if self.links.concerned_by(message))
    }
}

impl Remedy for Rps {
    fn name(&self) -> &'static str {
        "rps"
    }

    fn undo(&mut self) -> Vec<Error> {
        let mut errors = Vec::new();
        for Steered { path, earlier, .. } in std::mem::take(&mut self.steered).into_values() {
            match write(&path, &earlier) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => errors.push(file(&path)(e)),
                _ => {}
            }
        }
        errors
    }
}

fn read(path: &Path) -> io::Result<CpuMask> {
    let text = std::fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

fn write(path: &Path, mask: &CpuMask) -> io::Result<()> {
    std::fs::write(path, mask.to_string())
}

fn file(path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.display().to_string();
    move |source| Error::File { path: path.clone(), source }
}

impl CpuMask {
    /// The CPUs of a list such as `0-3,8`; `None` if it is none.
    fn of_list(list: &str) -> Option<CpuMask> {
        let mut words = Vec::new();
        for range in list.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
            // Linux knows of no machine with more.
            for cpu in first..=last.min(8191) {
                words.resize(words.len().max(cpu / 32 + 1), 0);
                words[cpu / 32] |= 1 << (cpu % 32);
            }
        }
        Some(CpuMask { words })
    }
}

impl FromStr for CpuMask {
    type Err = String;

    /// Reads hexadecimal digits, in groups of eight after commas or without.
    fn from_str(text: &str) -> Result<CpuMask, String> {
        let digits: String = text.trim().trim_start_matches("0x").replace(',', "");
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(format!(
                "{text:?} is no set of CPUs: write auto, or hexadecimal digits such as 3 or ff,00000000"
            ));
        }
        let digits = digits.trim_start_matches('0');
        let mut words = Vec::new();
        let mut end = digits.len();
        while end > 0 {
            let start = end.saturating_sub(8);
            words.push(u32::from_str_radix(&digits[start..end], 16).unwrap_or_default());
            end = start;
        }
        Ok(CpuMask { words })
    }
}

impl fmt::Display for CpuMask {
    /// As the kernel writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((highest, rest)) = self.words.split_last() else {
            return f.write_str("0");
        };
        write!(f, "{highest:x}")?;
        rest.iter().rev().try_for_each(|word| write!(f, ",{word:08x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_read_and_written_as_the_kernel_does() {
        for (text, shown) in [
            ("0", "0"),
            ("00000000,00000000", "0"),
            ("3", "3"),
            ("0xF", "f"),
            ("00000000,0000000f", "f"),
            ("1,00000000", "1,00000000"),
            ("ffffffffff", "ff,ffffffff"),
        ] {
            assert_eq!(text.parse::<CpuMask>().unwrap().to_string(), shown);
        }
        for wrong in ["", "x", "-1", "+3", "3 4", "é,00000000", "ééééé"] {
            assert!(wrong.parse::<CpuMask>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn lists_of_cpus() {
        for (list, shown) in [("0", "1"), ("0-1", "3"), ("0-3,8", "10f"), ("32", "1,00000000")] {
            assert_eq!(CpuMask::of_list(list).unwrap().to_string(), shown);
        }
        assert_eq!(CpuMask::of_list(""), None);
    }
}
