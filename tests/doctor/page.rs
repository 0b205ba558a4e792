//! The page about the findings says what the code finds.

use std::collections::BTreeSet;

use doorstep::doctor::checks;

const PAGE: &str = include_str!("../../deploy/doctor.md");

#[test]
fn every_finding_has_its_row() {
    let told: Vec<&str> =
        PAGE.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let known: BTreeSet<&str> = checks::all().map(|check| check.id).collect();
    assert_eq!(BTreeSet::from_iter(told.iter().copied()), known);
    assert_eq!(told.len(), known.len(), "a row twice");
}
