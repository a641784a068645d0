//! The OCI image: one layer that holds the static binary, its licences and nothing else.
//!
//! Three JSON files and a tar: written here, because no tool that writes them does so reproducibly. skopeo and umoci read
//! the result in [`super::check`].

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::archive::{self, sha256};
use super::contents::Tree;
use super::source::{Source, VERSION};
use crate::shell::{command, run};

pub fn write(source: &Source, tree: &Tree, work: &Path, to: &Path) -> Result<()> {
    let layout = work.join("oci");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).context("creating the image's directory")?;

    run(command("chmod").args(["--recursive", "go=rX,u=rwX"]).arg(&tree.root))?;
    let layer = work.join("layer.tar");
    archive::tar(source, &tree.root, &layer, false)?;
    let unpacked = format!("sha256:{}", sha256(&layer)?);
    run(command("gzip").args(["-9", "--no-name"]).arg(&layer))?;
    let layer = blob(&blobs, &layer.with_extension("tar.gz"), "application/vnd.oci.image.layer.v1.tar+gzip")?;

    let created = source.date("+%Y-%m-%dT%H:%M:%SZ")?;
    let labels = json!({
        "org.opencontainers.image.title": "portchurn",
        "org.opencontainers.image.description": "Who is burning the ephemeral ports of this host",
        "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
        "org.opencontainers.image.version": VERSION,
        "org.opencontainers.image.revision": source.commit,
        "org.opencontainers.image.created": created,
    });
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": {
            "Entrypoint": ["/usr/bin/portchurn"],
            "Env": ["PATH=/usr/bin", "LANG=C.UTF-8"],
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [unpacked]},
        "history": [{"created": created, "created_by": "cargo xtask dist"}],
    });
    let config = json_blob(work, &blobs, &config, "application/vnd.oci.image.config.v1+json")?;
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer], "annotations": labels,
    });
    let mut manifest = json_blob(work, &blobs, &manifest, media_type)?;
    manifest["platform"] = json!({"architecture": "amd64", "os": "linux"});
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": VERSION});
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest],
    });
    fs::write(layout.join("index.json"), index.to_string()).context("writing index.json")?;
    fs::write(layout.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string())
        .context("writing oci-layout")?;
    archive::tar(source, &layout, to, false)
}

fn json_blob(work: &Path, blobs: &Path, value: &Value, media_type: &str) -> Result<Value> {
    let path = work.join("blob.json");
    fs::write(&path, value.to_string()).context("writing a blob")?;
    blob(blobs, &path, media_type)
}

/// Moves a file to the place that its hash names. Returns its descriptor.
fn blob(blobs: &Path, path: &Path, media_type: &str) -> Result<Value> {
    let hash = sha256(path)?;
    let size = fs::metadata(path).context("the blob's size")?.len();
    fs::rename(path, blobs.join(&hash)).context("moving a blob")?;
    Ok(json!({"mediaType": media_type, "digest": format!("sha256:{hash}"), "size": size}))
}
