//! Command lines from the raw bytes of arguments, in the form that the kernel shows in `/proc/PID/cmdline`, and the
//! application pool in a process title.
//!
//! Not for: reading `/proc`. The bytes come from there or from a [`tracer_common::TaskRecord`].

use std::sync::Arc;

use crate::foreign_text::is_unprintable;

/// Marks a command line that was cut.
const CUT: char = '…';
/// php-fpm titles its workers so; its master is `php-fpm: master process (...)`.
const FPM_TITLE: &str = "php-fpm: pool ";

/// The command line in `bytes`, the first bytes from `mm->arg_start` on. The arguments are `argv_len` bytes long, of
/// which `bytes` may be the beginning.
///
/// The rules are those of `get_mm_cmdline` in `fs/proc/base.c`. If the last byte of the arguments is not NUL, the
/// process has overwritten them with setproctitle(3), and the title ends at the first NUL, possibly past the arguments.
/// Otherwise the arguments are separated by NULs, which become spaces. `None` if there is no text: a kernel thread, or
/// memory that could not be read.
pub fn from_record(bytes: &[u8], argv_len: u32) -> Option<Arc<str>> {
    let argv_len = usize::try_from(argv_len).unwrap_or(usize::MAX);
    let last = argv_len.checked_sub(1)?;
    match bytes.get(last) {
        Some(0) => joined(bytes.get(..argv_len)?, false),
        Some(_) => {
            let end = bytes.iter().position(|&byte| byte == 0);
            let title = bytes.get(..end.unwrap_or(bytes.len()))?;
            joined(title, end.is_none())
        }
        // The last byte of the arguments is not in `bytes`. A title is padded with several NULs: then nothing is
        // missing.
        None => joined(bytes, !bytes.ends_with(&[0, 0])),
    }
}

/// The command line in the contents of `/proc/PID/cmdline`, where the kernel has applied those rules. It is cut at
/// `limit` bytes, so that a process has the same name from a record and from `/proc`.
pub fn from_proc(bytes: &[u8], limit: usize) -> Option<Arc<str>> {
    match bytes.get(..limit) {
        Some(kept) if bytes.len() > limit => joined(kept, !kept.ends_with(&[0, 0])),
        _ => joined(bytes, false),
    }
}

fn joined(bytes: &[u8], cut: bool) -> Option<Arc<str>> {
    let end = bytes.iter().rposition(|&byte| byte != 0)? + 1;
    let mut bytes = bytes.get(..end)?;
    if cut {
        bytes = whole_characters(bytes);
    }
    let mut line: String = String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| match c {
            '\0' => ' ',
            c if is_unprintable(c) => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect();
    line.truncate(line.trim_end().len());
    if cut {
        line.push(CUT);
    }
    (!line.is_empty()).then(|| line.into())
}

/// `bytes` without the beginning of a UTF-8 character whose rest was cut off; other invalid bytes stay.
fn whole_characters(bytes: &[u8]) -> &[u8] {
    let broken = bytes.utf8_chunks().last().map_or(0, |chunk| chunk.invalid().len());
    // Only a lead byte begins a character that may have been cut.
    match bytes.len().checked_sub(broken).map(|start| bytes.split_at(start)) {
        Some((whole, [0xc2..=0xf4, ..])) => whole,
        _ => bytes,
    }
}

/// The pool in the title of a php-fpm worker (`php-fpm: pool www`). A child that the worker forks keeps the title, and
/// so the pool, until it calls exec.
pub fn pool(cmdline: &str) -> Option<Arc<str>> {
    let name = cmdline.strip_prefix(FPM_TITLE)?.trim();
    (!name.is_empty()).then(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: usize = 256;

    fn memory(text: &[u8]) -> [u8; KEPT] {
        let mut bytes = [0; KEPT];
        for (to, from) in bytes.iter_mut().zip(text) {
            *to = *from;
        }
        bytes
    }

    fn line(text: &[u8], argv_len: u32) -> Option<String> {
        from_record(&memory(text), argv_len).map(|line| line.to_string())
    }

    #[test]
    fn arguments_are_joined_by_spaces_and_end_where_the_kernel_says() {
        assert_eq!(line(b"curl\0-s\0http://a/\0HOME=/root\0", 18).as_deref(), Some("curl -s http://a/"));
        assert_eq!(line(b"prog\0\0x\0", 8).as_deref(), Some("prog  x"), "an empty argument stays visible");
        assert_eq!(line(b"", 0), None);
        assert_eq!(line(b"\0\0\0\0", 4), None);
    }

    #[test]
    fn a_title_runs_to_the_first_nul_even_past_the_arguments() {
        // argv was "php-fpm8.2\0", 11 bytes; the title is longer.
        assert_eq!(line(b"php-fpm: pool www\0GARBAGE=1\0", 11).as_deref(), Some("php-fpm: pool www"));
        // Shorter than the arguments and padded with NULs: the other branch of the kernel's, the same answer.
        assert_eq!(line(b"php-fpm: pool www\0\0\0\0\0\0\0", 24).as_deref(), Some("php-fpm: pool www"));
        // Padded with spaces up to the end, as others do.
        assert_eq!(line(b"nginx: worker process      \0X=1\0", 27).as_deref(), Some("nginx: worker process"));
    }

    #[test]
    fn what_was_cut_says_so() {
        let long = [b'a'; KEPT];
        let cut = from_record(&long, 1000).expect("text");
        assert_eq!((cut.chars().count(), cut.ends_with(CUT)), (KEPT + 1, true));
        let title = from_record(&long, 8).expect("text");
        assert!(title.ends_with(CUT), "a title without a NUL in the kept bytes");
        assert!(!from_record(&memory(b"php-fpm: pool www"), 1000).expect("text").ends_with(CUT), "padding is no loss");
        let whole = line(&[b'a'; KEPT - 1], 256).expect("text");
        assert!(!whole.ends_with(CUT), "256 bytes with the NUL are all kept");
    }

    #[test]
    fn a_character_cut_in_two_is_left_out_and_foreign_bytes_are_replaced() {
        let mut bytes = [b'a'; KEPT];
        bytes[KEPT - 1] = 0xc3; // first half of 'é'
        assert_eq!(from_record(&bytes, 1000).expect("text").chars().nth_back(1), Some('a'));
        bytes[KEPT - 1] = 0xff;
        assert_eq!(from_record(&bytes, 1000).expect("text").chars().nth_back(1), Some(char::REPLACEMENT_CHARACTER));
        assert_eq!(line(b"a\x1b[31m\xffb\0", 9).as_deref(), Some("a\u{fffd}[31m\u{fffd}b"));
    }

    #[test]
    fn proc_and_record_agree() {
        assert_eq!(from_proc(b"curl\0-s\0", KEPT).as_deref(), Some("curl -s"));
        let long = vec![b'a'; 1000];
        assert_eq!(from_proc(&long, KEPT), from_record(&[b'a'; KEPT], 1000));
        assert_eq!(from_proc(b"", KEPT), None);
    }

    #[test]
    fn the_pool_is_the_end_of_the_title() {
        assert_eq!(pool("php-fpm: pool www").as_deref(), Some("www"));
        assert_eq!(pool("php-fpm: master process (/etc/php/8.2/fpm/php-fpm.conf)"), None);
        assert_eq!(pool("php-fpm: pool "), None);
        assert_eq!(pool("/usr/bin/php-fpm: pool x"), None);
    }
}
