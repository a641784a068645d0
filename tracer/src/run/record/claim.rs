//! Where a recording goes: refused before anything is traced, made when there is something to record.
//!
//! A wrong path is told at once, and a trace that cannot start leaves nothing behind: no empty file that is in the way of the
//! next attempt, and with --force the old recording as it was.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::keep::{is_numbered, numbered};
use tracer_core::recording::create;

/// See the module.
pub struct Claim {
    path: PathBuf,
    /// The file, empty as yet; removed unless it is taken.
    made: Option<File>,
    /// What --force replaces.
    old: Vec<PathBuf>,
}

impl Claim {
    /// `parts`: a rotation, whose files are numbered.
    ///
    /// # Errors
    /// Something is there and `force` was not given, or nothing can be made there.
    pub fn new(output: &Path, parts: bool, force: bool) -> Result<Self> {
        let path = if parts { numbered(output, 1) } else { output.to_path_buf() };
        let old = if parts { numbered_files(output)? } else { Vec::new() };
        if let Some(first) = old.first()
            && !force
        {
            bail!("{} exists; --force replaces it and every other part", first.display());
        }
        let found = fs::symlink_metadata(&path).ok();
        let replaceable = found.is_some_and(|found| found.is_file() || found.is_symlink());
        if force && replaceable {
            return Ok(Self { path, made: None, old });
        }
        let made = Some(made(&path, false)?);
        Ok(Self { path, made, old })
    }

    /// The file, which is there from now on. What --force replaces is gone.
    ///
    /// # Errors
    /// The file system refused.
    pub fn take(mut self) -> Result<File> {
        for old in &self.old {
            if *old != self.path {
                fs::remove_file(old).with_context(|| format!("removing {}", old.display()))?;
            }
        }
        match self.made.take() {
            Some(file) => Ok(file),
            None => made(&self.path, true),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.made.take().is_some() {
            // Ours and empty; if it cannot be removed, the error that led here matters more.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn made(path: &Path, force: bool) -> Result<File> {
    create(path, force).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => anyhow::anyhow!("{} exists; --force replaces it", path.display()),
        _ => anyhow::Error::new(error).context(format!("creating {}", path.display())),
    })
}

/// The parts of a rotation that are there, oldest first.
fn numbered_files(output: &Path) -> Result<Vec<PathBuf>> {
    let dir = output.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("looking into {}", dir.display()))? {
        let name = entry.with_context(|| format!("looking into {}", dir.display()))?.file_name();
        if is_numbered(output, &name) {
            found.push(output.with_file_name(name));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("portchurn-claim-{}-{name}", std::process::id()));
            fs::create_dir_all(&dir).expect("a directory");
            Self(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_trace_that_does_not_start_leaves_what_was_there() {
        let dir = Dir::new("nothing");
        let path = dir.0.join("a.arrow");
        drop(Claim::new(&path, false, false).expect("room"));
        assert!(!path.exists());
        fs::write(&path, "old").expect("written");
        assert!(Claim::new(&path, false, false).is_err());
        drop(Claim::new(&path, false, true).expect("room"));
        assert_eq!(fs::read(&path).expect("still there"), b"old");
        drop(Claim::new(&path, false, true).and_then(Claim::take).expect("a file"));
        assert_eq!(fs::read(&path).expect("there"), b"");
        assert!(Claim::new(&dir.0.join("no/such.arrow"), false, false).is_err());
    }

    #[test]
    fn parts_of_an_earlier_rotation_are_in_the_way_whatever_their_numbers() {
        let dir = Dir::new("parts");
        let path = dir.0.join("a.arrow");
        for name in ["a.000007.arrow", "a.000008.arrow", "a.7.arrow", "b.000001.arrow", "a.000001.parquet"] {
            fs::write(dir.0.join(name), name).expect("written");
        }
        let error = Claim::new(&path, true, false).map(drop).expect_err("in the way").to_string();
        assert!(error.contains("a.000007.arrow exists"), "{error}");
        let file = Claim::new(&path, true, true).and_then(Claim::take).expect("a file");
        drop(file);
        let mut left: Vec<_> =
            fs::read_dir(&dir.0).expect("a directory").flatten().map(|one| one.file_name()).collect();
        left.sort();
        assert_eq!(left, ["a.000001.arrow", "a.000001.parquet", "a.7.arrow", "b.000001.arrow"]);
    }
}
