//! The rows of the table: the figures that each is computed from, and its goal.

use super::figures::Figures;

#[derive(Clone, Copy, Debug)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

/// How a row is computed from figures.
#[derive(Clone, Copy)]
enum Formula {
    Figure(&'static str),
    Ratio(&'static str, &'static str),
    /// By how many percent the first is less than the second.
    Fewer(&'static str, &'static str),
    /// Millions per second, from nanoseconds for one.
    Millions(&'static str),
    /// The difference of two figures of one round.
    More(&'static str, &'static str),
}

pub struct BenchRow {
    section: &'static str,
    what: &'static str,
    formula: Formula,
    unit: &'static str,
    goal: Option<Goal>,
    /// Why the goal is missed; without a goal, what the figure means.
    cause: &'static str,
}

impl BenchRow {
    /// Key of the first figure; its first part names the bench.
    pub fn key(&self) -> &'static str {
        self.needs()[0]
    }

    pub fn needs(&self) -> Vec<&'static str> {
        match self.formula {
            Formula::Figure(a) | Formula::Millions(a) => vec![a],
            Formula::Ratio(a, b) | Formula::Fewer(a, b) | Formula::More(a, b) => vec![a, b],
        }
    }

    /// One value per round; `None` if a figure is missing.
    pub fn samples(&self, run: &Figures) -> Option<Vec<f64>> {
        match self.formula {
            Formula::Figure(key) => run.samples(key),
            Formula::Ratio(a, b) => run.ratio(a, b),
            Formula::Fewer(a, b) => Some(run.ratio(a, b)?.iter().map(|ratio| (1.0 - ratio) * 100.0).collect()),
            Formula::Millions(key) => Some(run.samples(key)?.iter().map(|nanos| 1e3 / nanos).collect()),
            Formula::More(a, b) => Some(run.samples(a)?.iter().zip(run.samples(b)?).map(|(a, b)| a - b).collect()),
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

const fn row(section: &'static str, what: &'static str, formula: Formula, unit: &'static str) -> BenchRow {
    BenchRow { section, what, formula, unit, goal: None, cause: "" }
}

impl BenchRow {
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
const FORECAST: &str = "forecast of exhaustion, in event time";
const INGEST: &str = "ingest, one core";
const CROWD: &str = "ingest on a crowded host, one core";
const RECORD: &str = "recordings";
const LARGE: &str = "a recording of a gigabyte";
const MEMORY: &str = "memory";
const STARTUP: &str = "startup and idling";
const RECONCILE: &str = "reconcile";
const VIEW: &str = "full-screen view, 100,000 flows towards 500 destinations, 200x50";

pub const ROWS: &[BenchRow] = &[
    row(
        KERNEL,
        "portchurn's three programs on a transition / the null tracer's one",
        Formula::Ratio("kernel.portchurn.ns_per_transition", "kernel.submit_only.ns_per_transition"),
        "x",
    )
    .goal_of(Goal::AtMost(1.5), CHAIN_CAUSE),
    row(KERNEL, "an empty program", Formula::Figure("kernel.empty.ns_per_transition"), "ns")
        .meaning("what the hook and the statistics cost"),
    row(
        KERNEL,
        "the null tracer: reserve and submit 104 bytes, read nothing",
        Formula::Figure("kernel.submit_only.ns_per_transition"),
        "ns",
    ),
    row(KERNEL, "portchurn", Formula::Figure("kernel.portchurn.ns_per_transition"), "ns"),
    row(KERNEL, "bpftrace's one-liner", Formula::Figure("kernel.bpftrace.ns_per_transition"), "ns"),
    row(
        KERNEL,
        "bpftrace / portchurn",
        Formula::Ratio("kernel.bpftrace.ns_per_transition", "kernel.portchurn.ns_per_transition"),
        "x",
    ),
    row(
        KERNEL,
        "portchurn's other programs (timers, connect, accept), per connection",
        Formula::Figure("kernel.portchurn.elsewhere_ns_per_connection"),
        "ns",
    ),
    row(KERNEL, "connections/s with nothing attached", Formula::Figure("kernel.nothing.connections_per_second"), "/s"),
    row(
        KERNEL,
        "fewer connections/s: empty program",
        Formula::Fewer("kernel.empty.connections_per_second", "kernel.nothing.connections_per_second"),
        "%",
    ),
    row(
        KERNEL,
        "fewer connections/s: null tracer",
        Formula::Fewer("kernel.submit_only.connections_per_second", "kernel.nothing.connections_per_second"),
        "%",
    ),
    row(
        KERNEL,
        "fewer connections/s: portchurn",
        Formula::Fewer("kernel.portchurn.connections_per_second", "kernel.nothing.connections_per_second"),
        "%",
    )
    .goal_of(Goal::AtMost(3.0), RATE_CAUSE),
    row(
        KERNEL,
        "fewer connections/s: bpftrace",
        Formula::Fewer("kernel.bpftrace.connections_per_second", "kernel.nothing.connections_per_second"),
        "%",
    ),
    row(KERNEL, "connect() median, nothing", Formula::Figure("kernel.nothing.connect_us.p50"), "us"),
    row(KERNEL, "connect() median, portchurn", Formula::Figure("kernel.portchurn.connect_us.p50"), "us"),
    row(KERNEL, "connect() p99, nothing", Formula::Figure("kernel.nothing.connect_us.p99"), "us"),
    row(KERNEL, "connect() p99, portchurn", Formula::Figure("kernel.portchurn.connect_us.p99"), "us"),
    row(
        KERNEL,
        "CPU of portchurn's process per transition",
        Formula::Figure("kernel.portchurn.cpu_us_per_event"),
        "us",
    )
    .goal_of(Goal::AtMost(0.3), USER_CAUSE),
    row(KERNEL, "CPU of the null tracer's reader", Formula::Figure("kernel.submit_only.cpu_us_per_event"), "us"),
    row(KERNEL, "CPU of bpftrace", Formula::Figure("kernel.bpftrace.cpu_us_per_event"), "us"),
    row(
        KERNEL,
        "skipped by the recursion guard: null tracer, per million",
        Formula::Figure("kernel.submit_only.missed_per_million"),
        "",
    ),
    row(
        KERNEL,
        "skipped by the recursion guard: portchurn's first program",
        Formula::Figure("kernel.portchurn.missed_per_million"),
        "",
    )
    .meaning("the second and third write what it missed"),
    row(KERNEL, "skipped by the recursion guard: bpftrace", Formula::Figure("kernel.bpftrace.missed_per_million"), ""),
    row(KERNEL, "lost per million: null tracer", Formula::Figure("kernel.submit_only.lost_per_million"), ""),
    row(KERNEL, "lost per million: portchurn", Formula::Figure("kernel.portchurn.lost_per_million"), ""),
    row(KERNEL, "lost per million: bpftrace", Formula::Figure("kernel.bpftrace.lost_per_million"), ""),
    row(LONG, "transitions made", Formula::Figure("kernel.long.transitions"), ""),
    row(LONG, "lost, by portchurn's own counters", Formula::Figure("kernel.long.lost"), "")
        .goal_of(Goal::AtMost(0.0), LOSS_CAUSE),
    row(LONG, "hidden by this machine's kernel from every tracer", Formula::Figure("kernel.long.hidden"), "").meaning(
        "runs no BPF program while a process that it protects is current (tests/src/hidden.rs); on a stock kernel 0",
    ),
    row(LONG, "skipped by the guard and written by a later link", Formula::Figure("kernel.long.skipped_by_guard"), ""),
    row(LONG, "connects that the report lacks", Formula::Figure("kernel.long.missing.connects"), ""),
    row(LONG, "established that the report lacks", Formula::Figure("kernel.long.missing.established"), ""),
    row(LONG, "accepted that the report lacks", Formula::Figure("kernel.long.missing.accepted"), ""),
    row(LONG, "TIME_WAITs that the report lacks", Formula::Figure("kernel.long.missing.time_wait"), ""),
    row(LONG, "entries repaired after a loss", Formula::Figure("kernel.long.repaired"), ""),
    row(
        HOST,
        "a foreign timer started and cancelled, with portchurn",
        Formula::More("host.portchurn.ns_per_timer_pair", "host.nothing.ns_per_timer_pair"),
        "ns more",
    )
    .meaning("the timer programs look at every timer of the host; without TIME_WAIT timers nothing else happens"),
    row(HOST, "the same without (two setsockopt calls)", Formula::Figure("host.nothing.ns_per_timer_pair"), "ns"),
    row(
        HOST,
        "program on timer_start, foreign timer",
        Formula::Figure("host.portchurn.time_wait_start.ns_per_foreign_timer"),
        "ns",
    )
    .meaning("by the kernel's statistics, whose own cost is in it"),
    row(
        HOST,
        "program on timer_cancel, foreign timer",
        Formula::Figure("host.portchurn.time_wait_end.ns_per_foreign_timer"),
        "ns",
    ),
    row(
        HOST,
        "any system call, with portchurn",
        Formula::More("host.portchurn.ns_per_system_call", "host.nothing.ns_per_system_call"),
        "ns more",
    )
    .meaning("one traced system call puts all of them on the kernel's slow path"),
    row(HOST, "the same without (getppid)", Formula::Figure("host.nothing.ns_per_system_call"), "ns"),
    row(
        INGEST,
        "steady churn, 1k live flows and 1k TIME_WAITs",
        Formula::Millions("ingest.ingest.steady.1k"),
        "M events/s",
    ),
    row(INGEST, "steady churn, 100k and 100k", Formula::Millions("ingest.ingest.steady.100k"), "M events/s")
        .goal_of(Goal::AtLeast(4.0), INGEST_CAUSE),
    row(INGEST, "steady churn, 1M and 1M", Formula::Millions("ingest.ingest.steady.1M"), "M events/s"),
    row(INGEST, "cost per event, 1M / 1k", Formula::Ratio("ingest.ingest.steady.1M", "ingest.ingest.steady.1k"), "x")
        .goal_of(Goal::AtMost(2.0), CACHE_CAUSE),
    row(INGEST, "fresh tables, up to 1k flows", Formula::Millions("ingest.ingest.fresh.1k"), "M events/s"),
    row(INGEST, "fresh tables, up to 100k", Formula::Millions("ingest.ingest.fresh.100k"), "M events/s"),
    row(INGEST, "fresh tables, up to 1M", Formula::Millions("ingest.ingest.fresh.1M"), "M events/s"),
    row(INGEST, "decoding", Formula::Millions("ingest.decode.records"), "M records/s")
        .goal_of(Goal::AtLeast(20.0), DECODE_CAUSE),
    row(
        CROWD,
        "processes with names of their own: a connection, ten times the rows / half of the rows",
        Formula::Ratio("ingest.crowd.names.tenfold", "ingest.crowd.names.half"),
        "x",
    )
    .goal_of(Goal::AtMost(1.5), CROWD_CAUSE),
    row(
        CROWD,
        "processes with names of their own: a connection, ten times the rows",
        Formula::Figure("ingest.crowd.names.tenfold"),
        "ns",
    ),
    row(
        CROWD,
        "destinations: a connection, ten times the rows / half of the rows",
        Formula::Ratio("ingest.crowd.destinations.tenfold", "ingest.crowd.destinations.half"),
        "x",
    )
    .goal_of(Goal::AtMost(1.5), CROWD_CAUSE),
    row(
        CROWD,
        "destinations: a connection, ten times the rows",
        Formula::Figure("ingest.crowd.destinations.tenfold"),
        "ns",
    ),
    row(
        CROWD,
        "namespaces: a connection, ten times the rows / half of the rows",
        Formula::Ratio("ingest.crowd.namespaces.tenfold", "ingest.crowd.namespaces.half"),
        "x",
    )
    .goal_of(Goal::AtMost(1.5), CROWD_CAUSE),
    row(
        CROWD,
        "namespaces: a connection, ten times the rows",
        Formula::Figure("ingest.crowd.namespaces.tenfold"),
        "ns",
    ),
    row(
        CROWD,
        "destinations that fail: a connection, ten times the rows / half of the rows",
        Formula::Ratio("ingest.crowd.failing.tenfold", "ingest.crowd.failing.half"),
        "x",
    )
    .goal_of(Goal::AtMost(1.5), CROWD_CAUSE),
    row(
        CROWD,
        "destinations that fail: a connection, ten times the rows",
        Formula::Figure("ingest.crowd.failing.tenfold"),
        "ns",
    ),
    row(
        CROWD,
        "pods: a connection, ten times the rows / half of the rows",
        Formula::Ratio("ingest.crowd.pods.tenfold", "ingest.crowd.pods.half"),
        "x",
    )
    .goal_of(Goal::AtMost(1.5), CROWD_CAUSE),
    row(CROWD, "pods: a connection, ten times the rows", Formula::Figure("ingest.crowd.pods.tenfold"), "ns"),
    row(
        RECORD,
        "recording, on top of tracing: user CPU per event",
        Formula::More("record.recorder.user_us_per_event", "record.portchurn.user_us_per_event"),
        "us",
    )
    .goal_of(Goal::AtMost(0.25), RECORD_CAUSE),
    row(RECORD, "events lost while recording", Formula::Figure("record.recorder.lost"), "")
        .goal_of(Goal::AtMost(0.0), LOSS_CAUSE),
    row(RECORD, "bytes per event of connection churn", Formula::Figure("record.bytes_per_event"), "bytes")
        .goal_of(Goal::AtMost(14.0), SIZE_CAUSE),
    row(
        RECORD,
        "report from a recording",
        Formula::Figure("record.read.million_events_per_second"),
        "M events/s of CPU",
    )
    .goal_of(Goal::AtLeast(3.0), REPLAY_CAUSE),
    row(LARGE, "its size", Formula::Figure("record.large.mib"), "MiB"),
    row(
        LARGE,
        "report, with a million TIME_WAITs",
        Formula::Figure("record.large.million_events_per_second"),
        "M events/s of CPU",
    ),
    row(LARGE, "report: most memory", Formula::Figure("record.large.report.peak_mib"), "MiB")
        .goal_of(Goal::AtMost(300.0), LARGE_CAUSE),
    row(LARGE, "replay --speed max: most memory", Formula::Figure("record.large.replay.peak_mib"), "MiB")
        .goal_of(Goal::AtMost(300.0), LARGE_CAUSE),
    row(LARGE, "check: most memory", Formula::Figure("record.large.check.peak_mib"), "MiB")
        .goal_of(Goal::AtMost(300.0), LARGE_CAUSE),
    row(LARGE, "diff with itself: most memory", Formula::Figure("record.large.diff.peak_mib"), "MiB")
        .goal_of(Goal::AtMost(300.0), LARGE_CAUSE),
    row(LARGE, "export to JSON lines: most memory", Formula::Figure("record.large.jsonl.peak_mib"), "MiB")
        .goal_of(Goal::AtMost(300.0), LARGE_CAUSE),
    row(LARGE, "export to CSV: most memory", Formula::Figure("record.large.csv.peak_mib"), "MiB")
        .goal_of(Goal::AtMost(300.0), LARGE_CAUSE),
    row(LARGE, "export to Parquet: most memory", Formula::Figure("record.large.parquet.peak_mib"), "MiB")
        .goal_of(Goal::AtMost(300.0), LARGE_CAUSE),
    row(LARGE, "export of flows to Parquet: most memory", Formula::Figure("record.large.flows.peak_mib"), "MiB")
        .goal_of(Goal::AtMost(300.0), LARGE_CAUSE),
    row(MEMORY, "per live flow", Formula::Figure("memory.bytes_per_flow"), "bytes")
        .goal_of(Goal::AtMost(200.0), MEMORY_CAUSE),
    row(MEMORY, "per TIME_WAIT", Formula::Figure("memory.bytes_per_time_wait"), "bytes")
        .goal_of(Goal::AtMost(64.0), MEMORY_CAUSE),
    row(MEMORY, "the process with 1M TIME_WAITs and 200k flows", Formula::Figure("memory.full_mib"), "MiB")
        .goal_of(Goal::AtMost(200.0), MEMORY_CAUSE),
    row(MEMORY, "an hour of churn: after 3 minutes", Formula::Figure("memory.hour_start_mib"), "MiB"),
    row(
        MEMORY,
        "an hour of churn: at its end / after 3 minutes",
        Formula::Ratio("memory.hour_end_mib", "memory.hour_start_mib"),
        "x",
    )
    .goal_of(Goal::AtMost(1.01), MEMORY_CAUSE),
    row(FORECAST, "error of the forecast 120 s ahead, median of the loads", Formula::Figure("forecast.error_120"), "%"),
    row(FORECAST, "60 s ahead", Formula::Figure("forecast.error_60"), "%").goal_of(Goal::AtMost(10.0), TREND_CAUSE),
    row(FORECAST, "30 s ahead", Formula::Figure("forecast.error_30"), "%"),
    row(FORECAST, "10 s ahead", Formula::Figure("forecast.error_10"), "%"),
    row(FORECAST, "truth inside soonest to latest, last two minutes", Formula::Figure("forecast.inside"), "%")
        .goal_of(Goal::AtLeast(90.0), TREND_CAUSE),
    row(FORECAST, "the ramp that is announced last, before its exhaustion", Formula::Figure("forecast.announced"), "s")
        .goal_of(Goal::AtLeast(30.0), TREND_CAUSE),
    row(FORECAST, "seconds of false alarm, all settling loads", Formula::Figure("forecast.false_alarms"), "s")
        .goal_of(Goal::AtMost(0.0), SETTLE_CAUSE),
    row(FORECAST, "a second of a load, its events and its forecast", Formula::Figure("forecast.load_ms"), "ms"),
    row(STARTUP, "exec to ready line, no TIME_WAITs", Formula::Figure("startup.empty_ms"), "ms")
        .goal_of(Goal::AtMost(150.0), STARTUP_CAUSE),
    row(STARTUP, "exec to ready line, 28,000 TIME_WAITs", Formula::Figure("startup.full_ms"), "ms")
        .goal_of(Goal::AtMost(400.0), STARTUP_CAUSE),
    row(STARTUP, "idle host: CPU", Formula::Figure("startup.idle_cpu_percent"), "%")
        .goal_of(Goal::AtMost(0.3), IDLE_CAUSE),
    row(STARTUP, "idle host: wake-ups", Formula::Figure("startup.idle_wake_ups_per_second"), "/s"),
    row(RECONCILE, "one pass, empty namespace", Formula::Figure("reconcile.pass_empty_ms"), "ms")
        .meaning("the kernel walks its whole table of sockets per namespace and family"),
    row(
        RECONCILE,
        "per 10,000 sockets, on top",
        Formula::More("reconcile.pass_10k_ms", "reconcile.pass_empty_ms"),
        "ms",
    )
    .meaning("a pass is followed by a pause of a hundred times its length, so passes stay under 1 % of a CPU"),
    row(RECONCILE, "the tracker's comparison, per 10,000 sockets", Formula::Figure("reconcile.tracker_10k_ms"), "ms"),
    row(VIEW, "a frame of the overview", Formula::Figure("view.overview_ms"), "ms")
        .goal_of(Goal::AtMost(8.0), DRAW_CAUSE),
    row(VIEW, "the same, filtered", Formula::Figure("view.filtered_ms"), "ms").goal_of(Goal::AtMost(8.0), DRAW_CAUSE),
    row(VIEW, "a destination with all of 64,512 ports in use", Formula::Figure("view.destination_ms"), "ms")
        .goal_of(Goal::AtMost(8.0), DRAW_CAUSE),
    row(VIEW, "the tracker's part of a frame (snapshot)", Formula::Figure("view.snapshot_ms"), "ms")
        .meaning("of another thread, which spends at most a tenth of its time on it"),
    row(VIEW, "a key is answered, 100,000 events/s, median", Formula::Figure("view.key_ms"), "ms")
        .goal_of(Goal::AtMost(50.0), KEY_CAUSE),
    row(VIEW, "the slowest of 200", Formula::Figure("view.key_slowest_ms"), "ms")
        .goal_of(Goal::AtMost(50.0), KEY_CAUSE),
    row(VIEW, "what the tracker has to answer (into a destination)", Formula::Figure("view.detail_ms"), "ms")
        .meaning("the page comes at once, its port map with this frame"),
    row(VIEW, "events ingested meanwhile", Formula::Figure("view.events_per_second"), "/s"),
];

// The table shows these only while the goal is missed.
const CHAIN_CAUSE: &str = "three programs stand on the hook so that none of the kernel's recursion guard's skips is a loss, and three empty ones already cost more than one and a half times the null tracer's program; the first also reads addresses, ports, cookie, namespace and caller";
const RATE_CAUSE: &str = "the load saturates every CPU, so each cycle of ours is a cycle less of its own: programs on transitions, timers and system calls, then the process that reads, decodes and counts";
const USER_CAUSE: &str =
    "copying out of the ring, decoding and the tracker's table look-ups; at low rates the polling itself";
const LOSS_CAUSE: &str = "see the counters below: what the guard skipped and no later link of the chain caught";
const INGEST_CAUSE: &str = "table look-ups that miss the CPU's caches";
const CACHE_CAUSE: &str =
    "the tables of a million flows and a million TIME_WAITs do not fit the CPU's caches: an event waits for memory";
const CROWD_CAUSE: &str = "what finds no row is folded, with more memory touched than where every row is there";
const DECODE_CAUSE: &str = "fields are copied one by one out of bytes that may be unaligned";
const MEMORY_CAUSE: &str = "an entry takes 40 bytes; its place in the slab, its index and the room that tables which double leave free take the rest";
const TREND_CAUSE: &str =
    "see the loads below: what has not happened yet (the next burst, the top of a wave) is in no forecast";
const SETTLE_CAUSE: &str = "see the loads below";
const STARTUP_CAUSE: &str = "the kernel's verifier walks every path of every program at load";
const DRAW_CAUSE: &str = "rows are found and sorted anew for each frame";
const KEY_CAUSE: &str = "keys wait for the screen's thread to get a CPU, and 20 ms after the last drawing";
const IDLE_CAUSE: &str =
    "the reader looks at its ring ten times a second, because a wake-up per record costs ten times the record";
const RECORD_CAUSE: &str = "every record is decoded a second time, its columns are built, packed by zstd and written";
const SIZE_CAUSE: &str = "times, cookies and ports of every event differ; what repeats is packed already";
const REPLAY_CAUSE: &str = "every column is unpacked and every event goes through the tracker";
const LARGE_CAUSE: &str = "what is held is the tracker, one batch, and of Parquet one row group";
