//! Text in fields of the kernel's records.

use std::sync::Arc;

use crate::foreign_text::clean;

/// Text from a NUL-terminated kernel field, cleaned; foreign bytes become U+FFFD.
pub fn text(bytes: &[u8]) -> Arc<str> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    clean(&String::from_utf8_lossy(bytes.get(..end).unwrap_or_default())).into()
}
