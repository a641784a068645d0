//! The tarball, the .deb and the .rpm, each written by the program that defines its format.
//!
//! Installing enables and starts nothing: no package has a script.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::contents::Tree;
use super::source::{Source, VERSION};
use crate::shell::{answer, command, run};

/// In two lines: what, and for whom.
const SUMMARY: &str = "who is burning the ephemeral ports of this host";
const DESCRIPTION: &[&str] = &[
    "portchurn traces TCP with eBPF and says which workload uses up the ephemeral",
    "ports towards which destination, how soon they run out, who already suffers",
    "from EADDRNOTAVAIL, who owns the sockets in TIME_WAIT, and what would help;",
    "live or from a recording, without touching the applications.",
];
const MAINTAINER: &str = "The portchurn authors <portchurn@packages.invalid>";

/// Adds the tree of a directory to an archive, sorted, with one time and owner.
pub fn tar(source: &Source, root: &Path, to: &Path, compressed: bool) -> Result<()> {
    let mut tar = command("tar");
    tar.args([
        "--create",
        "--format=ustar",
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mode=go=rX,u+rw",
    ])
    .args([&format!("--mtime=@{}", source.epoch), "--file"])
    .arg(to);
    if compressed {
        tar.arg("--use-compress-program=xz -6 --threads=1");
    }
    let mut entries: Vec<_> = fs::read_dir(root)
        .with_context(|| format!("reading {}", root.display()))?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()?;
    entries.sort();
    run(tar.arg("--directory").arg(root).args(entries))
}

pub fn tarball(source: &Source, tree: &Tree, to: &Path) -> Result<()> {
    tar(source, &tree.root, to, true)
}

pub fn deb(source: &Source, tree: &Tree, to: &Path) -> Result<()> {
    let documents = "share/doc/portchurn";
    tree.write(&format!("{documents}/copyright"), include_str!("../../packaging/deb/copyright"))?;
    tree.write("share/lintian/overrides/portchurn", include_str!("../../packaging/deb/lintian-overrides"))?;
    // Debian's form of a changelog; what changed stands in CHANGELOG.md.
    let day = source.date("+%a, %d %b %Y %H:%M:%S +0000")?;
    let entry =
        format!("portchurn ({VERSION}) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- {MAINTAINER}  {day}\n");
    tree.write(&format!("{documents}/changelog"), &entry)?;
    for name in ["changelog", "CHANGELOG.md", "FORMAT.md", "THIRD-PARTY-LICENCES"] {
        tree.compress(&format!("{documents}/{name}"))?;
    }
    let control = tree.root.join("DEBIAN");
    let files = files_below(&tree.usr)?;
    let bytes: u64 = files.iter().map(|file| fs::metadata(file).map_or(0, |data| data.len())).sum();
    let mut sums = String::new();
    for file in &files {
        let relative = file.strip_prefix(&tree.root).context("a file of the tree")?;
        let sum = answer(command("md5sum").arg("--binary").arg(file)).context("md5sum failed")?;
        let sum = sum.split(' ').next().unwrap_or_default();
        writeln!(sums, "{sum}  {}", relative.display())?;
    }
    let description = format!(" {}\n", DESCRIPTION.join("\n "));
    let kilobytes = bytes.div_ceil(1024);
    let text = format!(
        "Package: portchurn\nVersion: {VERSION}\nArchitecture: amd64\nMaintainer: {MAINTAINER}\nSection: net\n\
         Priority: optional\nInstalled-Size: {kilobytes}\nDescription: {SUMMARY}\n{description}"
    );
    fs::create_dir_all(&control).context("creating DEBIAN")?;
    fs::write(control.join("control"), text).context("writing control")?;
    fs::write(control.join("md5sums"), sums).context("writing md5sums")?;
    run(command("chmod").args(["--recursive", "go=rX,u=rwX"]).arg(&tree.root))?;
    run(command("dpkg-deb")
        .env("SOURCE_DATE_EPOCH", source.epoch.to_string())
        // xz, because dpkg of Debian 11 knows no zstd; one thread, because the bytes depend on their number.
        .args(["--root-owner-group", "-Zxz", "-z6", "--threads-max=1", "--build"])
        .arg(&tree.root)
        .arg(to))
}

pub fn rpm(source: &Source, tree: &Tree, work: &Path, to: &Path) -> Result<()> {
    let build = work.join("rpmbuild");
    let spec = work.join("portchurn.spec");
    fs::write(&spec, include_str!("../../packaging/portchurn.spec")).context("writing the spec file")?;
    let define = |name: &str, value: &str| format!("--define={name} {value}");
    run(command("chmod").args(["--recursive", "go=rX,u=rwX"]).arg(&tree.root))?;
    run(command("rpmbuild")
        .env("SOURCE_DATE_EPOCH", source.epoch.to_string())
        .args(["-bb", "--quiet", "--target=x86_64"])
        .arg(define("_topdir", &build.to_string_lossy()))
        .arg(define("staged", &tree.root.to_string_lossy()))
        .arg(define("package_version", VERSION))
        .arg(define("package_day", &source.date("+%a %b %d %Y")?))
        .arg(&spec))?;
    let built = build.join(format!("RPMS/x86_64/portchurn-{VERSION}-1.x86_64.rpm"));
    fs::rename(&built, to).with_context(|| format!("moving {}", built.display()))
}

/// All files below a directory, sorted.
fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() { files.extend(files_below(&path)?) } else { files.push(path) }
    }
    files.sort();
    Ok(files)
}

/// SHA-256 of a file.
pub fn sha256(path: &Path) -> Result<String> {
    let printed = answer(command("sha256sum").arg("--binary").arg(path)).unwrap_or_default();
    let Some((sum, _)) = printed.split_once(' ') else { bail!("sha256sum of {} failed", path.display()) };
    Ok(sum.trim_start_matches('\\').to_owned())
}
