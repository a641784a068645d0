//! The place of a recording, tried before the trace starts and used when there is something to record.
//!
//! A wrong path is an error at once, and a trace that cannot start leaves everything as it was: no empty file that is in the way of the
//! next attempt, and with --force the old recording.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::sink::{is_part, part_path};
use tracer_core::recording::create;

/// A path at which a recording can be written. Dropping it releases the path.
pub struct OutputReservation {
    path: PathBuf,
    /// The empty file that holds the path, unless an old file does.
    reserved: Option<File>,
    /// Parts of an old rotation, which --force replaces.
    old: Vec<PathBuf>,
}

impl OutputReservation {
    /// Reserves `output`, or with `parts` the first part of a rotation of that name.
    ///
    /// # Errors
    /// A file is there and `force` was not given, or no file can be created there.
    pub fn new(output: &Path, parts: bool, force: bool) -> Result<Self> {
        let path = if parts { part_path(output, 1) } else { output.to_path_buf() };
        let old = if parts { existing_parts(output)? } else { Vec::new() };
        if let Some(first) = old.first()
            && !force
        {
            bail!("{} exists; --force replaces it and every other part", first.display());
        }
        let found = fs::symlink_metadata(&path).ok();
        let replaceable = found.is_some_and(|found| found.is_file() || found.is_symlink());
        if force && replaceable {
            return Ok(Self { path, reserved: None, old });
        }
        let reserved = Some(create_reserved(&path, false)?);
        Ok(Self { path, reserved, old })
    }

    /// Makes the empty file, and removes what --force replaces.
    ///
    /// # Errors
    /// The file could not be created, or an old part could not be removed.
    pub fn into_file(mut self) -> Result<File> {
        for old in &self.old {
            if *old != self.path {
                fs::remove_file(old).with_context(|| format!("removing {}", old.display()))?;
            }
        }
        match self.reserved.take() {
            Some(file) => Ok(file),
            None => create_reserved(&self.path, true),
        }
    }
}

impl Drop for OutputReservation {
    fn drop(&mut self) {
        if self.reserved.take().is_some() {
            // The file is ours and empty. The error that led here matters more than one of its removal.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn create_reserved(path: &Path, force: bool) -> Result<File> {
    create(path, force).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => anyhow::anyhow!("{} exists; --force replaces it", path.display()),
        _ => anyhow::Error::new(error).context(format!("creating {}", path.display())),
    })
}

/// The parts of a rotation that exist, oldest first.
fn existing_parts(output: &Path) -> Result<Vec<PathBuf>> {
    let dir = output.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("looking into {}", dir.display()))? {
        let name = entry.with_context(|| format!("looking into {}", dir.display()))?.file_name();
        if is_part(output, &name) {
            found.push(output.with_file_name(name));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_that_does_not_start_leaves_what_was_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.arrow");
        drop(OutputReservation::new(&path, false, false).expect("room"));
        assert!(!path.exists());
        fs::write(&path, "old").expect("written");
        assert!(OutputReservation::new(&path, false, false).is_err());
        drop(OutputReservation::new(&path, false, true).expect("room"));
        assert_eq!(fs::read(&path).expect("still there"), b"old");
        drop(OutputReservation::new(&path, false, true).and_then(OutputReservation::into_file).expect("a file"));
        assert_eq!(fs::read(&path).expect("there"), b"");
        assert!(OutputReservation::new(&dir.path().join("no/such.arrow"), false, false).is_err());
    }

    #[test]
    fn parts_of_an_earlier_rotation_are_in_the_way_whatever_their_numbers() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.arrow");
        for name in ["a.000007.arrow", "a.000008.arrow", "a.7.arrow", "b.000001.arrow", "a.000001.parquet"] {
            fs::write(dir.path().join(name), name).expect("written");
        }
        let error = OutputReservation::new(&path, true, false).map(drop).expect_err("in the way").to_string();
        assert!(error.contains("a.000007.arrow exists"), "{error}");
        let file = OutputReservation::new(&path, true, true).and_then(OutputReservation::into_file).expect("a file");
        drop(file);
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).expect("a directory").flatten().map(|one| one.file_name()).collect();
        left.sort();
        assert_eq!(left, ["a.000001.arrow", "a.000001.parquet", "a.7.arrow", "b.000001.arrow"]);
    }
}
