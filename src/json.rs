//! JSON (RFC 8259) as the program prints it. What is read goes through `serde_json`.

use std::fmt;

/// A value, written out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json(String);

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object of `members`, in their order; names are taken to be distinct.
pub fn object<'a>(members: impl IntoIterator<Item = (&'a str, Json)>) -> Json {
    let members = members.into_iter().map(|(name, value)| format!("{}: {value}", Json::from(name)));
    Json(format!("{{{}}}", members.collect::<Vec<_>>().join(", ")))
}

/// An array.
impl<T: Into<Json>> FromIterator<T> for Json {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Json {
        let values = values.into_iter().map(|value| value.into().0);
        Json(format!("[{}]", values.collect::<Vec<_>>().join(", ")))
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Json {
        let mut written = String::with_capacity(text.len() + 2);
        written.push('"');
        for letter in text.chars() {
            match letter {
                '"' | '\\' => written.extend(['\\', letter]),
                '\0'..='\x1f' => written.push_str(&format!("\\u{:04x}", u32::from(letter))),
                _ => written.push(letter),
            }
        }
        written.push('"');
        Json(written)
    }
}

impl From<&String> for Json {
    fn from(text: &String) -> Json {
        Json::from(text.as_str())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Json {
        Json::from(text.as_str())
    }
}

impl From<u64> for Json {
    fn from(number: u64) -> Json {
        Json(number.to_string())
    }
}

/// Infinities and NaN, for which JSON has no words, are `null`.
impl From<f64> for Json {
    fn from(number: f64) -> Json {
        Json(if number.is_finite() { number.to_string() } else { "null".into() })
    }
}

impl From<bool> for Json {
    fn from(value: bool) -> Json {
        Json(value.to_string())
    }
}

/// `None` is `null`.
impl<T: Into<Json>> From<Option<T>> for Json {
    fn from(value: Option<T>) -> Json {
        value.map_or_else(|| Json("null".into()), Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let odd = "quote \" backslash \\ newline \n bell \u{7} snowman ☃";
        let written = object([
            (odd, odd.into()),
            ("none", None::<u64>.into()),
            ("numbers", [0, u64::MAX].into_iter().collect()),
            ("ratio", 0.5.into()),
            ("nan", f64::NAN.into()),
            ("empty", object([])),
            ("yes", true.into()),
        ]);
        let read: serde_json::Value = serde_json::from_str(&written.to_string()).unwrap();
        assert_eq!(read[odd], odd);
        assert_eq!(read["numbers"], serde_json::json!([0, u64::MAX]));
        assert_eq!(read["ratio"], 0.5);
        assert!(read["none"].is_null() && read["nan"].is_null());
        assert_eq!(read["empty"], serde_json::json!({}));
        assert_eq!(read["yes"], true);
    }
}
