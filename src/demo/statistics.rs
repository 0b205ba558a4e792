//! What conntrack counted.

use std::fs;
use std::io;

use super::{DemoError, Namespace};

/// Counters of a namespace's connection tracking, summed over the processors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Packets that lost the race for an entry and were let through all the same; `None` where the kernel
    /// does not say.
    pub clash_resolve: Option<u64>,
    /// Packets dropped because their entry could not be inserted.
    pub insert_failed: u64,
    /// Packets dropped for that or another reason.
    pub drop: u64,
}

impl Statistics {
    /// Reads a node's.
    pub fn of(node: &Namespace) -> Result<Statistics, DemoError> {
        node.run(Statistics::here)?
    }

    /// Reads those of the calling thread's namespace.
    pub(super) fn here() -> Result<Statistics, DemoError> {
        let table = fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack");
        let table = table.map_err(DemoError::io("read conntrack's counters"))?;
        parse(&table).ok_or_else(|| {
            DemoError::io("understand conntrack's counters")(io::ErrorKind::InvalidData.into())
        })
    }

    /// What was counted after `earlier` was read.
    pub fn since(self, earlier: Statistics) -> Statistics {
        let clashes = self.clash_resolve.zip(earlier.clash_resolve);
        Statistics {
            clash_resolve: clashes.map(|(now, before)| now.saturating_sub(before)),
            insert_failed: self.insert_failed.saturating_sub(earlier.insert_failed),
            drop: self.drop.saturating_sub(earlier.drop),
        }
    }
}

/// A line of names, then a line of hexadecimal numbers for each processor.
fn parse(table: &str) -> Option<Statistics> {
    let mut lines = table.lines().map(str::split_whitespace);
    let names: Vec<&str> = lines.next()?.collect();
    let rows: Vec<Vec<u64>> = lines
        .map(|row| row.map(|number| u64::from_str_radix(number, 16).ok()).collect::<Option<_>>())
        .collect::<Option<_>>()?;
    let sum = |name: &str| {
        let column = names.iter().position(|found| *found == name)?;
        rows.iter().map(|row| row.get(column).copied()).sum::<Option<u64>>()
    };
    Some(Statistics {
        clash_resolve: sum("clashres"),
        insert_failed: sum("insert_failed")?,
        drop: sum("drop")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_and_summed() {
        let table = "entries  clashres found insert_failed drop\n0001 0000000a 0 1 2\n0001 00000010 0 0 1\n";
        let expected = Statistics { clash_resolve: Some(26), insert_failed: 1, drop: 3 };
        assert_eq!(parse(table), Some(expected));
        let old = "entries  searched insert_failed drop\n0001 0 1 2\n";
        assert_eq!(parse(old), Some(Statistics { clash_resolve: None, insert_failed: 1, drop: 2 }));
        assert_eq!(parse("entries\n1\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn what_was_before_is_taken_off() {
        let (before, after) = (
            Statistics { clash_resolve: Some(5), insert_failed: 1, drop: 2 },
            Statistics { clash_resolve: Some(7), insert_failed: 1, drop: 3 },
        );
        let expected = Statistics { clash_resolve: Some(2), insert_failed: 0, drop: 1 };
        assert_eq!(after.since(before), expected);
    }
}
