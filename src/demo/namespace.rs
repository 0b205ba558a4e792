//! A named network namespace, as `ip netns` keeps them: a bind mount below `/run/netns`.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::fs::{FlockOperation, flock};
use rustix::mount::{
    MountPropagationFlags, UnmountFlags, mount_bind, mount_bind_recursive, mount_change, unmount,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::DemoError;

/// Where `ip netns` looks for names.
const NETNS_DIR: &str = "/run/netns";

/// Whether this process turned [`NETNS_DIR`] into a mount of its own, and so may undo that. Held
/// while a name is made, so that the mount does not go away below it.
static MOUNTED_DIR: Mutex<bool> = Mutex::new(false);

/// A network namespace that `ip netns exec NAME` can enter. Dropping it removes the name; the
/// kernel ends the namespace with its last process and socket. One that was [found](Namespace::find) stays.
///
/// Like `ip netns add`, the first one makes `/run/netns` a shared mount. The process that did so
/// undoes it with its last namespace, unless another process has names there by then.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: Arc<File>,
    created: bool,
}

impl Namespace {
    /// A namespace that somebody else made, by its name below `/run/netns` or by a path.
    pub fn find(name: &str) -> Result<Namespace, DemoError> {
        let file = File::open(path_of(name)).map_err(|source| DemoError::Namespace {
            name: name.to_owned(),
            action: "find it",
            source,
        })?;
        Ok(Namespace { name: name.to_owned(), file: Arc::new(file), created: false })
    }

    /// Makes a namespace with nothing in it but a loopback link that is down. A namespace that
    /// already has this name, from a run that was killed, is removed first.
    pub fn create(name: &str) -> Result<Namespace, DemoError> {
        let fail =
            |action| move |source: io::Error| DemoError::Namespace { name: name.to_owned(), action, source };
        let path = path_of(name);
        {
            let mut mounted = MOUNTED_DIR.lock().unwrap_or_else(PoisonError::into_inner);
            *mounted |= share_directory().map_err(fail("prepare /run/netns"))?;
            remove(name).map_err(fail("remove what a killed run left"))?;
            File::create_new(&path).map_err(fail("create its name"))?;
        }
        let file = on_new_thread(|| bind_new_namespace(&path))
            .and_then(|()| File::open(&path))
            .inspect_err(|_| {
                // Nobody else will: there is no value to drop yet.
                let _ = remove(name);
            })
            .map_err(fail("create it"))?;
        Ok(Namespace { name: name.to_owned(), file: Arc::new(file), created: true })
    }

    /// The name to give to `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `task` on a thread inside the namespace and returns what it returns; sockets that it
    /// opens stay in the namespace wherever they are used later. A panic is passed on.
    pub fn run<T: Send>(&self, task: impl FnOnce() -> T + Send) -> Result<T, DemoError> {
        on_new_thread(|| {
            enter(&self.file)?;
            Ok(task())
        })
        .map_err(|source| DemoError::Namespace {
            name: self.name.clone(),
            action: "enter it",
            source,
        })
    }

    /// A command that will run inside the namespace (network only: `/sys` stays the host's).
    #[allow(unsafe_code)]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let file = Arc::clone(&self.file);
        let mut command = Command::new(program);
        // SAFETY: between fork and exec the closure makes one setns system call on a descriptor
        // that it keeps open; it neither allocates nor locks.
        unsafe { command.pre_exec(move || enter(&file)) };
        command
    }

    /// The namespace's descriptor number, for `IFLA_NET_NS_FD`.
    pub(super) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.created {
            return;
        }
        if let Err(error) = remove(&self.name) {
            tracing::warn!(namespace = self.name, %error, "cannot remove the namespace");
        }
        let mut mounted = MOUNTED_DIR.lock().unwrap_or_else(PoisonError::into_inner);
        // Any other name is in use, or about to be: then the last of us, or nobody, undoes it.
        if *mounted && is_empty(NETNS_DIR) && unmount(NETNS_DIR, UnmountFlags::NOFOLLOW).is_ok() {
            *mounted = false;
        }
    }
}

/// Turns the calling thread's network namespace into a new one and binds that to `path`.
#[allow(unsafe_code)]
fn bind_new_namespace(path: &Path) -> io::Result<()> {
    // SAFETY: unshare is unsafe because of CLONE_FILES, which would give this thread a descriptor
    // table of its own; NEWNET leaves descriptors alone.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    mount_bind("/proc/thread-self/ns/net", path)?;
    Ok(())
}

fn enter(file: &File) -> io::Result<()> {
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

/// setns and unshare change the calling thread for good, so each runs on a thread of its own.
fn on_new_thread<T: Send>(task: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, task)?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A name that is a path stays one.
fn path_of(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

/// Makes [`NETNS_DIR`] a shared mount, under the lock that `ip netns add` takes for the same step.
/// Without it a later `ip netns add` would bind the directory over itself and leave our names in
/// the hidden copy, where they can no longer be removed. Returns whether it was not one before.
fn share_directory() -> io::Result<bool> {
    fs::create_dir_all(NETNS_DIR)?;
    let directory = File::open(NETNS_DIR)?;
    flock(&directory, FlockOperation::LockExclusive)?;
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    match mount_change(NETNS_DIR, shared) {
        Err(rustix::io::Errno::INVAL) => {
            mount_bind_recursive(NETNS_DIR, NETNS_DIR)?;
            mount_change(NETNS_DIR, shared)?;
            Ok(true)
        }
        result => {
            result?;
            Ok(false)
        }
    }
}

fn is_empty(directory: &str) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

/// Removes a name and what is mounted on it; nothing to remove is fine.
fn remove(name: &str) -> io::Result<()> {
    let path = path_of(name);
    // EINVAL: a file that nothing is mounted on, left by a run killed between two steps.
    match unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::INVAL) => fs::remove_file(&path),
        Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
