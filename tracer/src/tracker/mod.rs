pub mod findings;
pub mod snapshot;
pub mod workload;
