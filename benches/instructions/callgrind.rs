//! Runs a program in callgrind and reads what it counted.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Executions by place: object file, address in it.
pub type Executed = BTreeMap<(String, u64), u64>;

/// One pass through the region.
pub struct Part {
    pub instructions: u64,
    pub executed: Executed,
    /// Instructions by function, those inlined counted where they are.
    pub functions: BTreeMap<String, u64>,
}

/// Runs `program work`; returns its standard output and one part for each time it left `region`.
pub fn run(program: &Path, region: &str) -> Result<(String, Vec<Part>), Box<dyn Error>> {
    let home = tempfile::tempdir()?;
    let file = home.path().join("out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--dump-instr=yes", "--dump-line=no"])
        .args(["--compress-strings=no", "--compress-pos=no", "--combine-dumps=no"])
        .arg(format!("--toggle-collect={region}"))
        .arg(format!("--dump-after={region}"))
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program)
        .arg("work")
        .output()
        .map_err(|error| format!("Debian package valgrind: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let parts = (1..).map(|index| PathBuf::from(format!("{}.{index}", file.display())));
    let parts = parts.map_while(|file| fs::read_to_string(file).ok()).map(|text| Part::read(&text));
    Ok((String::from_utf8(output.stdout)?, parts.collect::<Result<_, _>>()?))
}

impl Part {
    /// Reads a file as "Callgrind Format Specification" of valgrind's manual describes it: names of what
    /// follows, and lines of address and cost. The line after `calls=` tells what the callee cost, which
    /// is also in the callee's own lines.
    fn read(text: &str) -> Result<Part, Box<dyn Error>> {
        let (mut executed, mut functions) = (Executed::new(), BTreeMap::new());
        let (mut object, mut function) = (String::new(), String::new());
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(name) = line.strip_prefix("ob=") {
                name.clone_into(&mut object);
            } else if let Some(name) = line.strip_prefix("fn=") {
                name.clone_into(&mut function);
            } else if line.starts_with("calls=") {
                lines.next();
            } else if let Some(place) = line.strip_prefix("0x") {
                let (address, cost) = place.split_once(' ').ok_or("a place without cost")?;
                let cost: u64 = cost.trim().parse()?;
                *executed.entry((object.clone(), u64::from_str_radix(address, 16)?)).or_default() += cost;
                *functions.entry(function.clone()).or_default() += cost;
            }
        }
        Ok(Part { instructions: executed.values().sum(), executed, functions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callees_cost_counts_once() {
        let text = "positions: instr\nevents: Ir\n\nob=/a\nfl=x\nfn=f\n0x10 3\ncob=/b\ncfn=g\ncalls=1 0x90\n\
                    0x14 40\n0x18 2\n\nob=/b\nfn=g\n0x90 40\n";
        let part = Part::read(text).unwrap();
        assert_eq!(part.instructions, 45);
        assert_eq!(part.functions["f"], 5);
        assert_eq!(part.executed[&("/b".into(), 0x90)], 40);
    }
}
