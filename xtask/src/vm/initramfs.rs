//! The file system of a virtual machine: one archive that the kernel unpacks into memory.
//!
//! The programs under test are statically linked. Debian's tools that the scenarios call (`ip`, `ss` ...) come from
//! this machine with the libraries that `ldd` names, so that all kernels run the same tools.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use cpio::newc::{Builder, ModeFileType, trailer};

use crate::shell::command;

/// An archive that is being written.
pub struct Archive<W: Write> {
    out: W,
    directories: BTreeSet<PathBuf>,
    present: BTreeSet<PathBuf>,
}

impl Archive<BufWriter<File>> {
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        Archive::new(BufWriter::new(file))
    }
}

impl<W: Write> Archive<W> {
    /// Begins an archive with links from /bin, /sbin and /lib* into /usr.
    fn new(out: W) -> Result<Self> {
        let mut this = Self { out, directories: BTreeSet::new(), present: BTreeSet::new() };
        for link in ["bin", "sbin", "lib", "lib64"] {
            let target = format!("usr/{link}");
            this.parents(Path::new("/usr").join(link).join("x").as_path())?;
            this.entry(Path::new(link), ModeFileType::Symlink, 0o777, target.as_bytes())?;
        }
        for empty in ["/dev", "/proc", "/sys", "/run", "/tmp", "/root"] {
            this.parents(&Path::new(empty).join("x"))?;
        }
        // The kernel opens the console for the first process, before that process can mount anything.
        this.out = device(this.out, "dev/console", (5, 1))?;
        Ok(this)
    }

    pub fn text(&mut self, path: &str, text: &str) -> Result<()> {
        self.file(Path::new(path), 0o644, text.as_bytes())
    }

    pub fn copy(&mut self, from: &Path, to: &Path) -> Result<()> {
        let data = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        let mode = fs::metadata(from).with_context(|| format!("looking at {}", from.display()))?.permissions().mode();
        self.file(to, mode & 0o777, &data)
    }

    /// Adds a file, or the files of a directory, under its path on this machine.
    pub fn tree(&mut self, path: &Path) -> Result<()> {
        if path.is_file() {
            return self.copy(path, path);
        }
        for entry in fs::read_dir(path).with_context(|| format!("reading {}", path.display()))? {
            self.tree(&entry?.path())?;
        }
        Ok(())
    }

    /// Adds a program without its debugging information, which is most of its size.
    pub fn program(&mut self, from: &Path, to: &Path, scratch: &Path) -> Result<()> {
        let mut strip = command("strip");
        let status =
            strip.arg("-o").arg(scratch).arg(from).status().context("starting strip (Debian package binutils)")?;
        ensure!(status.success(), "strip {} failed", from.display());
        self.copy(scratch, to)
    }

    /// Adds a program of this machine with the libraries that it links to.
    pub fn tool(&mut self, name: &str) -> Result<()> {
        let path = find(name)
            .with_context(|| format!("{name} is not there: `cargo xtask setup` installs what the scenarios call"))?;
        let output = command("ldd").arg(&path).output().context("starting ldd")?;
        // ldd fails for a static program, which needs no libraries.
        for library in libraries(&String::from_utf8_lossy(&output.stdout)) {
            self.copy(&library, &merged(&library))?;
        }
        self.copy(&path, &merged(&path))
    }

    pub fn finish(self) -> Result<()> {
        let mut out = trailer(self.out).context("ending the archive")?;
        out.flush().context("writing the archive")
    }

    fn file(&mut self, path: &Path, mode: u32, data: &[u8]) -> Result<()> {
        if self.present.contains(path) {
            return Ok(());
        }
        self.parents(path)?;
        self.entry(path, ModeFileType::Regular, mode, data)?;
        self.present.insert(path.to_path_buf());
        Ok(())
    }

    fn parents(&mut self, path: &Path) -> Result<()> {
        let mut missing: Vec<PathBuf> =
            path.ancestors().skip(1).filter(|parent| parent.parent().is_some()).map(Path::to_path_buf).collect();
        missing.reverse();
        for directory in missing {
            if !self.directories.contains(&directory) {
                self.entry(&directory, ModeFileType::Directory, 0o755, &[])?;
                self.directories.insert(directory);
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, kind: ModeFileType, mode: u32, data: &[u8]) -> Result<()> {
        let name = path.strip_prefix("/").unwrap_or(path).to_str().context("a name that is UTF-8")?;
        let size = u32::try_from(data.len()).with_context(|| format!("{name} is too big for the archive"))?;
        let mut writer = Builder::new(name).mode(mode).set_mode_file_type(kind).write(&mut self.out, size);
        writer.write_all(data).and_then(|()| writer.finish().map(drop)).with_context(|| format!("archiving {name}"))
    }
}

fn device<W: Write>(out: W, name: &str, (major, minor): (u32, u32)) -> Result<W> {
    let builder = Builder::new(name).mode(0o600).set_mode_file_type(ModeFileType::Char);
    let finished: io::Result<W> = builder.rdev_major(major).rdev_minor(minor).write(out, 0).finish();
    finished.with_context(|| format!("archiving {name}"))
}

/// The path of a file below /usr, because /bin, /sbin and /lib* are links into /usr.
fn merged(path: &Path) -> PathBuf {
    if path.starts_with("/usr") {
        path.to_path_buf()
    } else {
        Path::new("/usr").join(path.strip_prefix("/").unwrap_or(path))
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let places = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
    places.iter().map(|place| Path::new(place).join(name)).find(|path| path.is_file())
}

/// The libraries in the output of ldd: `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)`,
/// `/lib64/ld-linux-x86-64.so.2 (0x...)`.
fn libraries(ldd: &str) -> Vec<PathBuf> {
    ldd.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_what_ldd_found() {
        let ldd = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x2)\n\t/lib64/ld-linux.so.2 (0x3)\n";
        assert_eq!(libraries(ldd), [PathBuf::from("/lib/x/libc.so.6"), PathBuf::from("/lib64/ld-linux.so.2")]);
        assert!(libraries("\tnot a dynamic executable\n").is_empty());
        assert_eq!(merged(Path::new("/lib64/ld.so")), Path::new("/usr/lib64/ld.so"));
    }

    #[test]
    fn each_directory_and_file_is_written_once_and_parents_come_first() {
        let mut archive = Archive::new(Vec::new()).expect("an archive");
        archive.text("/a/b/c", "one").expect("written");
        archive.text("/a/b/c", "two").expect("ignored");
        archive.text("/a/b/d", "three").expect("written");
        let mut rest = archive.out.as_slice();
        let mut names = Vec::new();
        while !rest.is_empty() {
            let reader = cpio::newc::Reader::new(rest).expect("an entry");
            names.push(reader.entry().name().to_owned());
            rest = reader.finish().expect("the next");
        }
        let own: Vec<&str> = names.iter().map(String::as_str).filter(|name| name.starts_with('a')).collect();
        assert_eq!(own, ["a", "a/b", "a/b/c", "a/b/d"]);
    }
}
