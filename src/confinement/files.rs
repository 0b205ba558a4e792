//! Landlock (Linux 5.13): files, TCP ports and other processes out of reach, whoever this user is.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags,
};

use super::Extent;

/// Linux 6.12. An older kernel holds to what it knows of it.
const KNOWN: ABI = ABI::V6;
/// A Corefile may import from anywhere.
const EVERYWHERE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
/// To write a file beside another and rename it.
const BENEATH: BitFlags<AccessFs> = make_bitflags!(AccessFs::{WriteFile | Truncate | MakeReg | RemoveFile});

/// No file is executed, none written except beneath `writable`, no TCP port bound, no process outside
/// signalled.
pub fn restrict(writable: Option<&Path>) -> Result<Extent, RulesetError> {
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(KNOWN))?
        .create()?;
    let beneath = |path, access| PathFd::new(path).map(|directory| PathBeneath::new(directory, access));
    if let Ok(root) = beneath(Path::new("/"), EVERYWHERE) {
        ruleset = ruleset.add_rule(root)?;
    }
    // Where there is no directory, there will be no file either.
    if let Some(Ok(directory)) = writable.map(|path| beneath(path, BENEATH)) {
        ruleset = ruleset.add_rule(directory)?;
    }
    let RestrictionStatus { ruleset, .. } = ruleset.restrict_self()?;
    Ok(match ruleset {
        RulesetStatus::FullyEnforced => Extent::Whole,
        RulesetStatus::PartiallyEnforced => Extent::Part("this kernel's is older".into()),
        RulesetStatus::NotEnforced => Extent::Part("this kernel has none".into()),
    })
}
