//! The expanded template of the configuration, as a file.

use std::io;
use std::path::Path;

use crate::cli::Args;
use crate::config::Config;

/// Leaves the expanded template where `-conf` points, for those who read it there. Read-only mounts
/// are common and no harm.
pub fn write(args: &Args, config: &Config) {
    let (Some(text), Some(path)) = (&config.expanded, &args.conf) else {
        return;
    };
    if std::fs::read_to_string(path).is_ok_and(|there| there == *text) {
        return;
    }
    if let Err(error) = write_whole(path, text) {
        tracing::warn!("cannot write the expanded Corefile to -conf {}: {error}", path.display());
    }
}

/// The directory of `-conf`, where [`write`] writes; `None`: nowhere.
pub fn directory(args: &Args) -> Option<&Path> {
    let directory = args.conf.as_deref()?.parent()?;
    Some(if directory.as_os_str().is_empty() { Path::new(".") } else { directory })
}

/// Writes beside `path` and renames, so that nobody reads half a file.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, path).inspect_err(|_| drop(std::fs::remove_file(&beside)))
}
