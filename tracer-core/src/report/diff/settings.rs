//! What was set differently: the sysctls of the namespaces that are on both sides, and the kernel.

use serde::Serialize;

use super::side::Side;
use crate::tracker::snapshot::Namespace;

/// A setting that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct SettingChange {
    /// Name or inode number of the namespace; `None` of a setting of the host.
    pub(super) netns: Option<String>,
    pub(super) setting: &'static str,
    /// `None` = unknown.
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
}

type SettingOf = fn(&Namespace) -> Option<String>;

const SETTINGS: [(&str, SettingOf); 8] = [
    ("net.ipv4.ip_local_port_range", |n| n.port_range.map(|(lo, hi)| format!("{lo} {hi}"))),
    ("net.ipv4.ip_local_reserved_ports (ports of the range)", |n| n.port_range.map(|_| n.reserved.to_string())),
    ("capacity", |n| n.capacity.map(|capacity| capacity.to_string())),
    ("net.ipv4.tcp_tw_reuse", |n| n.tw_reuse.map(|value| value.to_string())),
    ("net.ipv4.tcp_tw_reuse_delay", |n| n.tw_reuse_delay_ms.map(|value| value.to_string())),
    ("net.ipv4.tcp_timestamps", |n| n.timestamps.map(|value| u8::from(value).to_string())),
    ("net.ipv4.tcp_max_tw_buckets", |n| n.max_tw_buckets.map(|value| value.to_string())),
    ("net.ipv4.tcp_fin_timeout (ms)", |n| n.fin_timeout_ms.map(|value| value.to_string())),
];

/// The namespace on the other side: the same one, else the one of its name, else the only one of each side.
fn counterpart<'a>(namespace: &Namespace, own: &[Namespace], others: &'a [Namespace]) -> Option<&'a Namespace> {
    let same = others.iter().find(|other| other.netns == namespace.netns && other.name == namespace.name);
    let named = || others.iter().find(|other| namespace.name.is_some() && other.name == namespace.name);
    let only = || others.first().filter(|_| own.len() == 1 && others.len() == 1);
    same.or_else(named).or_else(only)
}

/// Everything that is known on both sides and differs.
pub(super) fn changes(before: &Side<'_>, after: &Side<'_>) -> Vec<SettingChange> {
    let (own, others) = (&before.snapshot.namespaces, &after.snapshot.namespaces);
    let mut changes = Vec::new();
    let kernels = (before.host.kernel.clone(), after.host.kernel.clone());
    if kernels.0.is_some() && kernels.1.is_some() && kernels.0 != kernels.1 {
        changes.push(SettingChange { netns: None, setting: "kernel", before: kernels.0, after: kernels.1 });
    }
    for namespace in own {
        let Some(other) = counterpart(namespace, own, others) else { continue };
        let name = namespace.name.as_deref().map_or_else(|| namespace.netns.inode.to_string(), Into::into);
        for (setting, of) in SETTINGS {
            let (was, is) = (of(namespace), of(other));
            if was.is_some() && is.is_some() && was != is {
                changes.push(SettingChange { netns: Some(name.clone()), setting, before: was, after: is });
            }
        }
    }
    changes
}
