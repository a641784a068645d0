//! Which processes an SRE thinks of as one.
//!
//! Ports run out because of a service, rarely because of one process: fifty php-fpm children, or the `curl` that a unit's script starts
//! a hundred times a second, each with a pid that is gone before anyone looks it up. A workload is therefore named after what such
//! processes share, and never after what changes with every start (pid, arguments, scope names), unless `--by` asks for it.
//!
//! Not for: finding these facts out (`names`).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::event::ProcessFacts;

/// What to group processes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum By {
    /// The first of pool, container, unit and comm that is known.
    ///
    /// - The *pool* comes first because several pools of one php-fpm share container, unit and comm, and each has its own limits,
    ///   its own code and its own owner.
    /// - The *container* comes before the unit because the unit around it is the container runtime's. It stands without the comm:
    ///   what a container's processes start belongs to the container.
    /// - The *unit* comes before the comm so that programs that a service starts (`curl`, `sh`) belong to the service.
    /// - The *comm* of the group leader names the rest: what users run from their shells.
    #[default]
    Auto,
    /// php-fpm pool, with its container.
    Pool,
    /// systemd unit.
    Unit,
    /// Container runtime and short id.
    Container,
    /// Name of the program.
    Comm,
    /// Path of the executable.
    Exe,
    /// Command line with arguments.
    Cmdline,
    /// Each process by itself.
    Pid,
    /// Path of the cgroup.
    Cgroup,
}

impl By {
    /// Every choice, in the order in which help shows them.
    pub const ALL: [Self; 9] = [
        Self::Auto,
        Self::Pool,
        Self::Unit,
        Self::Container,
        Self::Comm,
        Self::Exe,
        Self::Cmdline,
        Self::Pid,
        Self::Cgroup,
    ];

    /// As typed after `--by`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Pool => "pool",
            Self::Unit => "unit",
            Self::Container => "container",
            Self::Comm => "comm",
            Self::Exe => "exe",
            Self::Cmdline => "cmdline",
            Self::Pid => "pid",
            Self::Cgroup => "cgroup",
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// `--by` was given something else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot group by `{found}`: expected one of {}", By::ALL.map(By::name).join(", "))]
pub struct UnknownBy {
    found: String,
}

impl FromStr for By {
    type Err = UnknownBy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        By::ALL.into_iter().find(|by| by.name() == text).ok_or_else(|| UnknownBy { found: text.into() })
    }
}

/// Which workload a process belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkloadKey {
    /// Its name. Never empty.
    pub name: Arc<str>,
    /// What tells it from another one of that name: the master of a pool (its unit, or its pid), the manager of a user's unit. Shown
    /// where there are two.
    pub apart: Option<Arc<str>>,
}

/// The workload that a process belongs to.
///
/// Where the fact asked for is unknown, the name is that of [`By::Auto`] among the others, so that processes outside of any
/// container, say, are told apart by their units and not lumped together as "none".
pub fn workload_of(facts: &ProcessFacts, by: By) -> WorkloadKey {
    let named = |name: Arc<str>| WorkloadKey { name, apart: None };
    let chosen = match by {
        By::Auto => None,
        By::Pool => pool(facts),
        By::Unit => unit(facts),
        By::Container => container(facts).map(named),
        By::Comm => Some(named(comm(facts))),
        By::Exe => facts.exe.clone().map(named),
        By::Cmdline => facts.cmdline.clone().map(named),
        By::Pid => Some(named(format!("{}[{}]", comm(facts), facts.pid).into())),
        By::Cgroup => facts.cgroup_path.clone().map(named),
    };
    chosen
        .or_else(|| pool(facts))
        .or_else(|| container(facts).map(named))
        .or_else(|| unit(facts))
        .filter(|key| !key.name.is_empty())
        .unwrap_or_else(|| named(comm(facts)))
}

/// The container as its operators know it: `namespace/pod/container` of Kubernetes, else runtime and id.
fn container(facts: &ProcessFacts) -> Option<Arc<str>> {
    facts.pod.clone().filter(|pod| pod.contains('/')).or_else(|| facts.container.clone())
}

/// As the worker's own title has it, and where: two containers may both have a pool `www`, and so may two masters.
fn pool(facts: &ProcessFacts) -> Option<WorkloadKey> {
    let pool = facts.pool.as_ref().filter(|_| is_php_fpm(facts))?;
    let name = match &container(facts) {
        Some(container) => format!("php-fpm: pool {pool} ({container})").into(),
        None => format!("php-fpm: pool {pool}").into(),
    };
    // A unit of php-fpm has one master, which has another pid after a restart. Other units may run several.
    let unit = facts.unit.clone().filter(|unit| unit.contains("fpm"));
    let master = (facts.ppid > 1).then(|| format!("master {}", facts.ppid).into());
    Some(WorkloadKey { name, apart: unit.or(master) })
}

/// A process may have any title. A worker of php-fpm has the master's program, and its parent is one of php-fpm too, or, if that has
/// died, init. What is unknown speaks against nobody.
fn is_php_fpm(facts: &ProcessFacts) -> bool {
    let program =
        facts.exe.as_deref().and_then(|path| path.rsplit('/').next()).is_some_and(|name| name.contains("php-fpm"));
    let parent = facts.parent_comm.is_empty() || facts.ppid <= 1 || facts.parent_comm.contains("php-fpm");
    parent && (program || facts.comm.contains("php-fpm"))
}

/// A service of a user's own manager has that user's name beside it: every user may have a service of that name.
fn unit(facts: &ProcessFacts) -> Option<WorkloadKey> {
    let name = facts.unit.clone()?;
    let mut above = facts.cgroup_path.as_deref().unwrap_or_default().split('/').filter(|part| **part != *name);
    let manager = above.find_map(|part| part.strip_suffix(".service").filter(|part| part.starts_with("user@")));
    Some(WorkloadKey { name, apart: manager.map(Arc::from) })
}

/// The group leader's: threads rename themselves, and `io_uring`'s workers are called `iou-wrk-PID`.
fn comm(facts: &ProcessFacts) -> Arc<str> {
    if !facts.comm.is_empty() {
        return facts.comm.clone();
    }
    if facts.pid == 0 { "unknown".into() } else { format!("pid {}", facts.pid).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, comm: &str) -> ProcessFacts {
        ProcessFacts { pid, comm: comm.into(), ..ProcessFacts::default() }
    }

    fn name(facts: &ProcessFacts, by: By) -> String {
        workload_of(facts, by).name.to_string()
    }

    #[test]
    fn a_title_alone_makes_no_worker() {
        let worker = ProcessFacts {
            pool: Some("www".into()),
            ppid: 7,
            parent_comm: "php-fpm8.2".into(),
            ..process(9, "php-fpm8.2")
        };
        let liars = [
            ProcessFacts { comm: "sleep".into(), ..worker.clone() },
            ProcessFacts { parent_comm: "bash".into(), ..worker.clone() },
            ProcessFacts { comm: "curl".into(), exe: Some("/usr/bin/curl".into()), ..worker.clone() },
        ];
        assert_eq!(name(&worker, By::Auto), "php-fpm: pool www");
        assert_eq!(liars.map(|liar| name(&liar, By::Auto)), ["sleep", "php-fpm8.2", "curl"]);
        let renamed = ProcessFacts { comm: "www".into(), exe: Some("/usr/sbin/php-fpm8.2".into()), ..worker };
        assert_eq!(name(&renamed, By::Auto), "php-fpm: pool www");
    }

    #[test]
    fn two_of_a_name_are_told_apart_by_master_or_manager() {
        let apart = |facts: &ProcessFacts| workload_of(facts, By::Auto).apart.map(|apart| apart.to_string());
        let mut worker = ProcessFacts { pool: Some("www".into()), ppid: 7, ..process(9, "php-fpm") };
        assert_eq!(apart(&worker).as_deref(), Some("master 7"));
        worker.unit = Some("supervisord.service".into());
        assert_eq!(apart(&worker).as_deref(), Some("master 7"), "a unit that may run several masters");
        worker.unit = Some("php8.2-fpm.service".into());
        assert_eq!(apart(&worker).as_deref(), Some("php8.2-fpm.service"), "the same after a restart");
        let of_user = ProcessFacts {
            unit: Some("sync.service".into()),
            cgroup_path: Some("/user.slice/user-1000.slice/user@1000.service/app.slice/sync.service".into()),
            ..process(9, "sync")
        };
        assert_eq!(apart(&of_user).as_deref(), Some("user@1000"));
        let manager = ProcessFacts {
            unit: Some("user@1000.service".into()),
            cgroup_path: Some("/user.slice/user-1000.slice/user@1000.service/init.scope".into()),
            ..process(9, "systemd")
        };
        assert_eq!(apart(&manager), None);
    }

    #[test]
    fn auto_prefers_pool_then_container_then_unit_then_comm() {
        let mut facts = process(7, "php-fpm8.2");
        assert_eq!(name(&facts, By::Auto), "php-fpm8.2");
        facts.unit = Some("php8.2-fpm.service".into());
        assert_eq!(name(&facts, By::Auto), "php8.2-fpm.service");
        facts.container = Some("docker:0123456789ab".into());
        assert_eq!(name(&facts, By::Auto), "docker:0123456789ab");
        facts.pool = Some("www".into());
        assert_eq!(name(&facts, By::Auto), "php-fpm: pool www (docker:0123456789ab)");
        facts.container = None;
        assert_eq!(name(&facts, By::Auto), "php-fpm: pool www");
    }

    #[test]
    fn short_lived_children_of_one_service_fall_together() {
        let parent = ProcessFacts { unit: Some("sync.service".into()), ..process(10, "sync.sh") };
        let names: std::collections::BTreeSet<_> = (11..40)
            .map(|pid| ProcessFacts {
                unit: Some("sync.service".into()),
                cmdline: Some(format!("curl http://backend/{pid}").into()),
                ..process(pid, "curl")
            })
            .chain([parent])
            .map(|facts| name(&facts, By::Auto))
            .collect();
        assert_eq!(names.len(), 1);
    }

    #[test]
    fn a_container_of_a_pod_has_the_pod_s_name_and_not_an_id() {
        let mut facts = ProcessFacts {
            container: Some("containerd:0123456789ab".into()),
            pod: Some("shop/web-7d9f/php".into()),
            ..process(7, "php")
        };
        assert_eq!(name(&facts, By::Auto), "shop/web-7d9f/php");
        assert_eq!(name(&facts, By::Container), "shop/web-7d9f/php");
        facts.pod = Some("1b2c3d4e-5f60-4789-8abc-def012345678".into());
        assert_eq!(name(&facts, By::Auto), "containerd:0123456789ab", "a UID names nothing that kubectl shows");
    }

    #[test]
    fn every_choice_is_honoured_where_its_fact_is_known() {
        let facts = ProcessFacts {
            pool: Some("www".into()),
            unit: Some("a.service".into()),
            container: Some("docker:0123456789ab".into()),
            exe: Some("/usr/bin/x".into()),
            cmdline: Some("x -y".into()),
            cgroup_path: Some("/system.slice/a.service".into()),
            ..process(7, "php-fpm")
        };
        let names = By::ALL.map(|by| name(&facts, by));
        let pool = "php-fpm: pool www (docker:0123456789ab)";
        let expected = [
            pool,
            pool,
            "a.service",
            "docker:0123456789ab",
            "php-fpm",
            "/usr/bin/x",
            "x -y",
            "php-fpm[7]",
            "/system.slice/a.service",
        ];
        assert_eq!(names.each_ref().map(String::as_str), expected);
    }

    #[test]
    fn an_unknown_fact_falls_back_and_no_name_is_empty() {
        let facts = ProcessFacts { unit: Some("a.service".into()), ..process(7, "x") };
        assert_eq!(name(&facts, By::Container), "a.service");
        for by in By::ALL {
            assert!(!name(&ProcessFacts::default(), by).is_empty(), "{by}");
        }
        assert_eq!(name(&ProcessFacts::default(), By::Auto), "unknown");
        assert_eq!(name(&process(9, ""), By::Auto), "pid 9");
    }

    #[test]
    fn names_parse_back_and_errors_list_what_there_is() {
        for by in By::ALL {
            assert_eq!(by.to_string().parse(), Ok(by));
        }
        let error = "service".parse::<By>().expect_err("no such choice").to_string();
        assert!(error.contains("`service`") && error.contains("auto, pool, unit"), "{error}");
    }
}
