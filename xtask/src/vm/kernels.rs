//! Stock Debian kernels, downloaded with apt and unpacked, but not installed.
//!
//! apt runs with a configuration of its own: one suite of this machine's mirror, with lists and caches under
//! `target/vm`. So neither the sources nor the package state of this machine change, and a machine with one release can
//! download the kernels of the others. Downloaded kernels stay; `--update` looks for newer ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use crate::shell::{command, line_of, run, say, target_dir};

/// A series of supported kernels, by the name that `--kernel` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Series {
    /// Debian 11, bullseye.
    #[value(name = "5.10")]
    V5_10,
    /// Debian 12, bookworm.
    #[default]
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13, trixie.
    #[value(name = "6.12")]
    V6_12,
    /// The newest kernel of Debian: that of sid.
    Newest,
}

impl Series {
    pub const ALL: [Self; 4] = [Self::V5_10, Self::V6_1, Self::V6_12, Self::Newest];

    pub const fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Newest => "newest",
        }
    }

    pub const fn release(self) -> &'static str {
        match self {
            Self::V5_10 => "Debian 11",
            Self::V6_1 => "Debian 12",
            Self::V6_12 => "Debian 13",
            Self::Newest => "Debian sid",
        }
    }

    const fn suite(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
            Self::Newest => "sid",
        }
    }
}

/// Modules that the scenarios need, each after the modules that it depends on. A module that is built into a kernel has
/// no file.
const MODULES: [&str; 4] = ["inet_diag", "tcp_diag", "veth", "sch_netem"];
const META_PACKAGE: &str = "linux-image-amd64";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An unpacked kernel.
pub struct Kernel {
    pub series: Series,
    /// Version of its package, as `uname -v` prints it.
    pub version: String,
    pub image: PathBuf,
    /// Files of the uncompressed modules.
    pub modules: Vec<PathBuf>,
}

pub fn directory(series: Series) -> PathBuf {
    target_dir().join("vm").join(series.name())
}

/// The kernel of this series, downloaded if it is missing or `update` is set.
pub fn kernel(series: Series, update: bool) -> Result<Kernel> {
    let unpacked = directory(series).join("kernel");
    if update || !unpacked.join("complete").is_file() {
        fetch(series, &unpacked).with_context(|| {
            format!("fetching the kernel of Debian {}; is its mirror reachable from here?", series.suite())
        })?;
    }
    let version = fs::read_to_string(unpacked.join("complete")).context("reading the kernel's version")?;
    let image = unpacked.join("vmlinuz");
    let modules =
        MODULES.iter().map(|name| unpacked.join(format!("{name}.ko"))).filter(|path| path.is_file()).collect();
    Ok(Kernel { series, version, image, modules })
}

fn fetch(series: Series, unpacked: &Path) -> Result<()> {
    let apt = Apt::new(series)?;
    say(&format!("vm: looking for the kernel of Debian {}", series.suite()));
    run(apt.tool("apt-get").args(["update", "-qq"]))?;
    let (packages, version) = apt.kernel_packages()?;
    let debs = directory(series).join("debs");
    anew(&debs)?;
    run(apt.tool("apt-get").current_dir(&debs).args(["download", "-qq"]).args(&packages))?;
    anew(unpacked)?;
    for deb in files_of(&debs)? {
        unpack(&deb, unpacked)?;
    }
    flatten(unpacked)?;
    ensure!(unpacked.join("vmlinuz").is_file(), "{} hold no vmlinuz", packages.join(", "));
    fs::remove_dir_all(&debs).context("removing the packages")?;
    fs::write(unpacked.join("complete"), version).context("marking the kernel as complete")
}

struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(series: Series) -> Result<Self> {
        ensure!(
            Path::new(KEYRING).is_file(),
            "{KEYRING} is not there: `apt-get install debian-archive-keyring` brings the keys of Debian's releases"
        );
        let place = directory(series).join("apt");
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(place.join(part)).context("creating apt's directories")?;
        }
        let sources = place.join("sources.list");
        let line = format!("deb [arch=amd64 signed-by={KEYRING}] {} {} main\n", mirror()?, series.suite());
        fs::write(&sources, line).context("writing apt's sources")?;
        let place = place.display();
        Ok(Self {
            options: [
                format!("Dir::Etc::SourceList={}", sources.display()),
                "Dir::Etc::SourceParts=-".into(),
                "Dir::Etc::PreferencesParts=-".into(),
                format!("Dir::State::Lists={place}/lists"),
                format!("Dir::Cache={place}/cache"),
                // Only package lists, because translations and icons are most of the download.
                "Acquire::Languages=none".into(),
                "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
                "Acquire::Check-Valid-Until=false".into(),
                "APT::Sandbox::User=root".into(),
                "APT::Architecture=amd64".into(),
            ]
            .into_iter()
            .flat_map(|option| ["-o".to_owned(), option])
            .collect(),
        })
    }

    fn tool(&self, program: &str) -> Command {
        let mut tool = command(program);
        tool.args(&self.options);
        tool
    }

    /// The packages that contain the image and its modules (one up to trixie, several since), and their version.
    fn kernel_packages(&self) -> Result<(Vec<String>, String)> {
        let mut found = Vec::new();
        let mut version = String::new();
        let mut next = vec![META_PACKAGE.to_owned()];
        while let Some(package) = next.pop() {
            let mut show = self.tool("apt-cache");
            show.args(["show", "--no-all-versions", &package]);
            let output = show.output().with_context(|| format!("starting `{}`", line_of(&show)))?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if let Some(this) = text.lines().find_map(|line| line.strip_prefix("Version: ")) {
                this.clone_into(&mut version);
            }
            for needed in dependencies(&text) {
                if !found.contains(&needed) {
                    found.push(needed.clone());
                    next.push(needed);
                }
            }
        }
        ensure!(!found.is_empty(), "{META_PACKAGE} is not to be had from this suite");
        Ok((found, version))
    }
}

/// The kernel packages that one package depends on.
fn dependencies(show: &str) -> Vec<String> {
    let line = show.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or_default();
    line.split(", ")
        .filter_map(|one| one.split_whitespace().next())
        .filter(|name| ["linux-image-", "linux-binary-", "linux-modules-"].iter().any(|kind| name.starts_with(kind)))
        .map(str::to_owned)
        .collect()
}

/// Address of the Debian mirror of this machine's apt.
pub fn mirror() -> Result<String> {
    let mut targets = command("apt-get");
    targets.args(["indextargets", "--format", "$(CREATED_BY)|$(ORIGIN)|$(COMPONENT)|$(REPO_URI)"]);
    let output = targets.output().context("apt-get is not there: the kernels are Debian packages")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(main_archive).map(str::to_owned).context(
        "apt on this machine has no Debian mirror (run `apt-get update` once if it is configured): \
         the kernels are Debian packages",
    )
}

/// The address of the main archive, if this line is about one of its package lists; security updates have an archive of
/// their own.
fn main_archive(target: &str) -> Option<&str> {
    let ["Packages", "Debian", "main", address] = *target.split('|').collect::<Vec<_>>() else { return None };
    (!address.contains("security")).then_some(address)
}

/// Unpacks the image and the modules of a package into one directory.
fn unpack(deb: &Path, to: &Path) -> Result<()> {
    let mut dpkg = command("dpkg-deb");
    dpkg.arg("--fsys-tarfile").arg(deb).stdout(Stdio::piped());
    let mut package = dpkg.spawn().context("starting dpkg-deb")?;
    let mut tar = command("tar");
    tar.arg("-x").arg("-C").arg(to).args(["--wildcards", "--no-anchored", "--transform", "s,.*/,,", "vmlinuz*"]);
    for module in MODULES {
        tar.arg(format!("{module}.ko*"));
    }
    // tar fails if a package lacks one of these files; the caller checks for the image.
    let status = tar.stdin(package.stdout.take().context("dpkg-deb's output")?).stderr(Stdio::null()).status();
    let tar = status.context("starting tar")?;
    let dpkg = package.wait().context("waiting for dpkg-deb")?;
    if !dpkg.success() && tar.success() {
        bail!("unpacking {} failed", deb.display());
    }
    Ok(())
}

/// Renames `vmlinuz-6.1.0-56-amd64` to `vmlinuz` and decompresses modules, which not every kernel does.
fn flatten(unpacked: &Path) -> Result<()> {
    for file in files_of(unpacked)? {
        if file.file_name().unwrap_or_default().to_string_lossy().starts_with("vmlinuz") {
            fs::rename(&file, unpacked.join("vmlinuz")).context("naming the image")?;
        } else if file.extension().is_some_and(|extension| extension == "xz") {
            run(command("xz").arg("--decompress").arg("--force").arg(&file))?;
        }
    }
    Ok(())
}

fn files_of(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// Creates an empty directory, removing an old one.
fn anew(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("clearing {}", directory.display()))?;
    }
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packages_of_a_kernel_are_followed_and_nothing_else() {
        let show = "Package: linux-image-7.2.13+deb14-amd64\nDepends: dracut | initramfs-tools (>= 0.120), \
                    linux-base-7.2.13 (= 1), linux-binary-7.2.13 (= 1), linux-modules-7.2.13 (= 1)\n";
        assert_eq!(dependencies(show), ["linux-binary-7.2.13", "linux-modules-7.2.13"]);
        assert!(dependencies("Package: x\n").is_empty());
    }

    #[test]
    fn the_mirror_is_the_main_archive() {
        let uri = "https://mirror.example/debian/";
        assert_eq!(main_archive(&format!("Packages|Debian|main|{uri}")), Some(uri));
        assert_eq!(main_archive("Packages|Debian|main|https://mirror.example/debian-security/"), None);
        assert_eq!(main_archive(&format!("DEP-11|Debian|main|{uri}")), None);
        assert_eq!(main_archive("Packages|Other|main|https://other.example/"), None);
    }
}
