//! Root in a user namespace, for those who are not root: what `unshare --map-root-user --mount --net` makes.

use std::fs;
use std::io;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{getegid, geteuid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::DemoError;

/// Makes this process root of namespaces of its own (user, mounts, network) unless it is root already, with
/// an empty `/run`; returns whether it did. The kernel wants a process of one thread: call it first.
pub(super) fn become_root() -> Result<bool, DemoError> {
    let (user, group) = (geteuid(), getegid());
    if user.is_root() {
        return Ok(false);
    }
    let failed = |action| move |source: io::Error| DemoError::NoUserNamespace { action, source };
    unshare().map_err(failed("make a user namespace"))?;
    // Who may not set groups may map the own one (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny").map_err(failed("give up setting groups"))?;
    let map = |file, id: u32| fs::write(file, format!("0 {id} 1"));
    map("/proc/self/uid_map", user.as_raw()).map_err(failed("become its root"))?;
    map("/proc/self/gid_map", group.as_raw()).map_err(failed("become its root"))?;
    own_run().map_err(failed("have a /run of its own"))?;
    Ok(true)
}

#[allow(unsafe_code)]
fn unshare() -> io::Result<()> {
    let own = UnshareFlags::NEWUSER | UnshareFlags::NEWNS | UnshareFlags::NEWNET;
    // SAFETY: unshare is unsafe because of CLONE_FILES, which is not asked for.
    unsafe { unshare_unsafe(own) }?;
    Ok(())
}

/// Nothing mounted from here on is seen outside.
fn own_run() -> io::Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("tmpfs", "/run", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, None)?;
    Ok(())
}
