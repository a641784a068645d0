//! The columns of the present format version, in their order.
//!
//! `FORMAT.md` describes them for analysts and says how a column is added; a test compares its table with this module.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// Metadata key of the format version; the first thing that a reader looks at.
pub const VERSION_KEY: &str = "portchurn.version";
/// Metadata key of the header, as JSON.
pub const HEADER_KEY: &str = "portchurn.header";
/// Metadata key: `time` minus this value is `CLOCK_MONOTONIC`, in nanoseconds.
pub const OFFSET_KEY: &str = "portchurn.ktime_offset_ns";

/// Names of the columns.
pub mod column {
    /// Wall time of the row, nanoseconds since 1970.
    pub const TIME: &str = "time";
    /// What the row is: a name of [`crate::recording::enums::RowKind`].
    pub const KIND: &str = "kind";
    /// Inode number of the network namespace; 0 if the kernel did not tell it.
    pub const NETNS: &str = "netns";
    /// Low half of the namespace's cookie; null if it is unknown.
    pub const NETNS_COOKIE: &str = "netns_cookie";
    /// Index of the interface that the socket is bound to; null if there is none.
    pub const DEVICE: &str = "device";
    /// Address of the socket itself.
    pub const LOCAL_ADDR: &str = "local_addr";
    /// Port that the socket holds now; 0 before connect() chose one and after the kernel released it.
    pub const LOCAL_PORT: &str = "local_port";
    /// Address of the peer; in `connect_failed` the address that connect() was asked for.
    pub const REMOTE_ADDR: &str = "remote_addr";
    /// Port of the peer; in `connect_failed` the port that connect() was asked for.
    pub const REMOTE_PORT: &str = "remote_port";
    /// TCP state before a transition.
    pub const OLD_STATE: &str = "old_state";
    /// TCP state after a transition; in `socket` the present state.
    pub const NEW_STATE: &str = "new_state";
    /// Name of the errno that the call returned, or that the kernel had noted on the socket at a transition.
    pub const ERRNO: &str = "errno";
    /// Name of the process in `process`, of the calling thread in failed calls.
    pub const COMM: &str = "comm";
    /// Process that caused the event; null if the kernel was in no process's context. In `socket` the owner.
    pub const PID: &str = "pid";
    /// Thread that was current, whether it caused the event or not; null in `time_wait_*`.
    pub const TID: &str = "tid";
    /// cgroup v2 id of the process.
    pub const CGROUP: &str = "cgroup";
    /// The kernel's socket cookie.
    pub const COOKIE: &str = "cookie";
    /// Masked kernel address of the socket; null repeats the value that the batch last had for the same cookie.
    pub const SOCK: &str = "sock";
    /// In `accepted`: cookie of the listening socket.
    pub const LISTENER_COOKIE: &str = "listener_cookie";
    /// In `accepted`: masked kernel address of the listening socket.
    pub const LISTENER_SOCK: &str = "listener_sock";
    /// Local port that the socket held last; null if that is `local_port`.
    pub const LAST_PORT: &str = "last_port";
    /// Nanoseconds that a failed call took, or that connect() searched for a port.
    pub const TOOK_NS: &str = "took_ns";
    /// Nanoseconds until the timer of a listed minisocket is due.
    pub const REMAINING_NS: &str = "remaining_ns";
    /// The application had called shutdown() or close().
    pub const SHUTDOWN: &str = "shutdown";
    /// A later link of the program chain wrote the transition, which may repeat the one before.
    pub const RESCUED: &str = "rescued";
    /// The transition comes from the classic tracepoint: it has neither namespace nor cookie.
    pub const CLASSIC: &str = "classic";
    /// In `time_wait_end`: the minisocket's time was up.
    pub const EXPIRED: &str = "expired";
    /// In `time_wait_*`: the peer's FIN had not arrived yet.
    pub const FIN_WAIT2: &str = "fin_wait2";
    /// In `socket`: the socket is a minisocket.
    pub const MINISOCKET: &str = "minisocket";
    /// bind() named the port; null if that is unknown.
    pub const NAMED: &str = "named";
    /// In `socket`: bind() or listen() has closed the port to the connects of others; null if that is unknown.
    pub const CLOSED: &str = "closed";
    /// In `socket`: a process has a descriptor of it; null if that is unknown.
    pub const HAS_DESCRIPTOR: &str = "has_descriptor";
    /// Of a minisocket: the peer had sent TCP timestamps; null if that is unknown.
    pub const TIMESTAMPS: &str = "timestamps";
    /// JSON with the facts that few rows have.
    pub const DETAIL: &str = "detail";
}

/// The columns in their order, without the metadata.
pub fn fields() -> Vec<Field> {
    use column as c;
    let name = || DataType::Dictionary(Box::new(DataType::UInt8), Box::new(DataType::Utf8));
    let address = || DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::Utf8));
    let nullable = |name: &str, data_type| Field::new(name, data_type, true);
    let always = |name: &str, data_type| Field::new(name, data_type, false);
    vec![
        always(c::TIME, DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))),
        always(c::KIND, name()),
        nullable(c::NETNS, DataType::UInt32),
        nullable(c::NETNS_COOKIE, DataType::UInt32),
        nullable(c::DEVICE, DataType::UInt32),
        nullable(c::LOCAL_ADDR, address()),
        nullable(c::LOCAL_PORT, DataType::UInt16),
        nullable(c::REMOTE_ADDR, address()),
        nullable(c::REMOTE_PORT, DataType::UInt16),
        nullable(c::OLD_STATE, name()),
        nullable(c::NEW_STATE, name()),
        nullable(c::ERRNO, DataType::Utf8),
        nullable(c::COMM, DataType::Utf8),
        nullable(c::PID, DataType::UInt32),
        nullable(c::TID, DataType::UInt32),
        nullable(c::CGROUP, DataType::UInt64),
        nullable(c::COOKIE, DataType::UInt64),
        nullable(c::SOCK, DataType::UInt64),
        nullable(c::LISTENER_COOKIE, DataType::UInt64),
        nullable(c::LISTENER_SOCK, DataType::UInt64),
        nullable(c::LAST_PORT, DataType::UInt16),
        nullable(c::TOOK_NS, DataType::UInt64),
        nullable(c::REMAINING_NS, DataType::UInt64),
        always(c::SHUTDOWN, DataType::Boolean),
        always(c::RESCUED, DataType::Boolean),
        always(c::CLASSIC, DataType::Boolean),
        always(c::EXPIRED, DataType::Boolean),
        always(c::FIN_WAIT2, DataType::Boolean),
        always(c::MINISOCKET, DataType::Boolean),
        nullable(c::NAMED, DataType::Boolean),
        nullable(c::CLOSED, DataType::Boolean),
        nullable(c::HAS_DESCRIPTOR, DataType::Boolean),
        nullable(c::TIMESTAMPS, DataType::Boolean),
        nullable(c::DETAIL, DataType::Utf8),
    ]
}

/// Whether the dictionary of such a column grows while a file is written: addresses do, names do not.
pub fn grows(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Dictionary(keys, _) if **keys == DataType::UInt32)
}

/// The schema that a file begins with, with this metadata.
pub fn schema(metadata: HashMap<String, String>) -> SchemaRef {
    Arc::new(Schema::new_with_metadata(fields(), metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::enums::RowKind;

    /// A table row of FORMAT.md is `| name | type | ...`.
    #[test]
    fn the_description_names_every_column_kind_and_key_and_no_other() {
        let page = include_str!("FORMAT.md");
        let cells = |heading: &str| -> Vec<(String, String)> {
            let section = page.split("\n## ").find(|section| section.starts_with(heading)).expect("the section");
            let rows = section.lines().filter(|line| line.starts_with("| `"));
            rows.map(|row| {
                let mut cells = row.split('|').skip(1).map(|cell| cell.trim().trim_matches('`').to_owned());
                (cells.next().unwrap_or_default(), cells.next().unwrap_or_default())
            })
            .collect()
        };
        let type_name = |data_type: &DataType| match data_type {
            DataType::Dictionary(keys, _) if **keys == DataType::UInt8 => "name".to_owned(),
            DataType::Dictionary(..) => "address".to_owned(),
            DataType::Utf8 => "text".to_owned(),
            DataType::Timestamp(..) => "timestamp[ns, UTC]".to_owned(),
            other => other.to_string().to_lowercase(),
        };
        let columns: Vec<_> =
            fields().iter().map(|field| (field.name().clone(), type_name(field.data_type()))).collect();
        assert_eq!(cells("Columns"), columns);
        let kinds: Vec<_> = cells("Rows").into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, RowKind::ALL.map(RowKind::as_str));
        let keys: Vec<_> = cells("Metadata").into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [VERSION_KEY, OFFSET_KEY, HEADER_KEY]);
        assert!(page.contains(&format!("Format version {}", crate::recording::VERSION)));
    }
}
