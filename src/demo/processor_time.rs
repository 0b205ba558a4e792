//! Processor time of a process and everything that came of it.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Of the calling process.
pub(super) fn own() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Of the process `root` and its descendants, as far as they are alive, threads that ended aside.
pub(super) fn of_tree(root: i32) -> Duration {
    let parents: Vec<(i32, i32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|process| Some((process, parent_of(process)?)))
        .collect();
    let mut tree = vec![root];
    let mut visited = 0;
    while let Some(&process) = tree.get(visited) {
        tree.extend(parents.iter().filter(|(_, parent)| *parent == process).map(|(child, _)| *child));
        visited += 1;
    }
    tree.into_iter().map(of_process).sum()
}

/// Nanoseconds on a processor, thread by thread: `/proc/PID/stat` counts in hundredths of a second.
fn of_process(process: i32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let spent = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    });
    spent.map(Duration::from_nanos).sum()
}

fn parent_of(process: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Instant;

    use super::*;

    /// A shell that waits while its child burns.
    #[test]
    fn descendants_count() {
        let mut shell = Command::new("sh")
            .args(["-c", "sh -c 'while :; do :; done' & child=$!; trap 'kill $child; exit' TERM; wait"])
            .spawn()
            .expect("sh");
        let root = i32::try_from(shell.id()).expect("a pid");
        let start = Instant::now();
        while of_tree(root) < Duration::from_millis(50) {
            assert!(start.elapsed() < Duration::from_secs(20), "{:?}", of_tree(root));
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(of_process(root) < Duration::from_millis(50), "the shell itself only waits");
        let pid = rustix::process::Pid::from_child(&shell);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("sent");
        shell.wait().expect("ended");
    }
}
