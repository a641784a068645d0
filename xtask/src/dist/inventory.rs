//! What the binary is made of: the SBOM (CycloneDX) and the licences of every crate that is linked in.
//!
//! Both come from cargo's own resolution for the target. Not for: what may be linked in, which deny.toml decides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::source::{Source, VERSION};
use crate::shell::{answer, cargo};

const TARGET: &str = "x86_64-unknown-linux-musl";
/// Begin of the names of files that hold licences or must come with them.
const LICENCE_FILES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
/// The other licence of a crate that offers both; its text is in this repository.
const SAME_AS_OURS: &str = "LICENSE-APACHE";

struct Crate {
    name: String,
    version: String,
    licence: String,
    from_registry: bool,
    directory: PathBuf,
    id: String,
}

/// The crates that are linked into portchurn or into its BPF object, and who needs whom.
struct Linked {
    crates: BTreeMap<String, Crate>,
    needs: BTreeMap<String, BTreeSet<String>>,
}

impl Linked {
    fn collect() -> Result<Self> {
        let mut metadata = cargo();
        metadata.args(["metadata", "--locked", "--format-version=1", "--filter-platform", TARGET]);
        let metadata: Value = serde_json::from_str(&answer(&mut metadata).context("`cargo metadata` failed")?)
            .context("cargo metadata")?;
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let nodes: BTreeMap<String, Value> =
            list(&metadata["resolve"]["nodes"]).into_iter().map(|node| (text(&node["id"]), node)).collect();
        let packages: BTreeMap<String, Value> =
            list(&metadata["packages"]).into_iter().map(|package| (text(&package["id"]), package)).collect();
        let roots = packages.iter().filter(|(_, package)| {
            package["source"].is_null()
                && ["tracer", "tracer-ebpf"].contains(&package["name"].as_str().unwrap_or_default())
        });
        let mut waiting: Vec<String> = roots.map(|(id, _)| id.clone()).collect();
        ensure!(waiting.len() == 2, "cargo metadata names {} of the two packages that are linked", waiting.len());
        let (mut crates, mut needs) = (BTreeMap::new(), BTreeMap::new());
        while let Some(id) = waiting.pop() {
            if crates.contains_key(&id) {
                continue;
            }
            let package = packages.get(&id).with_context(|| format!("cargo metadata lacks {id}"))?;
            let is_macro = list(&package["targets"]).iter().any(|target| target["kind"][0] == "proc-macro");
            let found = Crate {
                name: text(&package["name"]),
                version: text(&package["version"]),
                licence: text(&package["license"]).replace('/', " OR "),
                from_registry: package["source"].is_string(),
                directory: PathBuf::from(text(&package["manifest_path"])).parent().unwrap_or(Path::new("/")).into(),
                id: id.clone(),
            };
            // Of normal dependencies only, and of nothing that merely a macro needs: neither is in the binary.
            let linked: BTreeSet<String> = list(&nodes.get(&id).map_or(Value::Null, |node| node["deps"].clone()))
                .iter()
                .filter(|dep| !is_macro && list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()))
                .map(|dep| text(&dep["pkg"]))
                .collect();
            waiting.extend(linked.iter().cloned());
            needs.insert(id.clone(), linked);
            crates.insert(id, found);
        }
        Ok(Self { crates, needs })
    }
}

/// Writes the SBOM.
pub fn sbom(source: &Source, to: &Path) -> Result<()> {
    let linked = Linked::collect()?;
    let checksums = checksums(&source.root)?;
    // Where a crate of this repository lies on this machine is in cargo's id of it.
    let reference = |id: &String| {
        linked.crates.get(id).map_or_else(String::new, |one| format!("pkg:cargo/{}@{}", one.name, one.version))
    };
    let components: BTreeMap<String, Value> = linked
        .crates
        .values()
        .map(|one| {
            let purl = reference(&one.id);
            let mut component = json!({
                "type": "library", "name": one.name, "version": one.version, "bom-ref": purl, "purl": purl,
                "scope": "required", "licenses": [{"expression": one.licence}],
            });
            if let Some(sum) = checksums.get(&(one.name.clone(), one.version.clone())) {
                component["hashes"] = json!([{"alg": "SHA-256", "content": sum}]);
            }
            (purl, component)
        })
        .collect();
    let dependencies: BTreeMap<String, Value> = linked
        .needs
        .iter()
        .map(|(id, needs)| {
            let needs: BTreeSet<String> = needs.iter().map(&reference).collect();
            (reference(id), json!({"ref": reference(id), "dependsOn": needs}))
        })
        .collect();
    let bom = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": source.date("+%Y-%m-%dT%H:%M:%SZ")?,
            "component": {
                "type": "application", "name": "portchurn", "version": VERSION, "bom-ref": "portchurn",
                "licenses": [{"expression": "MIT OR Apache-2.0"}],
            },
            "properties": [{"name": "commit", "value": source.commit}, {"name": "target", "value": TARGET}],
        },
        "components": components.into_values().collect::<Vec<Value>>(),
        "dependencies": dependencies.into_values().collect::<Vec<Value>>(),
    });
    let text = serde_json::to_string_pretty(&bom).context("writing the SBOM")? + "\n";
    fs::write(to, text).with_context(|| format!("writing {}", to.display()))
}

/// The checksums of Cargo.lock by name and version.
fn checksums(root: &Path) -> Result<BTreeMap<(String, String), String>> {
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("reading Cargo.lock")?;
    let of = |package: &str, key: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""))?;
        Some(line.trim_end_matches('"').to_owned())
    };
    let packages = lock.split("[[package]]").skip(1);
    Ok(packages
        .filter_map(|package| Some(((of(package, "name")?, of(package, "version")?), of(package, "checksum")?)))
        .collect())
}

/// Writes the licences of everything that is linked in; each text once.
pub fn licences(work: &Path) -> Result<PathBuf> {
    let linked = Linked::collect()?;
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut list = String::new();
    for one in linked.crates.values().filter(|one| one.from_registry) {
        let name = format!("{} {}", one.name, one.version);
        writeln!(list, "{name}: {}", one.licence)?;
        ensure!(!one.licence.is_empty(), "{name} names no licence");
        for text in licence_texts(&one.directory)? {
            texts.entry(text).or_default().insert(name.clone());
        }
    }
    let mut out = format!(
        "portchurn {VERSION} is licensed under MIT or Apache-2.0, at your choice. Its binary contains the crates below, the Rust\n\
         standard library (MIT or Apache-2.0), the C library musl (MIT) and, in zstd-sys, the library zstd (BSD-3-Clause).\n\n{list}"
    );
    for (text, names) in texts {
        let names: Vec<String> = names.into_iter().collect();
        writeln!(out, "\n{}\n{}\n\n{text}", "=".repeat(80), names.join(", "))?;
    }
    let path = work.join("THIRD-PARTY-LICENCES");
    fs::write(&path, out).context("writing the licences")?;
    Ok(path)
}

/// The licence files of a crate. Of one that is offered under Apache-2.0 too the other text is enough, if there is one.
fn licence_texts(directory: &Path) -> Result<Vec<String>> {
    let mut found: Vec<(String, PathBuf)> = fs::read_dir(directory)
        .with_context(|| format!("reading {}", directory.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.is_file())
        .map(|path| (path.file_name().unwrap_or_default().to_string_lossy().to_uppercase(), path))
        .filter(|(name, _)| LICENCE_FILES.iter().any(|start| name.starts_with(start)))
        .collect();
    found.sort();
    if found.len() > 1 {
        found.retain(|(name, _)| !name.starts_with(SAME_AS_OURS));
    }
    found
        .into_iter()
        .map(|(_, path)| {
            let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            let text = String::from_utf8_lossy(&bytes);
            Ok(text.lines().map(str::trim_end).collect::<Vec<&str>>().join("\n").trim().to_owned())
        })
        .collect()
}
