//! Rust sources, as far as the rules about layers need to understand them.

/// A source file.
pub struct Source {
    /// Path below `src`.
    pub path: String,
    pub text: String,
}

/// A path that starts at the crate's root, such as `cache::Config`, and the name it is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CratePath {
    pub line: usize,
    pub segments: Vec<String>,
    pub alias: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Mark(char),
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    /// The top module it belongs to: `wire` for `wire/name.rs` and `wire.rs`.
    pub fn module(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap_or("")
    }

    /// Whether nothing in it is part of the program.
    pub fn is_test(&self) -> bool {
        self.path.split('/').any(|part| part == "tests" || part == "tests.rs")
    }

    /// The file without the test module that ends it.
    pub fn program(&self) -> &str {
        let end = if self.is_test() { Some(0) } else { self.text.find("#[cfg(test)]\nmod tests {") };
        &self.text[..end.unwrap_or(self.text.len())]
    }

    /// Every path from the crate's root, use trees spread out.
    pub fn crate_paths(&self) -> Vec<CratePath> {
        let tokens = tokens(&self.text);
        let program = self.program().lines().count();
        let mut paths = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            // In the test module `super` is the file itself.
            let depth = if tokens[at].0 <= program { self.depth() } else { usize::MAX };
            let inside = at > 1 && is_separator(&tokens, at - 2);
            let starts = if inside { None } else { root(&tokens, at, depth) };
            match starts {
                Some(next) => at = tree(&tokens, next, &mut Vec::new(), &mut paths),
                None => at += 1,
            }
        }
        paths
    }

    /// What follows `module::` wherever that stands without anything before it.
    pub fn members_of(&self, module: &str) -> Vec<(usize, String)> {
        let tokens = tokens(&self.text);
        let member = |at: usize| match (&tokens[at].1, tokens.get(at + 3)) {
            (Token::Word(word), Some((line, Token::Word(member))))
                if word == module
                    && is_separator(&tokens, at + 1)
                    && !(at > 1 && is_separator(&tokens, at - 2))
                    && !is_mark(&tokens, at.wrapping_sub(1), '.') =>
            {
                Some((*line, member.clone()))
            }
            _ => None,
        };
        (0..tokens.len()).filter_map(member).collect()
    }

    /// Lines on which `word` stands outside comments and strings.
    pub fn lines_with(&self, word: &str) -> Vec<usize> {
        let wanted = Token::Word(word.to_owned());
        tokens(self.program())
            .into_iter()
            .filter(|(_, token)| *token == wanted)
            .map(|(line, _)| line)
            .collect()
    }

    /// String literals of the program, with their lines.
    pub fn strings(&self) -> Vec<(usize, String)> {
        let text = |(line, token)| match token {
            Token::Text(text) => Some((line, text)),
            _ => None,
        };
        tokens(self.program()).into_iter().filter_map(text).collect()
    }

    /// How many `super::` lead to the crate's root.
    fn depth(&self) -> usize {
        let parts: Vec<&str> = self.path.trim_end_matches(".rs").split('/').collect();
        parts.len() - usize::from(parts.last() == Some(&"mod"))
    }
}

fn is_mark(tokens: &[(usize, Token)], at: usize, mark: char) -> bool {
    tokens.get(at).is_some_and(|(_, token)| *token == Token::Mark(mark))
}

/// Whether `::` begins at `at`.
fn is_separator(tokens: &[(usize, Token)], at: usize) -> bool {
    is_mark(tokens, at, ':') && is_mark(tokens, at + 1, ':')
}

/// If `crate::`, or as many `super::` as lead there, stand at `at`: where the path goes on.
fn root(tokens: &[(usize, Token)], mut at: usize, depth: usize) -> Option<usize> {
    let is = |at: usize, word: &str| matches!(tokens.get(at), Some((_, Token::Word(found))) if found == word);
    if is(at, "crate") && is_separator(tokens, at + 1) {
        return Some(at + 3);
    }
    let mut supers = 0;
    while is(at, "super") && is_separator(tokens, at + 1) {
        supers += 1;
        at += 3;
    }
    (supers > 0 && supers >= depth).then_some(at)
}

/// Reads a use tree or path at `at`; gives back where it ends.
fn tree(
    tokens: &[(usize, Token)],
    mut at: usize,
    prefix: &mut Vec<String>,
    paths: &mut Vec<CratePath>,
) -> usize {
    let length = prefix.len();
    let line = tokens.get(at).map_or(0, |(line, _)| *line);
    loop {
        match tokens.get(at).map(|(_, token)| token) {
            Some(Token::Word(word)) => prefix.push(word.clone()),
            Some(Token::Mark('*')) => prefix.push("*".into()),
            Some(Token::Mark('{')) => {
                at += 1;
                while at < tokens.len() && tokens[at].1 != Token::Mark('}') {
                    at = match tokens[at].1 {
                        Token::Mark(',') => at + 1,
                        _ => tree(tokens, at, prefix, paths).max(at + 1),
                    };
                }
                prefix.truncate(length);
                return at + 1;
            }
            _ => break,
        }
        at += 1;
        if !is_separator(tokens, at) {
            break;
        }
        at += 2;
    }
    let mut alias = None;
    if let [(_, Token::Word(word)), (_, Token::Word(name)), ..] = &tokens[at.min(tokens.len())..]
        && word == "as"
    {
        alias = Some(name.clone());
        at += 2;
    }
    let segments = prefix.iter().filter(|segment| *segment != "self").cloned().collect();
    paths.push(CratePath { line, segments, alias });
    prefix.truncate(length);
    at
}

/// Words, string literals and marks with their lines; comments and characters left out.
fn tokens(text: &str) -> Vec<(usize, Token)> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(&c) = chars.get(at) {
        let start = at;
        let token = match (c, chars.get(at + 1)) {
            ('/', Some('/')) => {
                at += chars[at..].iter().take_while(|c| **c != '\n').count();
                None
            }
            ('/', Some('*')) => {
                at = find(&chars, at + 2, &['*', '/']);
                None
            }
            ('r', Some('"' | '#')) if raw_quote(&chars, at + 1).is_some() => {
                let (open, close) = raw_quote(&chars, at + 1).unwrap_or_default();
                at = find(&chars, open, &close);
                Some(Token::Text(chars[open..at - close.len()].iter().collect()))
            }
            ('"', _) => {
                at += 1;
                while chars.get(at).is_some_and(|c| *c != '"') {
                    at += if chars[at] == '\\' { 2 } else { 1 };
                }
                at += 1;
                Some(Token::Text(chars[start + 1..(at - 1).min(chars.len())].iter().collect()))
            }
            ('\'', Some('\\')) => {
                at = find(&chars, at + 3, &['\'']);
                None
            }
            ('\'', Some(_)) if chars.get(at + 2) == Some(&'\'') => {
                at += 3;
                None
            }
            _ if c.is_alphanumeric() || c == '_' => {
                at += chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
                Some(Token::Word(chars[start..at].iter().collect()))
            }
            _ => {
                at += 1;
                (!c.is_whitespace()).then_some(Token::Mark(c))
            }
        };
        tokens.extend(token.map(|token| (line, token)));
        at = at.min(chars.len());
        line += chars[start..at].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

/// Where the text of a raw string begins whose `#`s begin at `at`, and what ends it.
fn raw_quote(chars: &[char], at: usize) -> Option<(usize, Vec<char>)> {
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    let close = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    (chars.get(at + hashes) == Some(&'"')).then_some((at + hashes + 1, close))
}

/// Offset after the next `pattern` at or after `from`.
fn find(chars: &[char], from: usize, pattern: &[char]) -> usize {
    let rest = chars.get(from..).unwrap_or_default();
    let found = rest.windows(pattern.len()).position(|window| window == pattern);
    found.map_or(chars.len(), |offset| from + offset + pattern.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(path: &str, text: &str) -> Vec<String> {
        let paths = Source::new(path, text).crate_paths().into_iter();
        paths
            .map(|path| {
                path.segments.join("::") + &path.alias.map(|a| " as ".to_owned() + &a).unwrap_or_default()
            })
            .collect()
    }

    #[test]
    fn use_trees_are_spread_out() {
        let text =
            "use crate::{a, b as c, d::{self, e::F, G}};\nlet x = crate::h::i(1);\nuse std::crate_x::y;";
        assert_eq!(paths("m.rs", text), ["a", "b as c", "d", "d::e::F", "d::G", "h::i"]);
        assert_eq!(paths("m.rs", "use crate::a::*; pub(in crate::b) fn f() {}"), ["a::*", "b"]);
    }

    #[test]
    fn supers_that_lead_to_the_root_count() {
        assert_eq!(paths("m/n.rs", "use super::super::a::B; use super::c::D;"), ["a::B"]);
        assert_eq!(paths("m/mod.rs", "use super::a::B;"), ["a::B"]);
        assert_eq!(paths("m.rs", "use super::a::B;"), ["a::B"]);
    }

    #[test]
    fn comments_and_strings_are_no_code() {
        let text = "// crate::a\n/* crate::b */ \"crate::c\" r#\"crate::\"d\"# '\"' crate::e '\\'' crate::f";
        assert_eq!(paths("m.rs", text), ["e", "f"]);
        let strings = Source::new("m.rs", "let a = \"b\\\"c\";\n// \"d\"\nr\"e\"").strings();
        assert_eq!(strings, [(1, "b\\\"c".to_owned()), (3, "e".to_owned())]);
    }

    #[test]
    fn members_of_a_module() {
        let text = "server::Block; x.server::no(); a::server::No; |s: server::Config|";
        let members: Vec<_> =
            Source::new("m.rs", text).members_of("server").into_iter().map(|(_, name)| name).collect();
        assert_eq!(members, ["Block", "Config"]);
    }
}
