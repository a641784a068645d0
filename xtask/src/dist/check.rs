//! Tries what `target/dist` holds as somebody would who has nothing else: lints it, installs it in a fresh Debian, runs it
//! there, removes it, and looks for what is left.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::source::{BOM, DEB, IMAGE, RPM, TARBALL, VERSION};
use crate::setup::python_program;
use crate::shell::{answer, command, is_root, run, say, target_dir};
use crate::vm;

/// Commands that a new installation must be able to carry out.
const FIRST_COMMANDS: [&str; 2] = ["portchurn --version --verbose", "portchurn report --for 2s"];
/// What dpkg and rpm write about themselves.
const BOOKKEEPING: [&str; 5] = ["/var/lib/dpkg", "/var/log", "/var/cache", "/var/lib/rpm", "/usr/lib/sysimage/rpm"];

/// Checks all files of `dist`; installs in these releases of Debian.
pub fn check(dist: &Path, releases: &[String]) -> Result<()> {
    ensure!(is_root(), "the packages are tried in chroots: run this as root");
    let place = target_dir().join("dist-check");
    remove(&place)?;
    fs::create_dir_all(&place).with_context(|| format!("creating {}", place.display()))?;
    run(command("sha256sum").args(["--check", "--quiet", "--strict", "SHA256SUMS"]).current_dir(dist))?;
    let [deb, rpm, tarball, image, bom] = [DEB, RPM, TARBALL, IMAGE, BOM].map(|name| dist.join(name));
    no_scripts(&deb, &rpm)?;
    run(command("lintian").args(["--fail-on=error", "--tag-display-limit=0", "--allow-root"]).arg(&deb))?;
    run(command("rpmlint").args(["--config", "xtask/packaging/rpmlint.toml"]).arg(&rpm))?;
    sbom(&bom)?;

    let unpacked = place.join("tarball");
    fs::create_dir_all(&unpacked)?;
    run(command("tar")
        .args(["--extract", "--strip-components=1", "--file"])
        .arg(&tarball)
        .arg("--directory")
        .arg(&unpacked))?;
    man_pages(&unpacked.join("share/man/man1"))?;
    completions(&unpacked.join("share"))?;
    says(command(unpacked.join("bin/portchurn")).arg("--version"), &format!("portchurn {VERSION}"))?;

    oci(&image, &place.join("image"))?;
    for release in releases {
        chroot(release, &place, &deb, &rpm, &tarball)?;
    }
    remove(&place)
}

/// Installing must not enable or start anything, so there are no scripts.
fn no_scripts(deb: &Path, rpm: &Path) -> Result<()> {
    let names = answer(command("sh").args(["-c", "dpkg-deb --ctrl-tarfile \"$0\" | tar --list"]).arg(deb));
    let names = names.context("the control files of the .deb")?;
    let names: BTreeSet<&str> =
        names.lines().map(|name| name.trim_start_matches("./")).filter(|name| !name.is_empty()).collect();
    ensure!(
        names == BTreeSet::from(["control", "md5sums"]),
        "the .deb has control files that may do something: {names:?}"
    );
    let scripts = answer(command("rpm").args(["--query", "--package", "--scripts", "--triggers"]).arg(rpm));
    ensure!(scripts.as_deref() == Some(""), "the .rpm has scripts: {scripts:?}");
    Ok(())
}

/// Checks the SBOM against CycloneDX's own schema.
fn sbom(bom: &Path) -> Result<()> {
    const SCRIPT: &str = "import sys; from cyclonedx.schema import OutputFormat, SchemaVersion; \
        from cyclonedx.validation.json import JsonStrictValidator; \
        error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(open(sys.argv[1]).read()); \
        sys.exit(str(error) if error else 0)";
    run(Command::new(python_program("python")).args(["-c", SCRIPT]).arg(bom)).context("the SBOM is not CycloneDX 1.5")
}

fn man_pages(dir: &Path) -> Result<()> {
    // mandoc lints text alone.
    run(command("gzip").args(["--decompress", "--recursive"]).arg(dir))?;
    let pages: Vec<PathBuf> = files_of(dir)?;
    ensure!(pages.len() > 5, "{} has only {} man pages", dir.display(), pages.len());
    let output =
        command("mandoc").arg("-Tlint").args(&pages).output().context("starting mandoc (Debian package mandoc)")?;
    let complaints = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(complaints.is_empty() && output.status.success(), "mandoc -Tlint says:\n{complaints}");
    say(&format!("dist: mandoc has nothing to say about {} man pages", pages.len()));
    Ok(())
}

/// Each shell loads its completions and completes `portchurn rep` to the two commands that begin so.
fn completions(share: &Path) -> Result<()> {
    let bash = share.join("bash-completion/completions/portchurn");
    let script = "source \"$0\" && complete -p portchurn >/dev/null && COMP_WORDS=(portchurn rep) && COMP_CWORD=1 && \
                  _portchurn portchurn rep portchurn && echo \"${COMPREPLY[@]}\"";
    says(command("bash").args(["--norc", "-c", script]).arg(bash), "report replay")?;

    let fish = share.join("fish/vendor_completions.d/portchurn.fish");
    let script =
        "source $argv[1]; and complete -C 'portchurn rep' | string replace -r '\\t.*' '' | sort | string join ' '";
    says(command("fish").args(["--no-config", "-c", script]).arg(fish), "replay report")?;

    let zsh = share.join("zsh/site-functions");
    let script = "fpath=(\"$0\" $fpath); autoload -Uz compinit && compinit -D -u && [[ $_comps[portchurn] == _portchurn ]] && \
                  autoload -Uz +X _portchurn && (( $+functions[_portchurn] )) && echo loaded";
    says(command("zsh").args(["-f", "-c", script]).arg(zsh), "loaded")
}

/// The image is read by skopeo, unpacked by umoci and started by crun.
fn oci(image: &Path, place: &Path) -> Result<()> {
    fs::create_dir_all(place)?;
    let layout = place.join("layout");
    fs::create_dir_all(&layout)?;
    let inspected = answer(command("skopeo").arg("inspect").arg(format!("oci-archive:{}:{VERSION}", image.display())))
        .context("skopeo inspect failed")?;
    ensure!(inspected.contains("\"Architecture\": \"amd64\""), "skopeo says: {inspected}");
    run(command("tar").args(["--extract", "--file"]).arg(image).arg("--directory").arg(&layout))?;
    let bundle = place.join("bundle");
    run(command("umoci").args(["unpack", "--image"]).arg(format!("{}:{VERSION}", layout.display())).arg(&bundle))?;
    let root = bundle.join("rootfs");
    says(command("chroot").arg(&root).args(["/usr/bin/portchurn", "--version"]), &format!("portchurn {VERSION}"))?;
    started_by_crun(&bundle)
}

/// crun runs `--version` in a container of the image, as far as this machine lets it make one.
fn started_by_crun(bundle: &Path) -> Result<()> {
    let path = bundle.join("config.json");
    let mut config: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&path).context("umoci's config.json")?)
            .context("umoci's config.json")?;
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = serde_json::json!(["/usr/bin/portchurn", "--version"]);
    fs::write(&path, config.to_string()).context("writing config.json")?;
    let id = format!("portchurn-dist-{}", std::process::id());
    let output = command("crun")
        .args(["--cgroup-manager=disabled", "run", "--bundle"])
        .arg(bundle)
        .arg(&id)
        .output()
        .context("starting crun (Debian package crun)")?;
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        ensure!(out.trim() == format!("portchurn {VERSION}"), "in a container it said {out:?}");
        say("dist: crun ran the image");
    } else {
        // A machine without cgroups or with a seccomp filter of its own cannot make containers.
        let ours = ["exec", "no such file", "portchurn:"].iter().any(|word| error.contains(word));
        ensure!(!ours, "crun could not start the image: {error}");
        say(&format!("dist: this machine makes no containers: {}", error.trim()));
    }
    Ok(())
}

/// Installs all three packages in a fresh Debian, one after the other, runs what a new user would, and removes them.
fn chroot(release: &str, place: &Path, deb: &Path, rpm: &Path, tarball: &Path) -> Result<()> {
    let root = place.join(release);
    // In a mount namespace of its own, so that what debootstrap mounts is gone with it.
    run(command("unshare")
        .args(["--mount", "debootstrap", "--variant=minbase", "--include=man-db,xz-utils", release])
        .arg(&root)
        .arg(vm::mirror()?))
    .with_context(|| format!("debootstrap of Debian {release}"))?;
    let before = files_of_system(&root)?;
    for package in [deb, tarball] {
        fs::copy(package, root.join("tmp").join(package.file_name().unwrap_or_default()))?;
    }
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();

    inside(&root, &format!("dpkg --install /tmp/{}", name(deb)))?;
    first_steps(&root, "Debian package")?;
    inside(&root, "man -w portchurn-report && man portchurn-record | grep -q EXAMPLES")?;
    inside(&root, "dpkg --verify portchurn && dpkg --purge portchurn")?;
    nothing_left(&root, &before, "the .deb")?;

    let rpm_root = |action: &[&str]| {
        let mut rpm = command("rpm");
        rpm.arg("--root").arg(&root).args(["--dbpath=/var/lib/rpm", "--nodeps"]).args(action);
        rpm
    };
    run(rpm_root(&["--install"]).arg(rpm))?;
    first_steps(&root, "RPM package")?;
    run(&mut rpm_root(&["--erase", "portchurn"]))?;
    nothing_left(&root, &before, "the .rpm")?;

    inside(&root, &format!("tar --extract --strip-components=1 --directory=/usr/local --file=/tmp/{}", name(tarball)))?;
    first_steps(&root, "tarball")?;
    say(&format!("dist: Debian {release}: .deb, .rpm and tarball installed, run and removed"));
    remove(&root)
}

/// What somebody does who has just installed it.
fn first_steps(root: &Path, origin: &str) -> Result<()> {
    for line in FIRST_COMMANDS {
        inside(root, line)?;
    }
    // 1: it works with losses, which depend on this kernel.
    inside(
        root,
        &format!("portchurn doctor >/tmp/doctor; test $? -le 1 && grep '{origin}' /tmp/doctor; rm /tmp/doctor"),
    )
    .with_context(|| format!("doctor, of the {origin}"))
}

/// Runs a line in a shell in a chroot that has /proc, /sys and /dev, in a mount namespace of its own.
fn inside(root: &Path, line: &str) -> Result<()> {
    let script = "for dir in proc sys dev; do mount --rbind /$dir \"$0/$dir\" || exit 97; done; \
                  exec chroot \"$0\" /usr/bin/env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 sh -c \"$1\"";
    run(command("unshare").args(["--mount", "sh", "-c", script]).arg(root).arg(line))
        .with_context(|| format!("in {}", root.display()))
}

fn nothing_left(root: &Path, before: &BTreeSet<PathBuf>, what: &str) -> Result<()> {
    let after = files_of_system(root)?;
    let left: Vec<&PathBuf> = after.difference(before).filter(|path| !path.starts_with("/tmp")).collect();
    ensure!(left.is_empty(), "{what} left behind: {left:?}");
    Ok(())
}

/// All paths below a root, without what package managers write about themselves.
fn files_of_system(root: &Path) -> Result<BTreeSet<PathBuf>> {
    let text = answer(command("find").arg(root).args(["-xdev", "-printf", "/%P\\n"])).context("find failed")?;
    Ok(text.lines().filter(|path| !BOOKKEEPING.iter().any(|own| path.starts_with(own))).map(PathBuf::from).collect())
}

/// Fails unless the command succeeds and prints this line.
fn says(command: &mut Command, expected: &str) -> Result<()> {
    let line = crate::shell::line_of(command);
    let output = command.output().with_context(|| format!("starting `{line}`"))?;
    let out = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && out.trim() == expected {
        return Ok(());
    }
    bail!("`{line}` ({}) printed {out:?}, not {expected:?}; {}", output.status, String::from_utf8_lossy(&output.stderr))
}

fn files_of(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    Ok(files)
}

/// Removes a tree that may have been a chroot: only this file system, so that nothing which is mounted in it is touched.
fn remove(place: &Path) -> Result<()> {
    if place.exists() {
        run(command("rm").args(["--recursive", "--force", "--one-file-system"]).arg(place))?;
    }
    Ok(())
}
