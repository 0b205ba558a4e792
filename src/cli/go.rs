//! Go's flag syntax: `-x v`, `-x=v`, `--x v`, `--x=v`; a switch takes its value only after `=`.

/// A flag that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// Name or alias, without dashes.
    pub name: String,
    /// Whether it is a switch.
    pub is_switch: bool,
}

/// What Go refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// `-h` or `-help`.
    #[error("help")]
    Help,
    /// A flag nobody defined.
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    /// Three dashes, or none but `=`.
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    /// A flag at the end that wants a value.
    #[error("flag needs an argument: -{0}")]
    MissingValue(String),
}

/// The placeholder in clap's definition that marks a switch.
pub const SWITCH: &str = "BOOL";

/// The flags of a clap definition.
pub fn known(command: &clap::Command) -> Vec<Flag> {
    let mut flags = Vec::new();
    for arg in command.get_arguments() {
        let is_switch = arg.get_value_names().is_some_and(|names| names.iter().any(|name| name == SWITCH));
        let aliases = arg.get_all_aliases().unwrap_or_default();
        for name in arg.get_long().into_iter().chain(aliases) {
            flags.push(Flag { name: name.to_owned(), is_switch });
        }
    }
    flags
}

/// Rewrites the leading flags to `--x=v` and returns them with the words from the first one that is
/// no flag; as in Go, nothing after that word is a flag.
pub fn normalise<'a>(words: &'a [String], known: &[Flag]) -> Result<(Vec<String>, &'a [String]), FlagError> {
    let mut flags = Vec::new();
    let mut rest = words;
    while let Some((word, after)) = rest.split_first() {
        if word == "--" {
            return Ok((flags, after));
        }
        let Some(body) = word.strip_prefix('-').filter(|body| !body.is_empty()) else {
            break;
        };
        let body = body.strip_prefix('-').unwrap_or(body);
        if body.starts_with(['-', '=']) {
            return Err(FlagError::Syntax(word.clone()));
        }
        rest = after;
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        let Some(flag) = known.iter().find(|flag| flag.name == name) else {
            return Err(match name {
                "h" | "help" => FlagError::Help,
                _ => FlagError::Unknown(name.to_owned()),
            });
        };
        let value = match value {
            Some(value) => value,
            None if flag.is_switch => "true",
            None => {
                let Some((value, after)) = rest.split_first() else {
                    return Err(FlagError::MissingValue(name.to_owned()));
                };
                rest = after;
                value
            }
        };
        flags.push(format!("--{name}={value}"));
    }
    Ok((flags, rest))
}

/// What Go's `strconv.ParseBool` reads.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}
