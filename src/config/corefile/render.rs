//! The tree as text again.

use super::{Corefile, Directive, Word};

/// Writes a Corefile that parses to the same tree.
///
/// Everything in the tree is already expanded, so words that still hold `{$...}` are the one thing
/// that would be read differently.
pub fn render(corefile: &Corefile) -> String {
    let mut out = String::new();
    for block in &corefile.blocks {
        if !out.is_empty() {
            out.push('\n');
        }
        let labels: Vec<String> = block.labels.iter().map(quote).collect();
        out.push_str(&labels.join(" "));
        out.push_str(" {\n");
        for directive in &block.directives {
            write(directive, 1, &mut out);
        }
        out.push_str("}\n");
    }
    out
}

fn write(directive: &Directive, depth: usize, out: &mut String) {
    let indent = "    ".repeat(depth);
    out.push_str(&indent);
    out.push_str(&quote(&directive.name));
    for word in &directive.args {
        out.push(' ');
        out.push_str(&quote(word));
    }
    if let Some(lines) = &directive.body {
        out.push_str(" {\n");
        for line in lines {
            write(line, depth + 1, out);
        }
        out.push_str(&indent);
        out.push('}');
    }
    out.push('\n');
}

/// The word, in quotes when it would mean something else without.
fn quote(word: &Word) -> String {
    let text = word.text.as_str();
    let special = matches!(text, "" | "{" | "}" | "import")
        || text.starts_with(['"', '#', '(', '\u{feff}'])
        || text.contains(|c: char| c.is_whitespace() || c == ',');
    if special { format!("\"{}\"", text.replace('"', "\\\"")) } else { text.to_owned() }
}
