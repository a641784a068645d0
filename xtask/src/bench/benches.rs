//! The benches that exist.

use clap::ValueEnum;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bench {
    Kernel,
    /// Costs for programs without connections: timers and system calls.
    Host,
    /// How good forecasts of exhaustion are.
    Forecast,
    Ingest,
    /// Recording, and reading recordings.
    Record,
    /// The same as `record`.
    Replay,
    Memory,
    Startup,
    Reconcile,
    /// Drawing and answering keys.
    View,
    Scale,
    All,
}

impl Bench {
    /// All benches, in the order of the table.
    pub const EACH: [Self; 10] = [
        Self::Forecast,
        Self::Ingest,
        Self::Memory,
        Self::Kernel,
        Self::Host,
        Self::Record,
        Self::Startup,
        Self::Reconcile,
        Self::View,
        Self::Scale,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Host => "host",
            Self::Forecast => "forecast",
            Self::Ingest => "ingest",
            Self::Record | Self::Replay => "record",
            Self::Memory => "memory",
            Self::Startup => "startup",
            Self::Reconcile => "reconcile",
            Self::View => "view",
            Self::Scale => "scale",
            Self::All => "all",
        }
    }
}
