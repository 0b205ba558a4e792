//! A hosts file on disk, looked at again when it is asked for.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::table::{Broken, Table};
use crate::metrics::{Gauge, Registry, names};
use crate::plugin::Hosts;

/// More is not read; about a million names.
const LARGEST: u64 = 32 << 20;

/// What was read, and when to look again.
pub(super) struct HostsFile {
    settings: Arc<Hosts>,
    state: Mutex<State>,
    entries: Arc<Gauge>,
    read_at: Arc<Gauge>,
    /// Besides the file's.
    inline: usize,
}

struct State {
    table: Arc<Table>,
    seen: Option<Stamp>,
    looked: Instant,
    /// Of what cannot be read, and the log says so.
    complained: Option<Option<Stamp>>,
}

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
}

/// Why the last good state stays.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it has more than {LARGEST} octets")]
    TooLarge,
    #[error("it has NUL octets and so is not a text")]
    Binary,
}

impl HostsFile {
    /// Reads the file for the first time; if it cannot be read, there are no entries, and the log says why.
    pub fn new(settings: &Arc<Hosts>, inline: usize, registry: &Registry) -> HostsFile {
        let path = settings.path.display().to_string();
        let state = State { table: Arc::default(), seen: None, looked: Instant::now(), complained: None };
        let file = HostsFile {
            settings: settings.clone(),
            state: Mutex::new(state),
            entries: registry.gauge(&names::HOSTS_ENTRIES, [&path]),
            read_at: registry.gauge(&names::HOSTS_RELOAD_TIMESTAMP, []),
            inline,
        };
        let stamp = std::fs::metadata(&settings.path).map(|found| Stamp::of(&found)).ok();
        file.keep(stamp, read(settings));
        file
    }

    /// What the file says, at most `reload` and the time of a reading old. Reads on another thread.
    pub async fn table(&self) -> Arc<Table> {
        if let Some(stamp) = self.changed(Instant::now()) {
            let settings = self.settings.clone();
            let reading = tokio::task::spawn_blocking(move || read(&settings)).await;
            if let Ok(table) = reading {
                let before = self.keep(Some(stamp), table);
                // To give a large one back takes a while, too.
                tokio::task::spawn_blocking(move || drop(before));
            }
        }
        self.lock().table.clone()
    }

    /// The file's stamp, if it is time to look and it is another.
    fn changed(&self, now: Instant) -> Option<Stamp> {
        let mut state = self.lock();
        let reload = self.settings.reload;
        if reload == Duration::ZERO || now.saturating_duration_since(state.looked) < reload {
            return None;
        }
        state.looked = now;
        // A file that is gone may come back; until then the last state stands.
        let stamp = Stamp::of(&std::fs::metadata(&self.settings.path).ok()?);
        (state.seen != Some(stamp)).then_some(stamp)
    }

    /// Takes `table` for the file's, or says why not; the one before.
    fn keep(&self, stamp: Option<Stamp>, table: Result<Table, Unreadable>) -> Option<Arc<Table>> {
        let mut state = self.lock();
        let mut before = None;
        state.seen = stamp;
        match table {
            Ok(table) => {
                self.report(&table.broken);
                before = Some(std::mem::replace(&mut state.table, Arc::new(table)));
                state.complained = None;
                self.read_at.set(stamp.map_or(0, |stamp| stamp.modified.0));
            }
            Err(error) => {
                // What the system refuses now it may give later, the file as it was.
                if matches!(error, Unreadable::Io(_)) {
                    state.seen = None;
                }
                if state.complained.replace(stamp) != Some(stamp) {
                    let path = self.settings.path.display();
                    tracing::warn!("plugin/hosts: {path} is not read, {} stay: {error}", state.table.count());
                }
            }
        }
        self.entries.set(i64::try_from(state.table.len() + self.inline).unwrap_or(i64::MAX));
        before
    }

    fn report(&self, broken: &Broken) {
        let Some((line, reason)) = &broken.first else { return };
        let path = self.settings.path.display();
        let others = match broken.others {
            0 => String::new(),
            1 => ", as is something in 1 more line".to_owned(),
            others => format!(", as is something in {others} more lines"),
        };
        tracing::warn!("plugin/hosts: {path}:{line}: {reason} and left out{others}");
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn count(&self) -> String {
        match self.len() {
            0 => "no entries".to_owned(),
            entries => format!("the {entries} entries of before"),
        }
    }
}

impl Stamp {
    fn of(found: &Metadata) -> Stamp {
        Stamp {
            inode: (found.dev(), found.ino()),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
        }
    }
}

fn read(settings: &Hosts) -> Result<Table, Unreadable> {
    let text = text(&settings.path)?;
    Ok(Table::parse(&text, &settings.zones, settings.reverse))
}

fn text(path: &Path) -> Result<Vec<u8>, Unreadable> {
    // To open a pipe would be to wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(Unreadable::NotAFile);
    }
    let mut text = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(Unreadable::TooLarge);
    }
    if text.contains(&0) {
        return Err(Unreadable::Binary);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Name;

    /// What the system could not give once (descriptors, say), it may give later, with no change of the file.
    #[tokio::test]
    async fn a_file_that_could_not_be_read_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        std::fs::write(&path, "192.0.2.1 a.test\n").unwrap();
        let zones = vec![Name::root()];
        let settings =
            Hosts { path: path.clone(), zones, reload: Duration::from_nanos(1), ..Hosts::default() };
        let file = HostsFile::new(&Arc::new(settings), 0, &Registry::new());
        std::fs::write(&path, "192.0.2.1 a.test b.test\n").unwrap();
        let stamp = Stamp::of(&std::fs::metadata(&path).unwrap());
        file.keep(Some(stamp), Err(Unreadable::Io(io::ErrorKind::Other.into())));
        assert_eq!(file.lock().table.len(), 2);
        assert_eq!(file.table().await.len(), 4);
        // Who is replaced is for the caller to drop, where it holds up nobody.
        assert_eq!(file.keep(None, Ok(Table::default())).map(|before| before.len()), Some(4));
    }
}
