//! Which of the executed instructions were atomic read-modify-writes.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::process::Command;

use crate::callgrind::Executed;

/// An object file's instructions.
struct Listing {
    known: BTreeSet<u64>,
    atomic: BTreeSet<u64>,
}

/// Object files that were looked at.
#[derive(Default)]
pub struct Atomics(BTreeMap<String, Listing>);

impl Atomics {
    /// How many atomic read-modify-writes are among `executed`. Fails on an address that the disassembler
    /// does not know: then the two do not speak of the same thing.
    pub fn count(&mut self, executed: &Executed) -> Result<u64, Box<dyn Error>> {
        let mut count = 0;
        for ((object, address), times) in executed {
            if !self.0.contains_key(object) {
                self.0.insert(object.clone(), Listing::of(object)?);
            }
            let listing = &self.0[object];
            if !listing.known.contains(address) {
                return Err(format!("{object} has no instruction at {address:#x}").into());
            }
            count += if listing.atomic.contains(address) { *times } else { 0 };
        }
        Ok(count)
    }
}

impl Listing {
    fn of(object: &str) -> Result<Listing, Box<dyn Error>> {
        let output = Command::new("objdump")
            .args(["--disassemble", "--no-show-raw-insn", object])
            .output()
            .map_err(|error| format!("Debian package binutils: {error}"))?;
        Ok(Listing::read(&String::from_utf8_lossy(&output.stdout)))
    }

    fn read(text: &str) -> Listing {
        let (mut known, mut atomic) = (BTreeSet::new(), BTreeSet::new());
        for line in text.lines() {
            let Some((address, instruction)) = line.split_once(":\t") else { continue };
            let Ok(address) = u64::from_str_radix(address.trim(), 16) else { continue };
            known.insert(address);
            if is_atomic(instruction) {
                atomic.insert(address);
            }
        }
        Listing { known, atomic }
    }
}

/// The processor locks the line for `lock` and, without being told, for `xchg` with memory (Intel SDM
/// volume 2, XCHG). What is written as `xchg %ax,%ax` fills gaps.
fn is_atomic(instruction: &str) -> bool {
    let mut words = instruction.split_whitespace();
    match words.next() {
        Some("lock") => true,
        Some(word) if word.starts_with("xchg") => instruction.contains('('),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atomic_is_what_locks() {
        let listing = Listing::read(
            "  10:\tlock incq (%rax)\n  14:\txchg   %ax,%ax\n  16:\txchg   %al,0x8(%rdi)\n  19:\tmov %al,(%rdi)\n",
        );
        assert_eq!(listing.known.len(), 4);
        assert_eq!(listing.atomic, BTreeSet::from([0x10, 0x16]));
    }
}
