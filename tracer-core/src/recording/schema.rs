//! Columns of the present format version, in their order. `FORMAT.md` is their description for analysts, held against this by a test.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// Metadata key of the format version; the first thing that a reader looks at.
pub const VERSION_KEY: &str = "portchurn.version";
/// Metadata key of the header, as JSON.
pub const HEADER_KEY: &str = "portchurn.header";
/// Metadata key: `time` less this is `CLOCK_MONOTONIC`.
pub const OFFSET_KEY: &str = "portchurn.ktime_offset_ns";

/// Names of the columns.
pub mod column {
    pub const TIME: &str = "time";
    pub const KIND: &str = "kind";
    pub const NETNS: &str = "netns";
    pub const LOCAL_ADDR: &str = "local_addr";
    pub const LOCAL_PORT: &str = "local_port";
    pub const REMOTE_ADDR: &str = "remote_addr";
    pub const REMOTE_PORT: &str = "remote_port";
    pub const OLD_STATE: &str = "old_state";
    pub const NEW_STATE: &str = "new_state";
    pub const ERRNO: &str = "errno";
    pub const COMM: &str = "comm";
    pub const PID: &str = "pid";
    pub const TID: &str = "tid";
    pub const CGROUP: &str = "cgroup";
    pub const COOKIE: &str = "cookie";
    pub const SOCK: &str = "sock";
    pub const LAST_PORT: &str = "last_port";
    pub const TOOK_NS: &str = "took_ns";
    pub const REMAINING_NS: &str = "remaining_ns";
    pub const SHUTDOWN: &str = "shutdown";
    pub const RESCUED: &str = "rescued";
    pub const CLASSIC: &str = "classic";
    pub const EXPIRED: &str = "expired";
    pub const FIN_WAIT2: &str = "fin_wait2";
    pub const MINISOCKET: &str = "minisocket";
    pub const DETAIL: &str = "detail";
}

/// The columns without the metadata.
pub fn fields() -> Vec<Field> {
    use column as c;
    let words = || DataType::Dictionary(Box::new(DataType::UInt8), Box::new(DataType::Utf8));
    let address = || DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::Utf8));
    let nullable = |name: &str, data_type| Field::new(name, data_type, true);
    let always = |name: &str, data_type| Field::new(name, data_type, false);
    vec![
        always(c::TIME, DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))),
        always(c::KIND, words()),
        nullable(c::NETNS, DataType::UInt32),
        nullable(c::LOCAL_ADDR, address()),
        nullable(c::LOCAL_PORT, DataType::UInt16),
        nullable(c::REMOTE_ADDR, address()),
        nullable(c::REMOTE_PORT, DataType::UInt16),
        nullable(c::OLD_STATE, words()),
        nullable(c::NEW_STATE, words()),
        nullable(c::ERRNO, DataType::Utf8),
        nullable(c::COMM, DataType::Utf8),
        nullable(c::PID, DataType::UInt32),
        nullable(c::TID, DataType::UInt32),
        nullable(c::CGROUP, DataType::UInt64),
        nullable(c::COOKIE, DataType::UInt64),
        nullable(c::SOCK, DataType::UInt64),
        nullable(c::LAST_PORT, DataType::UInt16),
        nullable(c::TOOK_NS, DataType::UInt64),
        nullable(c::REMAINING_NS, DataType::UInt64),
        always(c::SHUTDOWN, DataType::Boolean),
        always(c::RESCUED, DataType::Boolean),
        always(c::CLASSIC, DataType::Boolean),
        always(c::EXPIRED, DataType::Boolean),
        always(c::FIN_WAIT2, DataType::Boolean),
        always(c::MINISOCKET, DataType::Boolean),
        nullable(c::DETAIL, DataType::Utf8),
    ]
}

/// Does the dictionary of such a column grow while a file is written?
pub fn grows(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Dictionary(keys, _) if **keys == DataType::UInt32)
}

/// The schema with this metadata, which is what a file begins with.
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
            DataType::Dictionary(keys, _) if **keys == DataType::UInt8 => "word".to_owned(),
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
