//! Names of pods and containers from the links that the kubelet keeps to their logs, so that no API server is asked.
//!
//! `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log` (pkg/kubelet/kuberuntime `legacyLogSymlink`) and
//! `/var/log/pods/NAMESPACE_POD_UID` (`BuildPodLogsDirectory`) are there with containerd and CRI-O alike. A sandbox has no link
//! of its own, so it is known by its pod alone.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracer_core::names::cgroup::SHORT_ID_DIGITS;
use tracer_core::names::text;

/// Logs and pods that are looked at. A kubelet runs 110 pods unless told otherwise; their old containers count, too.
const MAX_ENTRIES: usize = 8_192;
/// Between two looks at the directories, so that many new processes cost one.
const RESCAN: Duration = Duration::from_secs(1);

/// Names by container id and by pod UID, read again when one is not among them.
#[derive(Clone, Debug)]
pub(super) struct PodNames {
    /// Directories that may be the host's `/var/log`; the first with logs of containers is.
    roots: Vec<PathBuf>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    read: Option<Instant>,
    /// By the first digits of the id: `namespace/pod/container`.
    containers: HashMap<String, Arc<str>>,
    /// By UID: `namespace/pod`.
    pods: HashMap<String, Arc<str>>,
}

impl PodNames {
    pub(super) fn below(roots: Vec<PathBuf>) -> Self {
        Self { roots, seen: Arc::default() }
    }

    /// The name of a container (`runtime:id`) of the pod with this UID; the UID itself where nothing names it.
    pub(super) fn name(&self, container: Option<&str>, uid: &Arc<str>) -> Arc<str> {
        let id = container.map(|label| label.rsplit_once(':').map_or(label, |(_, id)| id));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = id.and_then(|id| seen.containers.get(id)) {
            return Arc::clone(name);
        }
        if seen.read.is_none_or(|at| at.elapsed() >= RESCAN) {
            *seen = self.read();
        }
        let of_container = id.and_then(|id| seen.containers.get(id));
        of_container.or_else(|| seen.pods.get(&**uid)).map_or_else(|| Arc::clone(uid), Arc::clone)
    }

    fn read(&self) -> Seen {
        let mut seen = Seen { read: Some(Instant::now()), ..Seen::default() };
        let Some(root) = self.roots.iter().find(|root| root.join("containers").is_dir()) else { return seen };
        for file in names_in(&root.join("containers")) {
            seen.containers.extend(container(&file));
        }
        for directory in names_in(&root.join("pods")) {
            seen.pods.extend(pod(&directory));
        }
        seen
    }
}

fn names_in(directory: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().take(MAX_ENTRIES);
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// `POD_NAMESPACE_CONTAINER-ID.log`. None of the names has an underscore, and the id has no dash.
fn container(file: &str) -> Option<(String, Arc<str>)> {
    let (names, id) = file.strip_suffix(".log")?.rsplit_once('-')?;
    let [pod, namespace, container] = *names.split('_').collect::<Vec<_>>() else { return None };
    let id = id.get(..SHORT_ID_DIGITS)?.to_owned();
    Some((id, text(format!("{namespace}/{pod}/{container}").as_bytes())))
}

/// `NAMESPACE_POD_UID`.
fn pod(directory: &str) -> Option<(String, Arc<str>)> {
    let [namespace, pod, uid] = *directory.split('_').collect::<Vec<_>>() else { return None };
    Some((uid.to_owned(), text(format!("{namespace}/{pod}").as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "1b2c3d4e-5f60-4789-8abc-def012345678";

    #[test]
    fn a_container_its_sandbox_and_a_pod_without_logs_are_told_apart() {
        let root = tempfile::tempdir().expect("a directory");
        let names = PodNames::below(vec![root.path().join("nothing"), root.path().to_owned()]);
        let uid: Arc<str> = UID.into();
        fs::create_dir_all(root.path().join("containers")).expect("directories");
        fs::write(root.path().join(format!("containers/web-7d9f8-x2k_shop_php-fpm-{ID}.log")), "").expect("a log");
        fs::create_dir_all(root.path().join(format!("pods/shop_web-7d9f8-x2k_{UID}"))).expect("directories");

        assert_eq!(&*names.name(Some("containerd:0123456789ab"), &uid), "shop/web-7d9f8-x2k/php-fpm");
        assert_eq!(&*names.name(Some("containerd:ffffffffffff"), &uid), "shop/web-7d9f8-x2k", "the sandbox");
        assert_eq!(&*names.name(None, &uid), "shop/web-7d9f8-x2k");
        assert_eq!(&*names.name(Some("crio:ffffffffffff"), &"another".into()), "another");
    }

    #[test]
    fn a_host_without_a_kubelet_has_uids() {
        assert_eq!(&*PodNames::below(vec!["/nonexistent".into()]).name(Some("crio:0123456789ab"), &UID.into()), UID);
    }

    #[test]
    fn files_that_are_no_links_of_the_kubelet_are_left_out() {
        for name in ["messages.log", "a_b-0123456789ab.log", "a_b_c-0123.log", "a_b_c.log", "a_b_c_d-0123456789ab.log"]
        {
            assert_eq!(container(name), None, "{name}");
        }
        assert_eq!(pod("lost+found"), None);
    }
}
