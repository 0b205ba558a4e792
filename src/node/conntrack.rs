//! What connection tracking counts.

use std::collections::BTreeMap;

/// The columns of `/proc/net/stat/nf_conntrack` by name, summed over the processors: a line of names, then one of
/// hexadecimal numbers for each. Kernels differ in which they have. `None`: it is written otherwise.
pub fn counters(table: &str) -> Option<BTreeMap<&str, u64>> {
    let mut lines = table.lines().map(str::split_whitespace);
    let mut sums: Vec<(&str, u64)> = lines.next()?.map(|name| (name, 0)).collect();
    for line in lines {
        for ((_, sum), number) in sums.iter_mut().zip(line) {
            *sum = sum.wrapping_add(u64::from_str_radix(number, 16).ok()?);
        }
    }
    Some(sums.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_and_summed() {
        let table = "entries  clashres found insert_failed drop\n0001 0000000a 0 1 2\n0001 00000010 0 0 1\n";
        let read = counters(table).unwrap();
        assert_eq!(["clashres", "insert_failed", "drop"].map(|name| read[name]), [26, 1, 3]);
        assert_eq!(read.get("searched"), None);
        assert_eq!(counters("entries drop\n1 x\n"), None);
        assert_eq!(counters(""), None);
    }
}
