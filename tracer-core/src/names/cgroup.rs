//! What a cgroup path says: systemd unit and container.
//!
//! Runtimes write the container's id into the path, each in its own way; nobody is asked over a socket. Not for: turning ids into
//! container names, which would need the runtime's API and its permissions.

use std::sync::Arc;

use super::text;

/// Hex digits of a whole container id.
const ID_DIGITS: usize = 64;
/// Digits that are shown, as `docker ps` does.
pub const SHORT_ID_DIGITS: usize = 12;

/// What a path says about its processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupNames {
    pub path: Option<Arc<str>>,
    pub unit: Option<Arc<str>>,
    pub container: Option<Arc<str>>,
}

/// From a record: components leaf first, all zero at and above the root. v2 unless it is at its root while v1 is not.
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
        // There may be more above; without the leading slash it does not claim to be the whole path.
        names.path = Some(path.trim_start_matches('/').into());
    }
    names
}

/// From a path as `/proc/PID/cgroup` has it.
pub fn from_path(path: &str) -> CgroupNames {
    let path = text(path.as_bytes());
    // A path outside the reader's cgroup namespace begins with `/..`.
    describe(&path.split('/').filter(|name| !name.is_empty() && *name != "..").collect::<Vec<&str>>())
}

/// `components` from the root to the leaf.
fn describe(components: &[&str]) -> CgroupNames {
    if components.is_empty() {
        return CgroupNames::default();
    }
    // The container nearest to the leaf, and where it is: what lies above it belongs to the runtime, not to its processes.
    let found = (0..components.len()).rev().find_map(|at| {
        let parent = at.checked_sub(1).and_then(|parent| components.get(parent));
        container(components.get(at)?, parent.copied()).map(|name| (at, name))
    });
    let own = found.as_ref().map_or(components, |(at, _)| components.get(at + 1..).unwrap_or_default());
    CgroupNames {
        path: Some(format!("/{}", components.join("/")).into()),
        unit: unit(own),
        container: found.map(|(_, name)| name),
    }
}

/// The service nearest to the leaf.
///
/// `user@1000.service` is the manager of everything that this user runs: it is the unit only of the manager itself. Scopes
/// (`session-3.scope`, `run-r1a2b.scope`, `app-…-4711.scope`) are no unit here: their names change with every start, so
/// that one program would fall apart into many workloads.
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

/// `docker:0123456789ab` if this component is a container's.
fn container(name: &str, parent: Option<&str>) -> Option<Arc<str>> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    // containerd with the systemd spelling under the cgroupfs driver: `kubepods-…-pod<uid>.slice:cri-containerd:<id>`. A record
    // may hold only the beginning of the id there.
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

/// The runtime behind a scope's prefix. Exact, so that `crio-conmon-<id>.scope`, the monitor, is no container.
fn runtime(prefix: &str) -> Option<&'static str> {
    Some(match prefix {
        "docker" => "docker",
        "cri-containerd" | "containerd" | "nerdctl" => "containerd",
        "crio" => "crio",
        "libpod" => "podman",
        _ => return None,
    })
}

/// What the directory around a bare id tells.
fn parent_says(parent: &str) -> Option<&'static str> {
    match parent {
        "docker" => Some("docker"),
        "libpod" | "libpod_parent" => Some("podman"),
        // `pod<uid>` or `kubepods…`: some runtime of Kubernetes; `crictl inspect` finds it.
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
