//! A child process with input, output and a deadline.

use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// What a finished child left.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output, invalid UTF-8 replaced.
    pub stdout: String,
    /// Its standard error, invalid UTF-8 replaced.
    pub stderr: String,
}

/// Runs `program` from `PATH` with `arguments`, feeds it `input`, and kills it after `limit`.
///
/// Errors: the child could not be started (`NotFound`: no such program), or `TimedOut`.
pub fn run(program: &str, arguments: &[&str], input: &str, limit: Duration) -> io::Result<Output> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    // Threads, so that no full pipe keeps either side from the deadline.
    std::thread::scope(|scope| {
        // A child that does not want its input says why on its standard error.
        scope.spawn(move || stdin.map(|mut pipe| pipe.write_all(input.as_bytes())));
        let stdout = scope.spawn(move || read_text(stdout));
        let stderr = scope.spawn(move || read_text(stderr));
        let status = wait(&mut child, limit)?;
        Ok(Output {
            status,
            stdout: stdout.join().unwrap_or_default(),
            stderr: stderr.join().unwrap_or_default(),
        })
    })
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<ExitStatus> {
    let ended = poll_exit(child, limit);
    if !matches!(ended, Ok(true)) {
        // Both fail only for a child that has ended meanwhile.
        let _ = child.kill();
        let _ = child.wait();
    }
    if ended? { child.wait() } else { Err(io::ErrorKind::TimedOut.into()) }
}

/// Whether the child ended within `limit`.
fn poll_exit(child: &Child, limit: Duration) -> io::Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn read_text(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What was read before an error is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn feeds_input_and_collects_output() {
        let output = run("sh", &["-c", "cat; echo oops >&2; exit 3"], "in", SOON).unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("in", "oops\n"));
    }

    #[test]
    fn more_input_and_output_than_a_pipe_holds() {
        let input = "x".repeat(1 << 20);
        let output = run("cat", &[], &input, SOON).unwrap();
        assert_eq!(output.stdout.len(), input.len());
    }

    #[test]
    fn a_child_that_hangs_is_killed() {
        let error = run("sleep", &["600"], "", Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_missing_program_is_not_found() {
        let error = run("doorstep-no-such-program", &[], "", SOON).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
