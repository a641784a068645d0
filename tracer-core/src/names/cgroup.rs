//! Finds systemd unit and container in a cgroup path.
//!
//! Every container runtime writes the container's id into the path, each in its own form. Not for: turning ids into
//! names of containers, which would need the runtime's API and its permissions.

use std::sync::Arc;

use super::text;

/// Hex digits of a whole container id.
const ID_DIGITS: usize = 64;
/// Digits of an id that are shown, as many as `docker ps` shows.
pub const SHORT_ID_DIGITS: usize = 12;

/// Names of the processes in a cgroup, out of its path. `None` = the path has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupNames {
    /// The path itself, without control characters.
    pub path: Option<Arc<str>>,
    /// systemd unit (`nginx.service`).
    pub unit: Option<Arc<str>>,
    /// Container id, 12 hex digits, with the runtime in front if it is known (`docker:0123456789ab`).
    pub container: Option<Arc<str>>,
    /// UID of the pod of Kubernetes, as its API has it; of a pod of podman `podman:` and 12 digits.
    pub pod: Option<Arc<str>>,
}

/// Names in the path components of a record, which begin with the leaf and are zero at and above the root. Those of
/// cgroup v2 are used unless they name the root; then those of v1.
pub fn from_record<const N: usize, const DEPTH: usize>(v2: &[[u8; N]; DEPTH], v1: &[[u8; N]; DEPTH]) -> CgroupNames {
    let components = |names: &[[u8; N]; DEPTH]| -> Vec<Arc<str>> {
        let mut leaf_first: Vec<_> = names.iter().map(|name| text(name)).take_while(|name| !name.is_empty()).collect();
        leaf_first.reverse();
        leaf_first
    };
    let unified = components(v2);
    let chosen = if unified.is_empty() { components(v1) } else { unified };
    let mut names = describe(&chosen.iter().map(AsRef::as_ref).collect::<Vec<&str>>());
    if let (Some(path), true) = (&names.path, chosen.len() == DEPTH) {
        // The record has no room for more: the path may go on above, so it has no leading slash.
        names.path = Some(path.trim_start_matches('/').into());
    }
    names
}

/// Names in a path as `/proc/PID/cgroup` has it.
pub fn from_path(path: &str) -> CgroupNames {
    let path = text(path.as_bytes());
    // A path outside the reader's cgroup namespace begins with `/..`.
    describe(&path.split('/').filter(|name| !name.is_empty() && *name != "..").collect::<Vec<&str>>())
}

/// Names in a path; `components` begin at the root.
fn describe(components: &[&str]) -> CgroupNames {
    if components.is_empty() {
        return CgroupNames::default();
    }
    // The container nearest to the leaf. The components above it belong to the runtime, not to the container's
    // processes.
    let found = (0..components.len()).rev().find_map(|at| {
        let parent = at.checked_sub(1).and_then(|parent| components.get(parent));
        container(components.get(at)?, parent.copied()).map(|name| (at, name))
    });
    let own = found.as_ref().map_or(components, |(at, _)| components.get(at + 1..).unwrap_or_default());
    CgroupNames {
        path: Some(format!("/{}", components.join("/")).into()),
        unit: unit(own),
        container: found.map(|(_, name)| name),
        pod: components.iter().rev().find_map(|name| pod(name)),
    }
}

/// The pod that a component names: `kubepods-burstable-pod<uid>.slice` of the systemd driver, with underscores in the UID, because
/// a dash separates slices; `pod<uid>` of cgroupfs; `machine-libpod_pod_<id>.slice` of podman.
fn pod(name: &str) -> Option<Arc<str>> {
    // containerd may put the container behind it: `kubepods-pod<uid>.slice:cri-containerd:<id>`.
    let name = name.split(':').next()?;
    let name = name.strip_suffix(".slice").unwrap_or(name);
    if let Some((_, id)) = name.split_once("libpod_pod_") {
        return if is_id(id) { label(Some("podman"), id) } else { None };
    }
    let uid = match name.rsplit_once("-pod") {
        Some((slice, uid)) if slice.contains("kubepods") => uid,
        _ => name.strip_prefix("pod")?,
    };
    is_uid(uid).then(|| uid.replace('_', "-").into())
}

/// 8-4-4-4-12 hex digits, or the 32 of a static pod, whose UID is the hash of its manifest.
fn is_uid(text: &str) -> bool {
    let groups: Vec<&str> = text.split(['-', '_']).collect();
    groups.iter().all(|group| is_hex(group))
        && matches!(*groups.iter().map(|group| group.len()).collect::<Vec<_>>(), [32] | [8, 4, 4, 4, 12])
}

/// The systemd service nearest to the leaf.
///
/// `user@1000.service` manages everything that this user runs, so it counts only as the unit of the manager itself.
/// Scopes (`session-3.scope`, `run-r1a2b.scope`, `app-…-4711.scope`) do not count as units: their names change with
/// every start, so that one program would become many workloads.
fn unit(components: &[&str]) -> Option<Arc<str>> {
    let services = components.iter().enumerate().rev().filter(|(_, name)| is_service(name));
    let (at, name) = services.into_iter().next()?;
    let below = components.get(at + 1..).unwrap_or_default();
    let manager = name.starts_with("user@");
    (!manager || matches!(below, [] | ["init.scope"])).then(|| Arc::from(*name))
}

fn is_service(name: &str) -> bool {
    name.strip_suffix(".service").is_some_and(|stem| !stem.is_empty())
}

/// `docker:0123456789ab` if this component names a container.
fn container(name: &str, parent: Option<&str>) -> Option<Arc<str>> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    // containerd with systemd's form of the path under the cgroupfs driver:
    // `kubepods-…-pod<uid>.slice:cri-containerd:<id>`. A record may hold only the beginning of the id.
    if let Some((prefix, id)) = name.rsplit_once(':') {
        let runtime = runtime(prefix.rsplit(':').next()?)?;
        return (id.len() >= SHORT_ID_DIGITS && is_hex(id)).then(|| label(Some(runtime), id))?;
    }
    if is_id(name) {
        return label(parent.and_then(parent_says), name);
    }
    let (prefix, id) = name.rsplit_once('-')?;
    let runtime = runtime(prefix)?;
    if is_id(id) { label(Some(runtime), id) } else { None }
}

fn label(runtime: Option<&str>, id: &str) -> Option<Arc<str>> {
    let short = id.get(..SHORT_ID_DIGITS)?;
    Some(match runtime {
        Some(runtime) => format!("{runtime}:{short}").into(),
        None => short.into(),
    })
}

/// The runtime of a scope's prefix. The prefix must match as a whole: `crio-conmon-<id>.scope` is a monitor process,
/// not a container.
fn runtime(prefix: &str) -> Option<&'static str> {
    Some(match prefix {
        "docker" => "docker",
        "cri-containerd" | "containerd" | "nerdctl" => "containerd",
        "crio" => "crio",
        "libpod" => "podman",
        _ => return None,
    })
}

/// The runtime of a directory around a bare id.
fn parent_says(parent: &str) -> Option<&'static str> {
    match parent {
        "docker" => Some("docker"),
        "libpod" | "libpod_parent" => Some("podman"),
        // `pod<uid>` or `kubepods…`: a container of Kubernetes of any runtime; `crictl inspect` finds it.
        pod if pod.starts_with("pod") || pod.starts_with("kubepods") => Some("kubepods"),
        _ => None,
    }
}

fn is_id(name: &str) -> bool {
    name.len() == ID_DIGITS && is_hex(name)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn container_of(path: &str) -> Option<String> {
        from_path(&path.replace("ID", ID)).container.map(|name| name.to_string())
    }

    fn unit_of(path: &str) -> Option<String> {
        from_path(&path.replace("ID", ID)).unit.map(|name| name.to_string())
    }

    #[test]
    fn every_runtime_s_spelling_is_one_container() {
        for (path, expected) in [
            ("/system.slice/docker-ID.scope", "docker:0123456789ab"),
            ("/docker/ID", "docker:0123456789ab"),
            ("/docker/ID/system.slice/nginx.service", "docker:0123456789ab"),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-ID.scope",
                "containerd:0123456789ab",
            ),
            ("/kubepods.slice/kubepods-pod1.slice/crio-ID.scope", "crio:0123456789ab"),
            ("/machine.slice/libpod-ID.scope/container", "podman:0123456789ab"),
            ("/libpod_parent/libpod-ID", "podman:0123456789ab"),
            ("/kubepods/burstable/pod1b2c-3d/ID", "kubepods:0123456789ab"),
            (
                "/system.slice/containerd.service/kubepods-besteffort-pod1.slice:cri-containerd:ID",
                "containerd:0123456789ab",
            ),
            ("/x:cri-containerd:0123456789abcde", "containerd:0123456789ab"),
            ("/default/ID", "0123456789ab"),
            ("/../ID", "0123456789ab"),
        ] {
            assert_eq!(container_of(path).as_deref(), Some(expected), "{path}");
        }
    }

    /// Trees as the runtimes make them, of v1 and v2, with the drivers systemd and cgroupfs.
    #[test]
    fn pods_of_every_runtime_and_driver_have_their_uid() {
        const UID: &str = "1b2c3d4e-5f60-4789-8abc-def012345678";
        const STATIC: &str = "5d1f2a3b4c5d6e7f8091a2b3c4d5e6f7";
        for (path, pod, container) in [
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/cri-containerd-ID.scope",
                Some(UID),
                Some("containerd:0123456789ab"),
            ),
            ("/kubepods.slice/kubepods-podUID_.slice/crio-ID.scope", Some(UID), Some("crio:0123456789ab")),
            // CRI-O makes a group of the container's own in its scope.
            ("/kubepods.slice/kubepods-podUID_.slice/crio-ID.scope/container", Some(UID), Some("crio:0123456789ab")),
            ("/kubepods/besteffort/podUID-/ID", Some(UID), Some("kubepods:0123456789ab")),
            ("/kubepods/podUID-/crio-ID", Some(UID), Some("crio:0123456789ab")),
            // cri-dockerd.
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID_.slice/docker-ID.scope",
                Some(UID),
                Some("docker:0123456789ab"),
            ),
            // kind: a node in a container.
            (
                "/docker/ffff/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-podUID_.slice/cri-containerd-ID.scope",
                Some(UID),
                Some("containerd:0123456789ab"),
            ),
            // containerd with the driver of the one and the paths of the other.
            (
                "/system.slice/containerd.service/kubepods-besteffort-podUID_.slice:cri-containerd:ID",
                Some(UID),
                Some("containerd:0123456789ab"),
            ),
            ("/kubepods/burstable/podSTATIC/ID", Some(STATIC), Some("kubepods:0123456789ab")),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podSTATIC.slice/cri-containerd-ID.scope",
                Some(STATIC),
                Some("containerd:0123456789ab"),
            ),
            (
                "/machine.slice/machine-libpod_pod_ID.slice/libpod-ID.scope/container",
                Some("podman:0123456789ab"),
                Some("podman:0123456789ab"),
            ),
            ("/kubepods.slice/kubepods-podnone.slice/crio-ID.scope", None, Some("crio:0123456789ab")),
            ("/system.slice/podman.service", None, None),
            ("/docker/ID", None, Some("docker:0123456789ab")),
        ] {
            let path = path.replace("UID_", &UID.replace('-', "_")).replace("UID-", UID).replace("STATIC", STATIC);
            let names = from_path(&path.replace("ID", ID));
            assert_eq!((names.pod.as_deref(), names.container.as_deref()), (pod, container), "{path}");
        }
    }

    /// A record holds four components, of which the leaf comes first: the pod is among them for every driver.
    #[test]
    fn a_record_of_a_container_in_a_pod_has_both() {
        let v2 = components(&[
            &format!("cri-containerd-{ID}.scope"),
            "kubepods-burstable-pod1b2c3d4e_5f60_4789_8abc_def012345678.slice",
            "kubepods-burstable.slice",
            "kubepods.slice",
        ]);
        let names = from_record(&v2, &components(&[]));
        assert_eq!(names.pod.as_deref(), Some("1b2c3d4e-5f60-4789-8abc-def012345678"));
        assert_eq!(names.container.as_deref(), Some("containerd:0123456789ab"));
    }

    #[test]
    fn what_only_resembles_a_container_is_none() {
        for path in [
            "/",
            "",
            "/system.slice/crio-conmon-ID.scope",
            "/machine.slice/libpod-conmon-ID.scope",
            "/docker/buildx",
            "/system.slice/docker-0123456789ab.scope",
            "/system.slice/docker.service",
            "/x:cri-containerd:0123",
            "/docker/0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF",
        ] {
            assert_eq!(container_of(path), None, "{path}");
        }
    }

    #[test]
    fn nested_containers_are_the_inner_one() {
        let inner = "f".repeat(64);
        assert_eq!(container_of(&format!("/docker/ID/docker/{inner}")).as_deref(), Some("docker:ffffffffffff"));
    }

    #[test]
    fn the_unit_is_the_nearest_service() {
        for (path, expected) in [
            ("/system.slice/nginx.service", Some("nginx.service")),
            ("/system.slice/system-getty.slice/getty@tty1.service", Some("getty@tty1.service")),
            ("/system.slice/foo.service/workers/3", Some("foo.service")),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service", Some("foo.service")),
            ("/user.slice/user-1000.slice/user@1000.service/init.scope", Some("user@1000.service")),
            ("/user.slice/user-1000.slice/user@1000.service", Some("user@1000.service")),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-x-4711.scope", None),
            ("/user.slice/user-1000.slice/session-3.scope", None),
            ("/init.scope", None),
            ("/docker/ID/system.slice/nginx.service", Some("nginx.service")),
            ("/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:ID", None),
            ("/.service", None),
        ] {
            assert_eq!(unit_of(path).as_deref(), expected, "{path}");
        }
    }

    fn components(leaf_first: &[&str]) -> [[u8; 96]; 4] {
        let mut out = [[0; 96]; 4];
        for (to, name) in out.iter_mut().zip(leaf_first) {
            to[..name.len()].copy_from_slice(name.as_bytes());
        }
        out
    }

    #[test]
    fn v1_counts_only_where_v2_is_at_its_root() {
        let root = components(&[]);
        let v2 = components(&["a.service", "system.slice"]);
        let v1 = components(&[ID, "docker"]);
        assert_eq!(from_record(&v2, &v1).unit.as_deref(), Some("a.service"));
        assert_eq!(from_record(&v2, &v1).path.as_deref(), Some("/system.slice/a.service"));
        assert_eq!(from_record(&root, &v1).container.as_deref(), Some("docker:0123456789ab"));
        assert_eq!(from_record(&root, &root), CgroupNames::default());
    }

    #[test]
    fn a_path_that_may_go_on_above_has_no_leading_slash() {
        let deep = components(&["d", "c", "b", "a"]);
        assert_eq!(from_record(&deep, &components(&[])).path.as_deref(), Some("a/b/c/d"));
    }
}
