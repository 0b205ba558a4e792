//! What of the running cache's Corefile matters here.

use super::super::facts::Process;
use super::Host;

/// `bufsize` of the block that allows most, in octets; of one without it, and of what cannot be read, `None`: clients
/// say how much they take.
pub fn largest_answer(host: &dyn Host, cache: Option<&Process>) -> Option<u32> {
    let cache = cache?;
    let path = cache.flag("conf").unwrap_or("Corefile".to_owned());
    let place = if path.starts_with('/') { "root" } else { "cwd/" };
    largest_bufsize(&host.text(&format!("/proc/{}/{place}{path}", cache.pid)).ok()?)
}

/// Blocks are told by their braces; one that imports its directives counts as one without `bufsize`.
fn largest_bufsize(corefile: &str) -> Option<u32> {
    let mut sizes = Vec::new();
    let mut depth = 0;
    for line in corefile.lines() {
        let words: Vec<&str> = line.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
        if let (1, ["bufsize", size], Some(block)) = (depth, &words[..], sizes.last_mut()) {
            *block = size.parse().ok();
        }
        for word in words {
            match word {
                "{" if depth == 0 => {
                    sizes.push(None);
                    depth = 1;
                }
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
        }
    }
    sizes.into_iter().collect::<Option<Vec<u32>>>()?.into_iter().max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_that_allows_most_counts() {
        let block =
            |directives: &str| format!("example.org {{ # bufsize 1\n  cache {{\n  }}\n  {directives}\n}}\n");
        assert_eq!(largest_bufsize(&block("bufsize 1100")), Some(1100));
        assert_eq!(largest_bufsize(&[block("bufsize 1100"), block("bufsize 1200")].concat()), Some(1200));
        assert_eq!(largest_bufsize(&[block("bufsize 1100"), block("")].concat()), None);
        assert_eq!(largest_bufsize("bufsize 1100"), None);
    }
}
