//! Counts instructions, allocations and atomic read-modify-writes, and holds them to `bounds.tsv`. See
//! benches/README.md.

mod allocations;
mod atomics;
mod callgrind;
mod fixture;
mod miss;
mod subjects;

use std::collections::BTreeMap;
use std::error::Error;
use std::process::exit;

use atomics::Atomics;
use callgrind::Part;
use subjects::REGION;

const BOUNDS: &str = include_str!("../bounds.tsv");
const ATOMIC: &str = "control: one atomic";
const ALLOCATION: &str = "control: one allocation";

/// Of one repetition.
#[derive(Debug, Clone, Copy)]
struct Counts {
    instructions: u64,
    allocations: u64,
    /// Known on x86-64 only.
    atomics: Option<u64>,
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("work") => subjects::run(),
        Some("upstream") => miss::upstream().expect("a socket"),
        None => gate(false),
        Some("functions") => gate(true),
        Some(_) => {
            eprintln!("usage: instructions [functions]");
            exit(2);
        }
    }
}

fn gate(functions: bool) {
    match count(functions).and_then(|counts| judge(&counts, BOUNDS)) {
        Ok(broken) if broken.is_empty() => {}
        Ok(broken) => {
            broken.iter().for_each(|line| eprintln!("{line}"));
            exit(1);
        }
        Err(error) => {
            eprintln!("instructions: {error}");
            exit(1);
        }
    }
}

/// Runs all subjects and returns what a repetition of each costs, the harness's own share taken off.
fn count(functions: bool) -> Result<Vec<(String, Counts)>, Box<dyn Error>> {
    let (output, parts) = callgrind::run(&std::env::current_exe()?, REGION)?;
    let lines: Vec<Vec<&str>> = output.lines().map(|line| line.split('\t').collect()).collect();
    if lines.len() != parts.len() {
        return Err(format!("{} subjects, but {} parts:\n{output}", lines.len(), parts.len()).into());
    }
    let mut atomics = Atomics::default();
    let mut counts: Vec<(String, Counts)> = Vec::new();
    for (line, part) in lines.iter().zip(&parts) {
        let [name, times, allocations] = line[..] else { return Err("not a subject's line".into()) };
        let (times, allocations): (u64, u64) = (times.parse()?, allocations.parse()?);
        let harness = counts.first().map_or(0, |(_, nothing)| nothing.instructions);
        let locked = if cfg!(target_arch = "x86_64") { Some(atomics.count(&part.executed)?) } else { None };
        let each = Counts {
            instructions: (part.instructions / times).saturating_sub(harness),
            // A share of one counts as one.
            allocations: allocations.div_ceil(times),
            atomics: locked.map(|locked| locked.div_ceil(times)),
        };
        counts.push((name.to_owned(), each));
        if functions {
            print_functions(name, part, times);
        }
    }
    Ok(counts)
}

fn print_functions(name: &str, part: &Part, times: u64) {
    println!("{name}");
    let mut functions: Vec<_> = part.functions.iter().collect();
    functions.sort_by_key(|(_, instructions)| std::cmp::Reverse(**instructions));
    for (function, instructions) in functions.iter().filter(|(_, instructions)| **instructions >= times) {
        println!("{:>8}  {function}", *instructions / times);
    }
}

/// Prints what was counted beside its bounds; returns what is over them.
fn judge(counts: &[(String, Counts)], bounds: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let by_name: BTreeMap<&str, Counts> = counts.iter().map(|(name, counts)| (&**name, *counts)).collect();
    let mut broken = Vec::new();
    let control = |name| by_name.get(name).ok_or(format!("no {name}"));
    if control(ALLOCATION)?.allocations != 1 || control(ATOMIC)?.atomics.is_some_and(|atomics| atomics != 1) {
        broken.push("the controls are not seen".to_owned());
    }
    println!("{:<40}{:>20}{:>13}{:>9}", "", "instructions", "allocations", "atomics");
    let mut check = |name: &str, counts: Counts, limits: [&str; 3]| {
        let measured = [Some(counts.instructions), Some(counts.allocations), counts.atomics];
        let cells: Vec<String> =
            measured.iter().zip(limits).map(|(number, bound)| cell(*number, bound)).collect();
        println!("{name:<40}{:>20}{:>13}{:>9}", cells[0], cells[1], cells[2]);
        for ((number, bound), what) in
            measured.iter().zip(limits).zip(["instructions", "allocations", "atomics"])
        {
            if let (Some(number), Ok(bound)) = (number, bound.parse::<u64>())
                && *number > bound
            {
                broken.push(format!("{name}: {number} {what}, at most {bound} are allowed"));
            }
        }
    };
    for line in bounds.lines().filter(|line| !line.starts_with('#')) {
        let [name, limits @ ..] = &line.split('\t').collect::<Vec<_>>()[..] else { continue };
        let limits: [&str; 3] = limits.try_into().map_err(|_| format!("bounds.tsv: {line}"))?;
        let counts = find(&by_name, name).ok_or_else(|| format!("bounds.tsv: nobody counts {name}"))?;
        check(name, counts, limits);
    }
    let unbound = counts.iter().map(|(name, _)| name).find(|name| !bounds.contains(&format!("\n{name}\t")));
    broken.extend(unbound.map(|name| format!("bounds.tsv: no line for {name}")));
    if !cfg!(target_arch = "x86_64") {
        println!("Atomic read-modify-writes are not counted on this architecture, only on x86-64.");
    }
    Ok(broken)
}

/// What was counted, or what follows from it.
fn find(counts: &BTreeMap<&str, Counts>, name: &str) -> Option<Counts> {
    let instructions = |name| counts.get(name).map(|counts| counts.instructions);
    let derived = |instructions| Some(Counts { instructions, allocations: 0, atomics: None });
    match name {
        "= batch, per datagram" => derived((instructions("batch of 32")? - instructions("batch of 1")?) / 31),
        "= look-up" => {
            let rest = instructions("parse")? + instructions("key")? + instructions("zone")?;
            derived(instructions("look-up that finds nothing")?.saturating_sub(rest))
        }
        "= copy and patch" => {
            let rest = instructions("look-up that finds nothing")? + instructions("count")?;
            derived(instructions("hit A")?.saturating_sub(rest))
        }
        _ => counts.get(name).copied(),
    }
}

fn cell(number: Option<u64>, bound: &str) -> String {
    match (number, bound) {
        (None, _) => "?".to_owned(),
        (Some(number), "-") => number.to_string(),
        (Some(number), bound) => format!("{number} of {bound}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(hit: [u64; 3], control: [u64; 2], bounds: &str) -> usize {
        let counts = |name: &str, [instructions, allocations, atomics]: [u64; 3]| {
            (name.to_owned(), Counts { instructions, allocations, atomics: Some(atomics) })
        };
        let (allocation, atomic) =
            (counts(ALLOCATION, [9, control[0], 2]), counts(ATOMIC, [9, 0, control[1]]));
        let bounds = format!("# a comment\n{ALLOCATION}\t-\t-\t-\n{ATOMIC}\t-\t-\t-\n{bounds}");
        judge(&[allocation, atomic, counts("hit", hit)], &bounds).unwrap().len()
    }

    #[test]
    fn what_is_over_its_bound_is_told() {
        let bounds = "hit\t700\t0\t0\n";
        assert_eq!(broken([700, 0, 0], [1, 1], bounds), 0);
        assert_eq!(broken([701, 0, 0], [1, 1], bounds), 1);
        assert_eq!(broken([701, 1, 1], [1, 1], bounds), 3);
        assert_eq!(broken([701, 1, 1], [1, 1], "hit\t-\t-\t-\n"), 0);
    }

    #[test]
    fn a_blind_harness_and_a_missing_bound_are_told() {
        assert_eq!(broken([1, 0, 0], [0, 1], "hit\t700\t0\t0\n"), 1);
        assert_eq!(broken([1, 0, 0], [1, 0], "hit\t700\t0\t0\n"), 1);
        assert_eq!(broken([1, 0, 0], [1, 1], ""), 1);
        assert!(judge(&[], "hit\t700\t0\t0\n").is_err());
    }

    #[test]
    fn derived_lines_are_differences() {
        let counts = |instructions| Counts { instructions, allocations: 0, atomics: None };
        let by_name = BTreeMap::from([("batch of 32", counts(410)), ("batch of 1", counts(100))]);
        assert_eq!(find(&by_name, "= batch, per datagram").unwrap().instructions, 10);
    }
}
