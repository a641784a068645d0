//! Facts in, decision out: which programs to load with which settings, and what is lost without the others. Pure.

use tracer_common::Offsets;

use super::Host;
use tracer_core::host::Degradation;

/// What the user asked for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of the ring buffer: a power of two, at least a page.
    pub ring_size: u32,
    /// Try fentry and fexit before tracepoints.
    pub exact: bool,
}

impl Default for Options {
    /// 16 MiB hold 150,000 transitions: half a second of the fastest loopback churn that two CPUs can make.
    fn default() -> Self {
        Self { ring_size: 16 << 20, exact: true }
    }
}

/// How state transitions are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateHook {
    /// The chain of BTF tracepoint programs.
    Chain,
    /// The classic tracepoint: no BTF.
    Classic,
}

/// What records know of network namespaces, and so every other source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetnsNames {
    /// Nothing: only our own namespace can be listed, as the unknown one.
    Unknown,
    /// Inode numbers, which the kernel uses again.
    Inodes,
    /// Inode numbers and cookies.
    Cookies,
}

/// The decision.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How state transitions are seen.
    pub state: StateHook,
    /// Offsets of the members that the programs read.
    pub offsets: Offsets,
    /// fentry and fexit are worth a try; only the attempt shows whether the kernel accepts them.
    pub exact: bool,
    /// Parameters of `inet_csk_accept`.
    pub accept_parameters: Option<usize>,
    /// Parameters of `inet_csk_listen_start`.
    pub listen_parameters: Option<usize>,
    /// `bpf_task_pt_regs` exists.
    pub task_regs: bool,
    /// Address of the timer handler for the timer tracepoints; the error says why `TIME_WAIT` cannot be traced by them.
    pub timers: Result<u64, String>,
    /// connect, bind and accept at the syscall boundary; the error says why not.
    pub calls: Result<(), String>,
    /// `TIME_WAIT` can be read from minisockets at all; the error says why not.
    pub minisockets: Result<(), String>,
    /// tracefs has to be mounted for the classic tracepoints.
    pub mount_tracefs: bool,
    /// Offset into `css_set.subsys`, `u32::MAX` = no v1 hierarchy worth reading.
    pub cgroup_v1_subsys: u32,
    /// Bytes of the ring buffer.
    pub ring_size: u32,
    /// What cannot be seen on this host.
    pub degraded: Vec<Degradation>,
}

impl Plan {
    /// What records will know of network namespaces.
    pub fn netns_names(&self) -> NetnsNames {
        match self.state {
            StateHook::Classic => NetnsNames::Unknown,
            StateHook::Chain if self.offsets.NET_COOKIE == Offsets::MISSING => NetnsNames::Inodes,
            StateHook::Chain => NetnsNames::Cookies,
        }
    }
}

/// Without these the BTF programs cannot tell one socket from another.
const NEEDED: [&str; 15] = [
    "SKC_DADDR",
    "SKC_RCV_SADDR",
    "SKC_DPORT",
    "SKC_NUM",
    "SKC_FAMILY",
    "SKC_BOUND_DEV_IF",
    "SKC_V6_DADDR",
    "SKC_V6_RCV_SADDR",
    "SKC_NET",
    "SKC_COOKIE",
    "SK_PROTOCOL",
    "SK_ERR",
    "SK_SHUTDOWN",
    "INET_SPORT",
    "NS_INUM",
];
const FOR_TIME_WAIT: [&str; 4] = ["TW_TIMER", "TW_SUBSTATE", "TIMER_EXPIRES", "TIMER_FUNCTION"];
const FOR_CALLS: [&str; 7] =
    ["TASK_FILES", "FILES_FDT", "FDT_FD", "FDT_MAX_FDS", "FILE_PRIVATE", "FILE_INODE", "SOCKET_SK"];
const FOR_LIMITS: [&str; 2] = ["NET_PORT_RANGE", "NET_RESERVED_PORTS"];
const FOR_NAMES: [&str; 4] = ["TASK_LEADER", "TASK_COMM", "TASK_MM", "TASK_START"];

/// Decides which programs to load on `host`, and states what cannot be seen without the others.
pub fn plan(host: &Host, options: &Options) -> Plan {
    let mut degraded = Vec::new();
    if !host.host_pids {
        degraded.push(Degradation::new(
            "the host's processes in /proc",
            "this process is in a pid namespace of its own, and records have the ids of the host: run the container with the host's \
             pid namespace (--pid=host, hostPID: true)",
            "owners of sockets that existed before the start, executables, and namespaces in which none of this container's processes \
             lives",
        ));
    }
    let (mut offsets, no_btf) = match &host.btf {
        Ok(facts) => (facts.offsets, None),
        Err(why) => (Offsets::from_lookup(|_, _| None), Some(why.clone())),
    };
    if !host.netns_cookies {
        // All sources name a namespace alike, or its events would not meet: records have a cookie where sockets tell it to
        // user space too, and nowhere else.
        offsets.NET_COOKIE = Offsets::MISSING;
    }
    let missing = |names: &[&str]| {
        let lacking: Vec<_> = offsets
            .entries()
            .iter()
            .filter(|(global, _, offset)| names.contains(global) && *offset == Offsets::MISSING)
            .map(|&(_, kernel, _)| kernel)
            .collect();
        (!lacking.is_empty()).then(|| format!("this kernel's BTF does not describe {}", lacking.join(", ")))
    };
    let state = match no_btf.or_else(|| missing(&NEEDED)) {
        None => StateHook::Chain,
        Some(why) => {
            degraded.push(Degradation::new(
                "BTF tracepoint inet_sock_set_state",
                why,
                "network namespaces, socket cookies and errno of failed connects; a socket that is used for a second connect \
                 may show its old port; TIME_WAIT is inferred",
            ));
            StateHook::Classic
        }
    };
    let needs = |names: &[&str]| match missing(names) {
        _ if state == StateHook::Classic => Err("needs BTF".to_owned()),
        Some(why) => Err(why),
        None => Ok(()),
    };
    let minisockets = needs(&FOR_TIME_WAIT);
    let timers = minisockets.clone().and_then(|()| host.tw_timer_handler.clone());
    let calls = needs(&FOR_CALLS);
    if state == StateHook::Chain {
        if let Some(why) = missing(&FOR_LIMITS) {
            degraded.push(Degradation::new(
                "port range of every namespace",
                why,
                "capacity of namespaces that have no process",
            ));
        }
        if let Some(why) = missing(&FOR_NAMES) {
            degraded.push(Degradation::new(
                "process facts from the kernel",
                why,
                "names of processes that are gone quickly",
            ));
        }
    }
    Plan {
        state,
        offsets,
        exact: options.exact && state == StateHook::Chain,
        accept_parameters: host.btf.as_ref().ok().and_then(|facts| facts.accept_parameters),
        listen_parameters: host.btf.as_ref().ok().and_then(|facts| facts.listen_parameters),
        task_regs: host.btf.as_ref().is_ok_and(|facts| facts.task_regs),
        mount_tracefs: !host.tracefs && (calls.is_ok() || state == StateHook::Classic),
        timers,
        calls,
        minisockets,
        cgroup_v1_subsys: v1_subsystem(host),
        ring_size: options.ring_size,
        degraded,
    }
}

/// `TIME_WAIT` cannot be traced, because of `why`.
pub fn no_time_wait(why: impl Into<String>) -> Degradation {
    Degradation::new(
        "tracing of TIME_WAIT",
        why,
        "exact begin and end of TIME_WAIT: both are inferred by the kernel's rules and reconciled with sock_diag",
    )
}

/// fentry and fexit are refused, because of `why`.
pub fn no_exact(purposes: &[&str], why: impl Into<String>) -> Degradation {
    Degradation::new(
        format!("fentry and fexit for {}", purposes.join(", ")),
        why,
        "who accepts through io_uring, and why its connects fail before any state changes; tracepoints tell the rest, at a small \
         cost for every timer and every system call of this host",
    )
}

/// The list of sockets with their ports' buckets cannot be had, because of `why`.
pub fn no_socket_facts(why: impl Into<String>) -> Degradation {
    Degradation::new(
        "the kernel's own list of sockets (iter/tcp)",
        why,
        "which ports bind() had closed to connect() before the start, and whether minisockets of that time can be re-used",
    )
}

/// Neither functions nor system calls can be traced for `purposes`, because of `why`.
pub fn no_calls(purposes: &[&str], why: impl Into<String>) -> Degradation {
    Degradation::new(
        format!("tracing of {}", purposes.join(", ")),
        why,
        "failures that change no TCP state (no route, no local address, bind without a free port), confirmation of errnos, and \
         which process accepted a connection",
    )
}

/// Offset of the cgroup v1 controller to read. Every v1 controller has its own tree; the first of these that is mounted has the names of containers and of services.
fn v1_subsystem(host: &Host) -> u32 {
    let Ok(btf) = &host.btf else { return u32::MAX };
    ["pids", "memory", "devices", "cpu"]
        .into_iter()
        .filter(|name| host.cgroup_v1.iter().any(|mounted| mounted == name))
        .find_map(|name| {
            let wanted = format!("{name}_cgrp_id");
            btf.cgroup_subsystems.iter().find(|(found, _)| *found == wanted).map(|(_, id)| id * 8)
        })
        .unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::host::BtfFacts;
    use super::*;

    fn host() -> Host {
        Host {
            hostname: "h".into(),
            kernel: "6.1.0".into(),
            boot_id: None,
            btf: Ok(BtfFacts {
                offsets: Offsets::from_lookup(|_, _| Some(8)),
                cgroup_subsystems: vec![("cpu_cgrp_id".into(), 1), ("pids_cgrp_id".into(), 11)],
                accept_parameters: Some(4),
                listen_parameters: Some(1),
                task_regs: true,
            }),
            tw_timer_handler: Ok(1),
            netns_cookies: true,
            tracefs: true,
            host_pids: true,
            capabilities: std::collections::BTreeSet::new(),
            lockdown: None,
            memlock: None,
            cgroup_v1: vec![],
        }
    }

    #[test]
    fn a_whole_kernel_gives_every_hook_and_no_degradation() {
        let plan = plan(&host(), &Options::default());
        assert_eq!(
            (plan.state, plan.exact, plan.timers, plan.calls, plan.mount_tracefs),
            (StateHook::Chain, true, Ok(1), Ok(()), false)
        );
        assert_eq!(plan.degraded, []);
    }

    #[test]
    fn a_container_without_the_hosts_pids_says_what_to_change() {
        let plan = plan(&Host { host_pids: false, ..host() }, &Options::default());
        assert!(plan.degraded.len() == 1 && plan.degraded[0].why.contains("hostPID: true"), "{:?}", plan.degraded);
    }

    #[test]
    fn without_btf_the_classic_tracepoint_is_left_and_each_loss_is_stated() {
        let plan = plan(&Host { btf: Err("no such file".into()), tracefs: false, ..host() }, &Options::default());
        assert_eq!((plan.state, plan.exact), (StateHook::Classic, false));
        assert!(plan.timers.is_err() && plan.minisockets.is_err() && plan.calls.is_err() && plan.mount_tracefs);
        assert_eq!(plan.degraded.len(), 1, "{:?}", plan.degraded);
    }

    #[test]
    fn each_missing_member_costs_only_its_own_hook() {
        for (absent, chain, time_wait, calls) in [
            ("tw_timer", StateHook::Chain, false, true),
            ("fd", StateHook::Chain, true, false),
            ("sk_err", StateHook::Classic, false, false),
            ("ipv4.ip_local_ports.range", StateHook::Chain, true, true),
        ] {
            let offsets = Offsets::from_lookup(|_, member| (member != absent).then_some(8));
            let btf = Ok(BtfFacts {
                offsets,
                cgroup_subsystems: vec![],
                accept_parameters: None,
                listen_parameters: None,
                task_regs: false,
            });
            let plan = plan(&Host { btf, ..host() }, &Options::default());
            assert_eq!((plan.state, plan.timers.is_ok(), plan.calls.is_ok()), (chain, time_wait, calls), "{absent}");
            let stated = [plan.timers.err(), plan.calls.err()].into_iter().flatten().count() + plan.degraded.len();
            assert!(stated > 0, "{absent}");
        }
    }

    #[test]
    fn hidden_symbols_cost_the_timers_and_say_what_gives_them_back() {
        let plan = plan(&Host { tw_timer_handler: Err("needs CAP_SYSLOG".into()), ..host() }, &Options::default());
        assert!(plan.timers.is_err_and(|why| why.contains("CAP_SYSLOG")));
        assert_eq!(plan.minisockets, Ok(()), "fentry needs no address");
    }

    #[test]
    fn a_v1_hierarchy_is_read_only_where_it_is_mounted() {
        assert_eq!(plan(&host(), &Options::default()).cgroup_v1_subsys, u32::MAX);
        let hybrid = Host { cgroup_v1: vec!["cpu".into(), "pids".into()], ..host() };
        assert_eq!(plan(&hybrid, &Options::default()).cgroup_v1_subsys, 88);
    }
}
