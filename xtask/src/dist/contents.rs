//! What a package holds, and where each kind of package wants it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::source::{Source, VERSION};
use crate::shell::{cargo, command, root, run};

/// What all packages are made of.
pub struct Parts {
    pub binary: PathBuf,
    /// Directory with `man` and `completions`.
    pub manual: PathBuf,
    /// Licences of everything that is linked in.
    pub licences: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// To be unpacked in /usr/local or anywhere else.
    Tarball,
    Deb,
    Rpm,
    Image,
}

impl Layout {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tarball => "tarball",
            Self::Deb => "deb",
            Self::Rpm => "rpm",
            Self::Image => "image",
        }
    }

    /// Where /usr of the package begins in its tree.
    fn prefix(self) -> PathBuf {
        match self {
            Self::Tarball => format!("portchurn-{VERSION}").into(),
            _ => "usr".into(),
        }
    }

    /// What `portchurn doctor` says about where it comes from.
    fn origin(self) -> String {
        match self {
            Self::Tarball => format!("tarball portchurn-{VERSION}"),
            Self::Deb => format!("Debian package portchurn_{VERSION}"),
            Self::Rpm => format!("RPM package portchurn-{VERSION}"),
            Self::Image => format!("OCI image portchurn:{VERSION}"),
        }
    }
}

/// The files of a package, in a directory.
pub struct Tree {
    pub root: PathBuf,
    /// Directory with `bin` and `share`.
    pub usr: PathBuf,
}

impl Tree {
    pub fn stage(parts: &Parts, layout: Layout, to: &Path) -> Result<Self> {
        let tree = Self { root: to.to_path_buf(), usr: to.join(layout.prefix()) };
        tree.add(&parts.binary, "bin/portchurn", 0o755)?;
        tree.write("share/portchurn/package", &(layout.origin() + "\n"))?;
        let documents = "share/doc/portchurn";
        tree.add(&parts.licences, &format!("{documents}/THIRD-PARTY-LICENCES"), 0o644)?;
        if layout == Layout::Image {
            // Nobody reads manuals in there, but the licences must come with the binary.
            return Ok(tree);
        }
        let mut read =
            vec!["CHANGELOG.md", "tracer-core/schema/report.schema.json", "tracer-core/src/recording/FORMAT.md"];
        if layout != Layout::Deb {
            // In the .deb the file `copyright` says it.
            read.extend(["LICENSE-MIT", "LICENSE-APACHE"]);
        }
        for path in read {
            let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy();
            tree.add(&root().join(path), &format!("{documents}/{name}"), 0o644)?;
        }
        for entry in fs::read_dir(parts.manual.join("man")).context("the man pages")? {
            let page = entry?.path();
            let name = page.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let staged = format!("share/man/man1/{name}");
            tree.add(&page, &staged, 0o644)?;
            tree.compress(&staged)?;
        }
        let zsh = if layout == Layout::Deb { "vendor-completions" } else { "site-functions" };
        for (file, to) in [
            ("portchurn", "share/bash-completion/completions/portchurn".to_owned()),
            ("_portchurn", format!("share/zsh/{zsh}/_portchurn")),
            ("portchurn.fish", "share/fish/vendor_completions.d/portchurn.fish".to_owned()),
        ] {
            tree.add(&parts.manual.join("completions").join(file), &to, 0o644)?;
        }
        Ok(tree)
    }

    /// Copies a file to a place below `usr`.
    pub fn add(&self, from: &Path, to: &str, mode: u32) -> Result<()> {
        let to = self.place(to)?;
        fs::copy(from, &to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(mode)).with_context(|| format!("chmod {}", to.display()))
    }

    /// Writes a file below `usr`.
    pub fn write(&self, to: &str, text: &str) -> Result<()> {
        let to = self.place(to)?;
        fs::write(&to, text).with_context(|| format!("writing {}", to.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o644)).with_context(|| format!("chmod {}", to.display()))
    }

    /// Replaces a file with what gzip makes of it, without a time in it.
    pub fn compress(&self, name: &str) -> Result<()> {
        run(command("gzip").args(["-9", "--no-name", "--force"]).arg(self.usr.join(name)))
    }

    fn place(&self, to: &str) -> Result<PathBuf> {
        let to = self.usr.join(to);
        let parent = to.parent().context("a file has a directory")?;
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        Ok(to)
    }
}

/// Man pages and completions, written by the command line's own definition.
pub fn manual(source: &Source, work: &Path) -> Result<PathBuf> {
    let dir = work.join("manual");
    run(cargo()
        .args(["run", "--quiet", "--package", "tracer", "--example", "manual", "--"])
        .arg(&dir)
        .arg(source.day()?))?;
    Ok(dir)
}
