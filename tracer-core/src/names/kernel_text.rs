//! Text in fields of the kernel's records.

use std::sync::Arc;

/// Text from a NUL-terminated kernel field; foreign bytes become U+FFFD, control characters too (they would reach a
/// terminal).
pub fn text(bytes: &[u8]) -> Arc<str> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default())
        .chars()
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect::<String>()
        .into()
}
