//! Which figures make the table, and what is asked of them.

use super::figures::Figures;

#[derive(Clone, Copy, Debug)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

/// How a row comes from figures.
#[derive(Clone, Copy)]
enum From {
    Figure(&'static str),
    Ratio(&'static str, &'static str),
    /// By how many percent the first is less than the second.
    Fewer(&'static str, &'static str),
    /// Millions a second, of nanoseconds each.
    Millions(&'static str),
    /// The difference of two figures of one round.
    More(&'static str, &'static str),
}

pub struct Row {
    section: &'static str,
    what: &'static str,
    from: From,
    unit: &'static str,
    goal: Option<Goal>,
    /// What stands in the way of a missed goal; without a goal, what the figure means.
    cause: &'static str,
}

impl Row {
    /// The first figure; its first part is the bench.
    pub fn key(&self) -> &'static str {
        self.needs()[0]
    }

    pub fn needs(&self) -> Vec<&'static str> {
        match self.from {
            From::Figure(a) | From::Millions(a) => vec![a],
            From::Ratio(a, b) | From::Fewer(a, b) | From::More(a, b) => vec![a, b],
        }
    }

    /// Round by round; `None` if a figure is missing.
    pub fn samples(&self, run: &Figures) -> Option<Vec<f64>> {
        match self.from {
            From::Figure(key) => run.samples(key),
            From::Ratio(a, b) => run.ratio(a, b),
            From::Fewer(a, b) => Some(run.ratio(a, b)?.iter().map(|ratio| (1.0 - ratio) * 100.0).collect()),
            From::Millions(key) => Some(run.samples(key)?.iter().map(|nanos| 1e3 / nanos).collect()),
            From::More(a, b) => Some(run.samples(a)?.iter().zip(run.samples(b)?).map(|(a, b)| a - b).collect()),
        }
    }

    pub fn section(&self) -> &'static str {
        self.section
    }

    pub fn what(&self) -> &'static str {
        self.what
    }

    pub fn unit(&self) -> &'static str {
        self.unit
    }

    pub fn goal(&self) -> Option<Goal> {
        self.goal
    }

    pub fn cause(&self) -> &'static str {
        self.cause
    }
}

const fn row(section: &'static str, what: &'static str, from: From, unit: &'static str) -> Row {
    Row { section, what, from, unit, goal: None, cause: "" }
}

impl Row {
    const fn goal_of(self, goal: Goal, cause: &'static str) -> Self {
        Self { goal: Some(goal), cause, ..self }
    }

    const fn meaning(self, cause: &'static str) -> Self {
        Self { cause, ..self }
    }
}

const KERNEL: &str = "kernel: one connection is ten transitions, both ends on this host";
const LONG: &str = "kernel: ten million transitions at full speed, default settings";
const HOST: &str = "everybody else on the host";
const INGEST: &str = "ingest, one core";
const RECORD: &str = "recordings";
const LARGE: &str = "a recording of a gigabyte";
const MEMORY: &str = "memory";
const STARTUP: &str = "startup and idling";
const RECONCILE: &str = "reconcile";
const VIEW: &str = "full-screen view, 100,000 flows towards 500 destinations, 200x50";

pub const ROWS: &[Row] = &[
    row(
        KERNEL,
        "portchurn's three programs on a transition / the null tracer's one",
        From::Ratio("kernel.portchurn.ns_per_transition", "kernel.submit_only.ns_per_transition"),
        "x",
    )
    .goal_of(Goal::AtMost(1.5), CHAIN_CAUSE),
    row(KERNEL, "an empty program", From::Figure("kernel.empty.ns_per_transition"), "ns")
        .meaning("what the hook and the statistics cost"),
    row(
        KERNEL,
        "the null tracer: reserve and submit 104 bytes, read nothing",
        From::Figure("kernel.submit_only.ns_per_transition"),
        "ns",
    ),
    row(KERNEL, "portchurn", From::Figure("kernel.portchurn.ns_per_transition"), "ns"),
    row(KERNEL, "bpftrace's one-liner", From::Figure("kernel.bpftrace.ns_per_transition"), "ns"),
    row(
        KERNEL,
        "bpftrace / portchurn",
        From::Ratio("kernel.bpftrace.ns_per_transition", "kernel.portchurn.ns_per_transition"),
        "x",
    ),
    row(
        KERNEL,
        "portchurn's other programs (timers, connect, accept), per connection",
        From::Figure("kernel.portchurn.elsewhere_ns_per_connection"),
        "ns",
    ),
    row(KERNEL, "connections/s with nothing attached", From::Figure("kernel.nothing.connections_per_second"), "/s"),
    row(
        KERNEL,
        "fewer connections/s: empty program",
        From::Fewer("kernel.empty.connections_per_second", "kernel.nothing.connections_per_second"),
        "%",
    ),
    row(
        KERNEL,
        "fewer connections/s: null tracer",
        From::Fewer("kernel.submit_only.connections_per_second", "kernel.nothing.connections_per_second"),
        "%",
    ),
    row(
        KERNEL,
        "fewer connections/s: portchurn",
        From::Fewer("kernel.portchurn.connections_per_second", "kernel.nothing.connections_per_second"),
        "%",
    )
    .goal_of(Goal::AtMost(3.0), RATE_CAUSE),
    row(
        KERNEL,
        "fewer connections/s: bpftrace",
        From::Fewer("kernel.bpftrace.connections_per_second", "kernel.nothing.connections_per_second"),
        "%",
    ),
    row(KERNEL, "connect() median, nothing", From::Figure("kernel.nothing.connect_us.p50"), "us"),
    row(KERNEL, "connect() median, portchurn", From::Figure("kernel.portchurn.connect_us.p50"), "us"),
    row(KERNEL, "connect() p99, nothing", From::Figure("kernel.nothing.connect_us.p99"), "us"),
    row(KERNEL, "connect() p99, portchurn", From::Figure("kernel.portchurn.connect_us.p99"), "us"),
    row(KERNEL, "CPU of portchurn's process per transition", From::Figure("kernel.portchurn.cpu_us_per_event"), "us")
        .goal_of(Goal::AtMost(0.3), USER_CAUSE),
    row(KERNEL, "CPU of the null tracer's reader", From::Figure("kernel.submit_only.cpu_us_per_event"), "us"),
    row(KERNEL, "CPU of bpftrace", From::Figure("kernel.bpftrace.cpu_us_per_event"), "us"),
    row(
        KERNEL,
        "skipped by the recursion guard: null tracer, per million",
        From::Figure("kernel.submit_only.missed_per_million"),
        "",
    ),
    row(
        KERNEL,
        "skipped by the recursion guard: portchurn's first program",
        From::Figure("kernel.portchurn.missed_per_million"),
        "",
    )
    .meaning("the second and third write what it missed"),
    row(KERNEL, "skipped by the recursion guard: bpftrace", From::Figure("kernel.bpftrace.missed_per_million"), ""),
    row(KERNEL, "lost per million: null tracer", From::Figure("kernel.submit_only.lost_per_million"), ""),
    row(KERNEL, "lost per million: portchurn", From::Figure("kernel.portchurn.lost_per_million"), ""),
    row(KERNEL, "lost per million: bpftrace", From::Figure("kernel.bpftrace.lost_per_million"), ""),
    row(LONG, "transitions made", From::Figure("kernel.long.transitions"), ""),
    row(LONG, "lost, by portchurn's own counters", From::Figure("kernel.long.lost"), "")
        .goal_of(Goal::AtMost(0.0), LOSS_CAUSE),
    row(LONG, "hidden by this machine's kernel from every tracer", From::Figure("kernel.long.hidden"), "").meaning(
        "runs no BPF program while a process that it protects is current (tests/src/blind.rs); on a stock kernel 0",
    ),
    row(LONG, "skipped by the guard and written by a later link", From::Figure("kernel.long.skipped_by_guard"), ""),
    row(LONG, "connects that the report lacks", From::Figure("kernel.long.missing.connects"), ""),
    row(LONG, "established that the report lacks", From::Figure("kernel.long.missing.established"), ""),
    row(LONG, "accepted that the report lacks", From::Figure("kernel.long.missing.accepted"), ""),
    row(LONG, "TIME_WAITs that the report lacks", From::Figure("kernel.long.missing.time_wait"), ""),
    row(LONG, "entries repaired after a loss", From::Figure("kernel.long.repaired"), ""),
    row(
        HOST,
        "a foreign timer started and cancelled, with portchurn",
        From::More("host.portchurn.ns_per_timer_pair", "host.nothing.ns_per_timer_pair"),
        "ns more",
    )
    .meaning("the timer programs look at every timer of the host; without TIME_WAIT timers nothing else happens"),
    row(HOST, "the same without (two setsockopt calls)", From::Figure("host.nothing.ns_per_timer_pair"), "ns"),
    row(
        HOST,
        "program on timer_start, foreign timer",
        From::Figure("host.portchurn.time_wait_start.ns_per_foreign_timer"),
        "ns",
    )
    .meaning("by the kernel's statistics, whose own cost is in it"),
    row(
        HOST,
        "program on timer_cancel, foreign timer",
        From::Figure("host.portchurn.time_wait_end.ns_per_foreign_timer"),
        "ns",
    ),
    row(
        HOST,
        "any system call, with portchurn",
        From::More("host.portchurn.ns_per_system_call", "host.nothing.ns_per_system_call"),
        "ns more",
    )
    .meaning("one traced system call puts all of them on the kernel's slow path"),
    row(HOST, "the same without (getppid)", From::Figure("host.nothing.ns_per_system_call"), "ns"),
    row(
        INGEST,
        "steady churn, 1k live flows and 1k TIME_WAITs",
        From::Millions("ingest.ingest.steady.1k"),
        "M events/s",
    ),
    row(INGEST, "steady churn, 100k and 100k", From::Millions("ingest.ingest.steady.100k"), "M events/s")
        .goal_of(Goal::AtLeast(4.0), INGEST_CAUSE),
    row(INGEST, "steady churn, 1M and 1M", From::Millions("ingest.ingest.steady.1M"), "M events/s"),
    row(INGEST, "cost per event, 1M / 1k", From::Ratio("ingest.ingest.steady.1M", "ingest.ingest.steady.1k"), "x")
        .goal_of(Goal::AtMost(2.0), CACHE_CAUSE),
    row(INGEST, "fresh tables, up to 1k flows", From::Millions("ingest.ingest.fresh.1k"), "M events/s"),
    row(INGEST, "fresh tables, up to 100k", From::Millions("ingest.ingest.fresh.100k"), "M events/s"),
    row(INGEST, "fresh tables, up to 1M", From::Millions("ingest.ingest.fresh.1M"), "M events/s"),
    row(INGEST, "decoding", From::Millions("ingest.decode.records"), "M records/s")
        .goal_of(Goal::AtLeast(20.0), DECODE_CAUSE),
    row(
        RECORD,
        "recording, on top of tracing: user CPU per event",
        From::More("record.recorder.user_us_per_event", "record.portchurn.user_us_per_event"),
        "us",
    )
    .goal_of(Goal::AtMost(0.25), RECORD_CAUSE),
    row(RECORD, "events lost while recording", From::Figure("record.recorder.lost"), "")
        .goal_of(Goal::AtMost(0.0), LOSS_CAUSE),
    row(RECORD, "bytes per event of connection churn", From::Figure("record.bytes_per_event"), "bytes")
        .goal_of(Goal::AtMost(14.0), SIZE_CAUSE),
    row(RECORD, "report from a recording", From::Figure("record.read.million_events_per_second"), "M events/s of CPU")
        .goal_of(Goal::AtLeast(3.0), REPLAY_CAUSE),
    row(LARGE, "its size", From::Figure("record.large.mib"), "MiB"),
    row(
        LARGE,
        "report, with a million TIME_WAITs",
        From::Figure("record.large.million_events_per_second"),
        "M events/s of CPU",
    ),
    row(LARGE, "report: most memory", From::Figure("record.large.report.peak_mib"), "MiB")
        .goal_of(Goal::AtMost(300.0), LARGE_CAUSE),
    row(LARGE, "replay --speed max: most memory", From::Figure("record.large.replay.peak_mib"), "MiB")
        .goal_of(Goal::AtMost(300.0), LARGE_CAUSE),
    row(LARGE, "check: most memory", From::Figure("record.large.check.peak_mib"), "MiB")
        .goal_of(Goal::AtMost(300.0), LARGE_CAUSE),
    row(LARGE, "diff with itself: most memory", From::Figure("record.large.diff.peak_mib"), "MiB")
        .goal_of(Goal::AtMost(300.0), LARGE_CAUSE),
    row(LARGE, "export to JSON lines: most memory", From::Figure("record.large.jsonl.peak_mib"), "MiB")
        .goal_of(Goal::AtMost(300.0), LARGE_CAUSE),
    row(LARGE, "export to CSV: most memory", From::Figure("record.large.csv.peak_mib"), "MiB")
        .goal_of(Goal::AtMost(300.0), LARGE_CAUSE),
    row(LARGE, "export to Parquet: most memory", From::Figure("record.large.parquet.peak_mib"), "MiB")
        .goal_of(Goal::AtMost(300.0), LARGE_CAUSE),
    row(LARGE, "export of flows to Parquet: most memory", From::Figure("record.large.flows.peak_mib"), "MiB")
        .goal_of(Goal::AtMost(300.0), LARGE_CAUSE),
    row(MEMORY, "per live flow", From::Figure("memory.bytes_per_flow"), "bytes")
        .goal_of(Goal::AtMost(200.0), MEMORY_CAUSE),
    row(MEMORY, "per TIME_WAIT", From::Figure("memory.bytes_per_time_wait"), "bytes")
        .goal_of(Goal::AtMost(64.0), MEMORY_CAUSE),
    row(MEMORY, "the process with 1M TIME_WAITs and 200k flows", From::Figure("memory.full_mib"), "MiB")
        .goal_of(Goal::AtMost(200.0), MEMORY_CAUSE),
    row(MEMORY, "an hour of churn: after 3 minutes", From::Figure("memory.hour_start_mib"), "MiB"),
    row(
        MEMORY,
        "an hour of churn: at its end / after 3 minutes",
        From::Ratio("memory.hour_end_mib", "memory.hour_start_mib"),
        "x",
    )
    .goal_of(Goal::AtMost(1.01), MEMORY_CAUSE),
    row(STARTUP, "exec to ready line, no TIME_WAITs", From::Figure("startup.empty_ms"), "ms")
        .goal_of(Goal::AtMost(150.0), STARTUP_CAUSE),
    row(STARTUP, "exec to ready line, 28,000 TIME_WAITs", From::Figure("startup.full_ms"), "ms")
        .goal_of(Goal::AtMost(400.0), STARTUP_CAUSE),
    row(STARTUP, "idle host: CPU", From::Figure("startup.idle_cpu_percent"), "%")
        .goal_of(Goal::AtMost(0.3), IDLE_CAUSE),
    row(STARTUP, "idle host: wake-ups", From::Figure("startup.idle_wake_ups_per_second"), "/s"),
    row(RECONCILE, "one pass, empty namespace", From::Figure("reconcile.pass_empty_ms"), "ms")
        .meaning("the kernel walks its whole table of sockets per namespace and family"),
    row(RECONCILE, "per 10,000 sockets, on top", From::More("reconcile.pass_10k_ms", "reconcile.pass_empty_ms"), "ms")
        .meaning("a pass is followed by a pause of a hundred times its length, so passes stay under 1 % of a CPU"),
    row(RECONCILE, "the tracker's comparison, per 10,000 sockets", From::Figure("reconcile.tracker_10k_ms"), "ms"),
    row(VIEW, "a frame of the overview", From::Figure("view.overview_ms"), "ms").goal_of(Goal::AtMost(8.0), DRAW_CAUSE),
    row(VIEW, "the same, filtered", From::Figure("view.filtered_ms"), "ms").goal_of(Goal::AtMost(8.0), DRAW_CAUSE),
    row(VIEW, "a destination with all of 64,512 ports in use", From::Figure("view.destination_ms"), "ms")
        .goal_of(Goal::AtMost(8.0), DRAW_CAUSE),
    row(VIEW, "the tracker's part of a frame (snapshot)", From::Figure("view.snapshot_ms"), "ms")
        .meaning("of another thread, which spends at most a tenth of its time on it"),
    row(VIEW, "a key is answered, 100,000 events/s, median", From::Figure("view.key_ms"), "ms")
        .goal_of(Goal::AtMost(50.0), KEY_CAUSE),
    row(VIEW, "the slowest of 200", From::Figure("view.key_slowest_ms"), "ms").goal_of(Goal::AtMost(50.0), KEY_CAUSE),
    row(VIEW, "what the tracker has to answer (into a destination)", From::Figure("view.detail_ms"), "ms")
        .meaning("the page comes at once, its port map with this frame"),
    row(VIEW, "events ingested meanwhile", From::Figure("view.events_per_second"), "/s"),
];

// Shown only while the goal is missed.
const CHAIN_CAUSE: &str = "three programs stand on the hook so that none of the kernel's recursion guard's skips is a loss, and three empty ones already cost more than one and a half times the null tracer's program; the first also reads addresses, ports, cookie, namespace and caller";
const RATE_CAUSE: &str = "the load saturates every CPU, so each cycle of ours is a cycle less of its own: programs on transitions, timers and system calls, then the process that reads, decodes and counts";
const USER_CAUSE: &str =
    "copying out of the ring, decoding and the tracker's table look-ups; at low rates the polling itself";
const LOSS_CAUSE: &str = "see the counters below: what the guard skipped and no later link of the chain caught";
const INGEST_CAUSE: &str = "table look-ups that miss the CPU's caches";
const CACHE_CAUSE: &str =
    "the tables of a million flows and a million TIME_WAITs do not fit the CPU's caches: an event waits for memory";
const DECODE_CAUSE: &str = "fields are copied one by one out of bytes that may be unaligned";
const MEMORY_CAUSE: &str = "an entry takes 40 bytes; its place in the slab, its index and the room that tables which double leave free take the rest";
const STARTUP_CAUSE: &str = "the kernel's verifier walks every path of every program at load";
const DRAW_CAUSE: &str = "rows are found and sorted anew for each frame";
const KEY_CAUSE: &str = "keys wait for the screen's thread to get a CPU, and 20 ms after the last drawing";
const IDLE_CAUSE: &str =
    "the reader looks at its ring ten times a second, because a wake-up per record costs ten times the record";
const RECORD_CAUSE: &str = "every record is decoded a second time, its columns are built, packed by zstd and written";
const SIZE_CAUSE: &str = "times, cookies and ports of every event differ; what repeats is packed already";
const REPLAY_CAUSE: &str = "every column is unpacked and every event goes through the tracker";
const LARGE_CAUSE: &str = "what is held is the tracker, one batch, and of Parquet one row group";
