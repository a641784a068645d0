//! Text that somebody else chose: names of processes, namespaces and containers, and every text of a recording.
//!
//! It is cleaned where it is decoded and nowhere else, so that no output has to think of it: what an attacker puts into a process title or
//! into a file is inert in a terminal, in a log and on a page. What a format demands beyond that (quotes, markup, formulas of CSV) is the
//! business of the output.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Longest text in bytes: a path has at most as many (`PATH_MAX`). Longer ones are cut, or a crafted recording could fill the memory with
/// names of processes.
pub const MAX_BYTES: usize = 4_096;
/// Stands for the rest of a text that is longer.
const CUT: char = '\u{2026}';
/// Strings inside strings of a JSON text: what is nested deeper belongs to no version of ours.
const MAX_DEPTH: u32 = 16;

/// True for a character that changes how a terminal or a reader sees the text around it instead of being seen itself: C0, DEL and C1
/// controls, line separators, marks of direction, joiners, fillers and tags.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// The text without such characters, each replaced by U+FFFD, and cut at [`MAX_BYTES`].
pub fn clean(text: &str) -> Cow<'_, str> {
    clean_up_to(text, MAX_BYTES)
}

/// The same, cut at `most` bytes.
pub fn clean_up_to(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most && !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut kept = String::with_capacity(text.len().min(most));
    for c in text.chars() {
        let c = if is_unprintable(c) { char::REPLACEMENT_CHARACTER } else { c };
        if kept.len() + c.len_utf8() > most {
            kept.push(CUT);
            break;
        }
        kept.push(c);
    }
    Cow::Owned(kept)
}

/// A value out of the JSON of a recording, all its strings cleaned and cut at `most` bytes.
///
/// # Errors
/// [`serde_json::Error`]: it is no JSON, or not that of a `T`.
pub fn from_json<T: DeserializeOwned>(text: &str, most: usize) -> serde_json::Result<T> {
    // JSON has no control characters but in escapes, and few rows have an escape.
    if text.len() <= most && !text.contains('\\') && !text.contains(is_unprintable) {
        return serde_json::from_str(text);
    }
    let mut value = serde_json::from_str(text)?;
    clean_value(&mut value, most, MAX_DEPTH);
    serde_json::from_value(value)
}

fn clean_value(value: &mut Value, most: usize, depth: u32) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(cleaned) = clean_up_to(text, most) {
                *text = cleaned;
            }
        }
        Value::Array(_) | Value::Object(_) if depth == 0 => *value = Value::Null,
        Value::Array(values) => values.iter_mut().for_each(|value| clean_value(value, most, depth - 1)),
        Value::Object(fields) => fields.values_mut().for_each(|value| clean_value(value, most, depth - 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_itself_is_replaced_and_letters_stay() {
        // An escape sequence, its C1 form, DEL, a turn of the direction, a joiner, a line separator, a tag.
        let hostile = "a\u{1b}[2J\u{9b}2J\u{7f}\u{202e}\u{200b}\u{2028}\u{e0041}b\n";
        let cleaned = clean(hostile);
        assert!(!cleaned.contains(is_unprintable), "{cleaned:?}");
        assert_eq!(cleaned.chars().count(), hostile.chars().count());
        for text in ["php-fpm: pool www", "\u{65e5}\u{672c}", "e\u{301}t\u{e9}", "\u{1f980}"] {
            assert!(matches!(clean(text), Cow::Borrowed(same) if same == text), "{text:?}");
        }
    }

    #[test]
    fn a_text_of_any_length_has_a_bound() {
        let cleaned = clean_up_to("\u{e9}\u{e9}\u{e9}", 5);
        assert_eq!(cleaned, "\u{e9}\u{e9}\u{2026}");
        assert!(clean(&"x".repeat(1 << 20)).len() <= MAX_BYTES + CUT.len_utf8());
    }

    #[test]
    fn escapes_of_json_are_no_way_round() {
        let names: Vec<String> = from_json(r#"["\u001b]0;x\u0007","plain","\u202e"]"#, MAX_BYTES).expect("JSON");
        assert_eq!(names, ["\u{fffd}]0;x\u{fffd}", "plain", "\u{fffd}"]);
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        assert!(from_json::<Value>(&format!("[\"\\u001b\",{deep}]"), MAX_BYTES).is_ok());
    }
}
