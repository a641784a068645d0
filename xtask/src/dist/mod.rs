//! `cargo xtask dist`: what people install, in `target/dist`: a tarball, a .deb, a .rpm and an OCI image, all with the same
//! statically linked binary, its debug symbols apart, and what it is made of.
//!
//! The same source yields the same bytes, in any directory: times are those of the commit, paths are those of the source,
//! and every archive is sorted. Programs that Debian has write the formats (tar, dpkg-deb, rpmbuild), because they define
//! them and cost no build.

mod archive;
mod binary;
mod check;
mod contents;
mod image;
mod inventory;
mod source;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::setup;
use crate::shell::{command, run, say, target_dir};
use contents::{Layout, Tree};
use source::{BOM, DEB, IMAGE, RPM, SYMBOLS, Source, TARBALL};

/// The stripped binary, at the most: what people wait for when they copy it to a host in trouble.
const BINARY_LIMIT: u64 = 20 << 20;
/// The compressed packages, at the most.
const PACKAGE_LIMIT: u64 = 8 << 20;

#[derive(Args, Default)]
pub struct DistOptions {
    /// Build and pack again elsewhere, and compare every byte.
    #[arg(long)]
    verify: bool,
    /// Try what was made: lint, install and run it in fresh Debian chroots, remove it, start the image (as root).
    #[arg(long)]
    check: bool,
    /// Releases of Debian in which --check installs.
    #[arg(long, value_delimiter = ',', default_value = "bullseye,bookworm")]
    debian: Vec<String>,
    /// Pack this statically linked binary and build none.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// Where everything ends up.
pub fn directory() -> PathBuf {
    target_dir().join("dist")
}

pub fn dist(options: &DistOptions) -> Result<()> {
    setup::setup_for_packages()?;
    let source = Source::of_this_tree()?;
    let out = directory();
    let built = match &options.binary {
        Some(binary) => binary.clone(),
        None => binary::build(&source, &target_dir())?,
    };
    let sums = pack(&source, &built, &out)?;
    if options.verify {
        verify(&source, options.binary.as_deref(), &sums)?;
    }
    if options.check {
        check::check(&out, &options.debian)?;
    }
    println!("{}", out.display());
    for (name, sum) in &sums {
        let bytes = fs::metadata(out.join(name)).with_context(|| name.clone())?.len();
        println!("{} {:>7.1} MB  {name}", &sum[..12], bytes as f64 / 1e6);
    }
    Ok(())
}

/// What a CI run tries. Every run lints and installs packages of the binary that CI has built anyway, in one release of
/// Debian by the day; one day of the week, and with `all`, they have the musl binary. That the bytes are the same again is
/// for `all` alone, because it costs a third release build.
pub fn check_in_ci(all: bool, day: u64, built: &Path) -> Result<()> {
    const RELEASES: [&str; 2] = ["bullseye", "bookworm"];
    let whole = all || day.is_multiple_of(7);
    let of_the_day = RELEASES[usize::from(day % 2 == 1)];
    let debian = if all { RELEASES.map(str::to_owned).to_vec() } else { vec![of_the_day.to_owned()] };
    let binary = (!whole).then(|| built.to_path_buf());
    dist(&DistOptions { verify: all, check: true, debian, binary })
}

/// Packs a binary into `out`. Returns the SHA-256 of each file.
fn pack(source: &Source, built: &Path, out: &Path) -> Result<BTreeMap<String, String>> {
    if out.exists() {
        fs::remove_dir_all(out).with_context(|| format!("removing {}", out.display()))?;
    }
    let work = out.with_extension("work");
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
    }
    for dir in [out, &work] {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    let parts = contents::Parts {
        binary: binary::strip(built, &work, &out.join(SYMBOLS))?,
        manual: contents::manual(source, &work)?,
        licences: inventory::licences(&work)?,
    };
    let bytes = fs::metadata(&parts.binary)?.len();
    ensure!(bytes <= BINARY_LIMIT, "the binary has {bytes} bytes, more than the {BINARY_LIMIT} that it may have");
    inventory::sbom(source, &out.join(BOM))?;
    let tree = |layout: Layout| Tree::stage(&parts, layout, &work.join(layout.name()));
    archive::tarball(source, &tree(Layout::Tarball)?, &out.join(TARBALL))?;
    archive::deb(source, &tree(Layout::Deb)?, &out.join(DEB))?;
    archive::rpm(source, &tree(Layout::Rpm)?, &work, &out.join(RPM))?;
    image::write(source, &tree(Layout::Image)?, &work, &out.join(IMAGE))?;
    fs::remove_dir_all(&work).context("removing what was staged")?;
    let sums = sums(out)?;
    for name in [DEB, RPM, TARBALL, IMAGE] {
        let bytes = fs::metadata(out.join(name))?.len();
        ensure!(bytes <= PACKAGE_LIMIT, "{name} has {bytes} bytes, more than the {PACKAGE_LIMIT} that it may have");
    }
    let lines: Vec<String> = sums.iter().map(|(name, sum)| format!("{sum}  {name}")).collect();
    fs::write(out.join("SHA256SUMS"), lines.join("\n") + "\n").context("writing SHA256SUMS")?;
    Ok(sums)
}

/// SHA-256 of each file of a directory, by name.
fn sums(dir: &Path) -> Result<BTreeMap<String, String>> {
    let mut sums = BTreeMap::new();
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        sums.insert(name, archive::sha256(&path)?);
    }
    Ok(sums)
}

/// Builds and packs a copy of the source in another directory; the bytes must be the same.
fn verify(source: &Source, given: Option<&Path>, sums: &BTreeMap<String, String>) -> Result<()> {
    let place = target_dir().join("dist-again");
    let copy = source.copy_to(&place.join("source"))?;
    let built = match given {
        Some(binary) => binary.to_path_buf(),
        None => binary::build(&copy, &place.join("target"))?,
    };
    let again = pack(&copy, &built, &place.join("dist"))?;
    let different: Vec<&String> =
        sums.iter().filter(|(name, sum)| again.get(*name) != Some(sum)).map(|(name, _)| name).collect();
    ensure!(
        different.is_empty() && again.len() == sums.len(),
        "built again in {} these differ: {different:?}",
        place.display()
    );
    say(&format!("dist: built again in another directory, all {} files are the same", sums.len()));
    run(command("rm").arg("-rf").arg(&place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::root;

    #[test]
    fn the_readme_names_the_packages_of_this_version() {
        let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
        for name in [DEB, RPM, TARBALL, IMAGE] {
            assert!(readme.contains(name), "README.md does not name {name}");
        }
    }
}
