//! Chains of our own in iptables: made, compared and removed in one run per family.

use crate::node::iptables::{self, Error, Family, Saved, SavedRule};

/// A chain of our own, and the built-in chains that jump to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnChain {
    /// The table it is in.
    pub table: &'static str,
    /// Its name.
    pub name: &'static str,
    /// The chains that jump to it.
    pub hooks: &'static [&'static str],
    /// The comment of the jumps.
    pub comment: &'static str,
    /// Its rules: matches and target as `iptables-save` prints them.
    pub rules: Vec<String>,
}

impl OwnChain {
    /// Everything after `-A ` or `-I ` of the jump from `hook`.
    fn jump(&self, hook: &str) -> String {
        format!("{hook} -m comment --comment \"{}\" -j {}", self.comment, self.name)
    }

    fn exists(&self, saved: &Saved) -> bool {
        saved.chains.iter().any(|(table, chain, _)| table == self.table && chain == self.name)
    }

    /// Every jump to it, from wherever and with whatever matches.
    fn jumps<'a>(&self, saved: &'a Saved) -> Vec<&'a str> {
        let target = format!("-j {}", self.name);
        let leads_here = |rule: &&SavedRule| rule.table == self.table && rule.text.ends_with(&target);
        saved.rules.iter().filter(leads_here).map(|rule| rule.text.as_str()).collect()
    }

    /// Rules that are missing or too many, and jumps that are.
    fn differences(&self, saved: &Saved) -> usize {
        let inside = format!("{} ", self.name);
        let present: Vec<String> = saved
            .rules
            .iter()
            .filter(|rule| rule.table == self.table)
            .filter_map(|rule| rule.text.strip_prefix(&inside))
            // An alias that older tools print.
            .map(|rule| rule.replace("-j NOTRACK", "-j CT --notrack"))
            .collect();
        let missing = self.rules.iter().filter(|rule| !present.contains(rule)).count();
        let surplus = present.len().saturating_sub(self.rules.len() - missing);
        let jumps = self.jumps(saved);
        let wanted: Vec<String> = self.hooks.iter().map(|hook| self.jump(hook)).collect();
        let unjumped = wanted.iter().filter(|jump| !jumps.contains(&jump.as_str())).count();
        let stray = jumps.len() - (wanted.len() - unjumped);
        missing + surplus + unjumped + stray
    }

    /// Makes it anew. What jumps to it stays as long as it is the right jump.
    fn install(&self, saved: &Saved) -> String {
        let jumps = self.jumps(saved);
        let wanted: Vec<String> = self.hooks.iter().map(|hook| self.jump(hook)).collect();
        let mut lines = vec![format!("*{}", self.table), format!(":{} - [0:0]", self.name)];
        lines.extend(self.rules.iter().map(|rule| format!("-A {} {rule}", self.name)));
        let stray = jumps.iter().filter(|jump| !wanted.iter().any(|wanted| wanted == *jump));
        lines.extend(stray.map(|jump| format!("-D {jump}")));
        let missing = wanted.iter().filter(|jump| !jumps.contains(&jump.as_str()));
        lines.extend(missing.map(|jump| format!("-I {jump}")));
        lines.push("COMMIT\n".into());
        lines.join("\n")
    }

    /// Removes it, given the jumps to it.
    fn remove(&self, jumps: &[String]) -> String {
        let mut lines = vec![format!("*{}", self.table)];
        lines.extend(jumps.iter().map(|jump| format!("-D {jump}")));
        lines.extend([format!("-F {}", self.name), format!("-X {}", self.name), "COMMIT\n".into()]);
        lines.join("\n")
    }
}

/// Sees to it that `chains` are there as they should be, and returns how many rules differed.
pub(super) fn install(family: Family, chains: &[OwnChain]) -> Result<usize, Error> {
    if chains.is_empty() {
        return Ok(0);
    }
    let saved = iptables::read(family)?;
    let differences = chains.iter().map(|chain| chain.differences(&saved)).sum();
    if differences > 0 {
        let script: String = chains.iter().map(|chain| chain.install(&saved)).collect();
        iptables::apply(family, &script)?;
    }
    Ok(differences)
}

/// Removes chains that were installed just like this: one run, without looking first. Only if
/// something is otherwise is it looked at: [`remove_found`].
pub(super) fn remove(family: Family, chains: &[OwnChain]) -> Result<(), Error> {
    let script: String = chains
        .iter()
        .rev()
        .map(|chain| chain.remove(&chain.hooks.iter().map(|hook| chain.jump(hook)).collect::<Vec<_>>()))
        .collect();
    match iptables::apply(family, &script) {
        Err(Error::Failed { .. }) => remove_found(family, chains).map(|_| ()),
        outcome => outcome,
    }
}

/// Removes what there is of `chains`, whatever their rules. Returns how many there were.
pub(super) fn remove_found(family: Family, chains: &[OwnChain]) -> Result<usize, Error> {
    let saved = iptables::read(family)?;
    let found: Vec<&OwnChain> = chains.iter().rev().filter(|chain| chain.exists(&saved)).collect();
    let jumps = |chain: &OwnChain| chain.jumps(&saved).into_iter().map(String::from).collect::<Vec<_>>();
    let script: String = found.iter().map(|chain| chain.remove(&jumps(chain))).collect();
    if !found.is_empty() {
        iptables::apply(family, &script)?;
    }
    Ok(found.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> OwnChain {
        OwnChain {
            table: "raw",
            name: "OURS",
            hooks: &["PREROUTING", "OUTPUT"],
            comment: "why",
            rules: vec!["-p udp -j CT --notrack".into()],
        }
    }

    #[test]
    fn only_what_differs_is_touched() {
        let jumps = "-A PREROUTING -m comment --comment \"why\" -j OURS\n\
                     -A OUTPUT -m comment --comment \"why\" -j OURS\n";
        let saved = |rules: &str| Saved::parse(&format!("*raw\n:OURS - [0:0]\n{rules}COMMIT\n"));
        let right = saved(&format!("{jumps}-A OURS -p udp -j NOTRACK\n"));
        assert_eq!(chain().differences(&right), 0);
        let flushed = saved(jumps);
        assert_eq!(chain().differences(&flushed), 1);
        let script = chain().install(&flushed);
        assert_eq!(script, "*raw\n:OURS - [0:0]\n-A OURS -p udp -j CT --notrack\nCOMMIT\n");
        let stray =
            saved(&format!("{jumps}-A OUTPUT -j OURS\n-A OURS -p udp -j CT --notrack\n-A OURS -j RETURN\n"));
        assert_eq!(chain().differences(&stray), 2);
        assert!(chain().install(&stray).contains("-D OUTPUT -j OURS\nCOMMIT"));
        assert_eq!(chain().differences(&Saved::default()), 3);
    }
}
