pub mod snapshot;
pub mod workload;
