//! What of the program's file is in memory.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ops::Range;
use std::{fs, io};

use rustix::mm::{Advice, madvise};

/// Takes the program's code and constants out of memory; what runs on comes back when it runs. Starting runs
/// much that is never run again, and the kernel brings in the neighbours of all that is touched.
///
/// Only mappings are undone, which costs a minor fault each time: the file's pages stay in the page cache. Returns
/// how many octets of address space that was.
pub fn drop_code() -> io::Result<usize> {
    let mut dropped = 0;
    for place in droppable(&fs::read_to_string("/proc/self/smaps")?) {
        let start = place.start as *mut c_void;
        // SAFETY: nobody can write to these pages and nobody has, so the file still holds what they hold.
        unsafe { madvise(start, place.len(), Advice::LinuxDontNeed) }?;
        dropped += place.len();
    }
    Ok(dropped)
}

/// The private mappings of files in `smaps` (proc_pid_smaps(5)) that are read-only, and of which no page was
/// written to before they were: tables that the dynamic linker filled in are read-only, too. Such a page that is
/// swapped out counts as swapped, and no longer as anonymous.
fn droppable(smaps: &str) -> Vec<Range<usize>> {
    let mut places = Vec::new();
    let mut place = None;
    for line in smaps.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            [addresses, "r--p" | "r-xp", _, _, _, path, ..] if path.starts_with('/') => {
                place = range(addresses)
            }
            ["Anonymous:", "0", "kB"] => {}
            ["Anonymous:", ..] => place = None,
            // After it.
            ["Swap:", "0", "kB"] => places.extend(place.take()),
            // The first line of another mapping.
            [addresses, ..] if range(addresses).is_some() => place = None,
            _ => {}
        }
    }
    places
}

fn range(addresses: &str) -> Option<Range<usize>> {
    let (start, end) = addresses.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_wrote_to_is_dropped() {
        let mapping = |addresses: &str, access: &str, path: &str, anonymous: u32, swapped: u32| {
            format!(
                "{addresses} {access} 00001000 fe:00 77 {path}\nRss: 8 kB\nAnonymous: {anonymous} kB\n\
                 Swap: {swapped} kB\nSwapPss: 0 kB\n"
            )
        };
        let smaps = [
            mapping("1000-3000", "r-xp", "/doorstep", 0, 0),
            mapping("3000-4000", "r--p", "/doorstep", 0, 0),
            mapping("4000-5000", "r--p", "/doorstep", 4, 0),
            mapping("5000-6000", "rw-p", "/doorstep", 0, 0),
            mapping("6000-7000", "r-xp", "[vdso]", 0, 0),
            mapping("7000-8000", "r--p", "", 0, 0),
            mapping("8000-9000", "r--s", "/shared", 0, 0),
            mapping("9000-a000", "r--p", "/doorstep", 0, 4),
        ];
        assert_eq!(droppable(&smaps.concat()), [0x1000..0x3000, 0x3000..0x4000]);
    }

    /// This very program goes on afterwards, with its constants and its tables.
    #[test]
    fn what_runs_comes_back() {
        let text = format!("{}", 1.5);
        assert!(drop_code().unwrap() > 0);
        assert_eq!(format!("{}", 1.5), text);
        assert!(Vec::from([text]).join(".").len() == 3);
    }
}
