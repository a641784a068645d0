//! The source that packages are made from: where it is, which commit, and when that was made.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::shell::{answer, command, root};

/// Version of all packages.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Names of the files that people install.
pub const DEB: &str = concat!("portchurn_", env!("CARGO_PKG_VERSION"), "_amd64.deb");
pub const RPM: &str = concat!("portchurn-", env!("CARGO_PKG_VERSION"), "-1.x86_64.rpm");
pub const TARBALL: &str = concat!("portchurn-", env!("CARGO_PKG_VERSION"), "-x86_64-linux.tar.xz");
pub const IMAGE: &str = concat!("portchurn-", env!("CARGO_PKG_VERSION"), "-amd64.oci.tar");
/// What is in them, and the debug symbols.
pub const BOM: &str = concat!("portchurn-", env!("CARGO_PKG_VERSION"), ".cdx.json");
pub const SYMBOLS: &str = concat!("portchurn-", env!("CARGO_PKG_VERSION"), "-x86_64-linux.debug.xz");

/// A source tree.
pub struct Source {
    pub root: PathBuf,
    /// Short hash, with `-dirty` behind it if files differ from the commit.
    pub commit: String,
    /// Seconds since 1970 that stand in every archive: `SOURCE_DATE_EPOCH`, else the time of the commit.
    pub epoch: u64,
}

impl Source {
    pub fn of_this_tree() -> Result<Self> {
        let git = |arguments: &[&str]| {
            answer(command("git").args(arguments))
                .map(|text| text.trim().to_owned())
                .with_context(|| format!("`git {}` failed: packages are made from a git clone", arguments.join(" ")))
        };
        let mut commit = git(&["rev-parse", "--short=12", "HEAD"])?;
        if !git(&["status", "--porcelain"])?.is_empty() {
            commit += "-dirty";
        }
        let epoch = match env::var("SOURCE_DATE_EPOCH") {
            Ok(epoch) => epoch,
            Err(_) => git(&["log", "-1", "--format=%ct"])?,
        };
        Ok(Self { root: root(), commit, epoch: epoch.trim().parse().context("SOURCE_DATE_EPOCH")? })
    }

    /// Copies the files that git knows, as they are now.
    pub fn copy_to(&self, place: &Path) -> Result<Self> {
        std::fs::create_dir_all(place).with_context(|| format!("creating {}", place.display()))?;
        let mut list = command("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .stdout(Stdio::piped())
            .spawn()?;
        let files = list.stdout.take().context("git ls-files")?;
        let mut tar = command("tar")
            .args(["--create", "--null", "--files-from=-"])
            .stdin(files)
            .stdout(Stdio::piped())
            .spawn()
            .context("starting tar")?;
        let archive = tar.stdout.take().context("tar")?;
        let unpacked = Command::new("tar").arg("--extract").current_dir(place).stdin(archive).status()?;
        ensure!(list.wait()?.success() && tar.wait()?.success() && unpacked.success(), "copying the source failed");
        Ok(Self { root: place.to_path_buf(), commit: self.commit.clone(), epoch: self.epoch })
    }

    /// The day of the commit, `2026-01-31`.
    pub fn day(&self) -> Result<String> {
        self.date("+%Y-%m-%d")
    }

    /// The time of the commit in `date`'s format, in UTC.
    pub fn date(&self, format: &str) -> Result<String> {
        let mut date = command("date");
        date.env("LC_ALL", "C").args(["--utc", &format!("--date=@{}", self.epoch), format]);
        Ok(answer(&mut date).context("`date` failed")?.trim().to_owned())
    }
}
