//! The columns of every table: title, width, what stands in a cell, how rows are ordered by it. Screen, export and copy use the
//! same columns.
//!
//! Widths are in terminal columns. A column `from` a width shows only in tables that are at least so wide.

use std::cmp::Ordering;
use std::sync::Arc;

use super::cells::{
    bad, count, endpoint, full_in, millis, netns, pace, percent, pid, plain, severity, sign, state_paint, stay, unknown,
};
use super::charts::bar;
use super::options::{RenderOptions, TraceInfo};
use tracer_core::event::{Ktime, TcpState};
use tracer_core::layout::human::{brief, number, rate};
use tracer_core::layout::text::{Paint, StyledLine, safe};
use tracer_core::tracker::snapshot::detail::{FailureRecord, FlowStep, PortUse};
use tracer_core::tracker::snapshot::{Attribution, Destination, Finding, Owner, Process, Snapshot, Workload};

/// What a cell is made from, beside its row.
#[derive(Clone, Copy)]
pub struct CellContext<'a> {
    /// The snapshot that is shown.
    pub snapshot: &'a Snapshot,
    /// Owners of the ports of the page's destination, by their index.
    pub owners: &'a [Owner],
    /// Clock and time zone.
    pub trace: &'a TraceInfo,
    /// What the terminal can show.
    pub options: RenderOptions,
}

impl CellContext<'_> {
    /// The time of day of an instant.
    pub fn time(&self, at: Ktime) -> String {
        self.trace.time_of_day(at)
    }

    /// Text from the traced host as this terminal may show it.
    pub fn safe(&self, text: &str) -> String {
        safe(text, self.options.unicode)
    }
}

/// Where a cell's text stands in its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// At the left: names.
    Left,
    /// At the right: numbers.
    Right,
    /// At the left, and left out of exports and copies: a picture of what other columns say in numbers.
    Picture,
}

/// One column of a table whose rows are `T`.
pub struct Column<T> {
    /// The heading.
    pub title: &'static str,
    /// Its least width, in terminal columns.
    pub width: u16,
    /// Its share of the width that the table has left, in parts of the sum of all columns' shares.
    pub grows: u16,
    /// Where the text stands.
    pub align: Alignment,
    /// Width of the table from which on the column shows.
    pub shown_from: u16,
    /// The cell of a row, for a column of the given width.
    pub cell: fn(&T, &CellContext<'_>, usize) -> StyledLine,
    /// The order of rows by this column: largest first for numbers, alphabetic for names. `None` = it cannot be sorted by.
    pub order: Option<fn(&T, &T) -> Ordering>,
}

/// Something that can be done with any table, whatever its rows are: drawing, sorting, printing.
pub trait TableVisitor {
    /// What the visit yields.
    type Out;

    /// Visits a table with these rows (unfiltered, in the snapshot's order) and these columns.
    fn table<T>(self, items: &[T], columns: &'static [Column<T>]) -> Self::Out;
}

/// A workload that holds ports of a destination, or fails for lack of one, or both.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HolderRow {
    /// Name of the workload.
    pub workload: Arc<str>,
    /// Ports that it holds now.
    pub ports: u32,
    /// Of these in `TIME_WAIT`.
    pub time_wait: u64,
    /// Its connects that failed for lack of a port, since the start.
    pub failed: u64,
    /// Its connects since the start.
    pub connects: u64,
    /// Its processes that connect there.
    pub processes: usize,
    /// No process was seen connecting; all were inferred.
    pub inferred: bool,
}

/// The larger value first.
fn most<N: PartialOrd + Copy>(a: N, b: N) -> Ordering {
    b.partial_cmp(&a).unwrap_or(Ordering::Equal)
}

/// The larger value first, unknown ones last.
fn most_known(a: Option<f64>, b: Option<f64>) -> Ordering {
    most(a.unwrap_or(f64::NEG_INFINITY), b.unwrap_or(f64::NEG_INFINITY))
}

macro_rules! column {
    ($title:literal, $width:literal $(+ $grows:literal)?, $place:ident, from $from:literal, $cell:expr $(, by $order:expr)?) => {
        Column {
            title: $title,
            width: $width,
            grows: 0 $(+ $grows)?,
            align: Alignment::$place,
            shown_from: $from,
            cell: $cell,
            order: column!(@order $($order)?),
        }
    };
    (@order) => { None };
    (@order $order:expr) => { Some($order) };
}

/// The workloads of the host.
pub const WORKLOADS: &[Column<Workload>] = &[
    column!("WORKLOAD", 12 + 2, Left, from 0, |w, c, _| vec![(Paint::Strong, c.safe(&w.name))], by |a, b| a.name.cmp(&b.name)),
    column!("CONN/S 10s", 10, Right, from 0, |w, _, _| plain(rate(w.connects_per_second)), by |a, b| most(a.connects_per_second, b.connects_per_second)),
    column!("CONNECTS", 9, Right, from 100, |w, _, _| count(w.connects), by |a, b| most(a.connects, b.connects)),
    column!("ACCEPTED", 9, Right, from 130, |w, _, _| count(w.accepted), by |a, b| most(a.accepted, b.accepted)),
    column!("NO PORT", 8, Right, from 0, |w, _, _| bad(w.failed.without_port()), by |a, b| most(a.failed.without_port(), b.failed.without_port())),
    column!("OTHER", 7, Right, from 110, |w, _, _| count(w.failed.for_other_reasons()), by |a, b| most(a.failed.total(), b.failed.total())),
    column!("PORTS", 7, Right, from 0, |w, _, _| count(w.ports_held), by |a, b| most(a.ports_held, b.ports_held)),
    column!("TIME_WAIT", 9, Right, from 0, |w, _, _| count(w.time_wait.now), by |a, b| most(a.time_wait.now, b.time_wait.now)),
    column!("CL_WAIT", 7, Right, from 90, |w, _, _| count(w.close_wait.now), by |a, b| most(a.close_wait.now, b.close_wait.now)),
    column!("LIFE p50", 8, Right, from 0, |w, _, _| millis(w.lifetime_ms.p50), by |a, b| most_known(a.lifetime_ms.p50, b.lifetime_ms.p50)),
    column!("CONN p50", 8, Right, from 140, |w, _, _| millis(w.connect_ms.p50), by |a, b| most_known(a.connect_ms.p50, b.connect_ms.p50)),
    column!("PIDS", 5, Right, from 120, |w, _, _| count(w.pids.len() as u64), by |a, b| most(a.pids.len(), b.pids.len())),
    column!("UNIT OR CONTAINER", 17 + 1, Left, from 160, |w, c, _| plain(c.safe(w.container.as_deref().or(w.unit.as_deref()).unwrap_or("-")))),
];

/// The destinations of the host.
pub const DESTINATIONS: &[Column<Destination>] = &[
    column!("DESTINATION", 15 + 2, Left, from 0, |d, c, _| {
        let (paint, sign) = sign(d, c.snapshot);
        vec![(paint, sign.into()), (Paint::Plain, " ".into()), (Paint::Strong, endpoint(d.remote_addr, d.remote_port))]
    }, by |a, b| (a.remote_addr, a.remote_port).cmp(&(b.remote_addr, b.remote_port))),
    column!("FROM", 15 + 1, Left, from 110, |d, _, _| plain(d.local_addr.to_string()), by |a, b| a.local_addr.cmp(&b.local_addr)),
    column!("NETNS", 10, Left, from 130, |d, c, _| plain(c.safe(&netns(c.snapshot, d.netns))), by |a, b| a.netns.cmp(&b.netns)),
    column!("OCCUPANCY", 11 + 2, Picture, from 0, |d, c, width| bar::bar(d, width, c.options.unicode), by |a, b| most_known(a.ports.utilisation, b.ports.utilisation)),
    column!("USED", 6, Right, from 0, |d, _, _| count(u64::from(d.ports.in_use)), by |a, b| most(a.ports.in_use, b.ports.in_use)),
    column!("OF", 6, Right, from 100, |d, _, _| d.ports.capacity.map_or_else(unknown, |of| count(u64::from(of))), by |a, b| most(a.ports.capacity, b.ports.capacity)),
    column!("%", 4, Right, from 0, |d, _, _| percent(d.ports.utilisation), by |a, b| most_known(a.ports.utilisation, b.ports.utilisation)),
    column!("ESTAB", 6, Right, from 120, |d, _, _| count(u64::from(d.ports.by_state.get(&TcpState::Established).copied().unwrap_or(0)))),
    column!("TIME_WAIT", 9, Right, from 120, |d, _, _| count(u64::from(d.ports.by_state.get(&TcpState::TimeWait).copied().unwrap_or(0)))),
    column!("NO PORT", 7, Right, from 0, |d, _, _| bad(d.failed.without_port()), by |a, b| most(a.failed.without_port(), b.failed.without_port())),
    column!("OTHER", 6, Right, from 140, |d, _, _| count(d.failed.for_other_reasons())),
    column!("CONN/S 10s", 10, Right, from 0, |d, _, _| pace(d), by |a, b| most(a.connects_per_second, b.connects_per_second)),
    column!("BEARS/S", 7, Right, from 0, |d, _, _| d.sustainable_per_second.map_or_else(unknown, |r| plain(rate(r))), by |a, b| most_known(a.sustainable_per_second, b.sustainable_per_second)),
    column!("FULL IN", 7, Right, from 0, |d, _, _| full_in(d), by |a, b| most_known(b.seconds_to_exhaustion, a.seconds_to_exhaustion)),
    column!("MOST BY", 12 + 1, Left, from 150, |d, c, _| plain(c.safe(d.holders.first().map_or("-", |h| &h.workload)))),
];

/// The processes of a workload.
pub const PROCESSES: &[Column<Process>] = &[
    column!("PID", 8, Right, from 0, |p, _, _| if p.pid == 0 { vec![(Paint::Dim, "ended".into())] } else { plain(p.pid.to_string()) }, by |a, b| a.pid.cmp(&b.pid)),
    column!("CONNECTS", 9, Right, from 0, |p, _, _| count(p.connects), by |a, b| most(a.connects, b.connects)),
    column!("NO PORT", 8, Right, from 0, |p, _, _| bad(p.failed.without_port()), by |a, b| most(a.failed.without_port(), b.failed.without_port())),
    column!("COMMAND LINE", 20 + 1, Left, from 0, |p, c, _| plain(c.safe(p.cmdline.as_deref().unwrap_or("-")))),
];

/// What a workload does, process by process and destination by destination.
pub const TOWARDS: &[Column<Attribution>] = &[
    column!("DESTINATION", 15 + 1, Left, from 0, |a, _, _| vec![(Paint::Strong, endpoint(a.remote_addr, a.remote_port))], by |a, b| (a.remote_addr, a.remote_port).cmp(&(b.remote_addr, b.remote_port))),
    column!("FROM", 15, Left, from 110, |a, _, _| plain(a.local_addr.to_string())),
    column!("PID", 8, Right, from 0, |a, _, _| pid(a.pid, a.inferred), by |a, b| a.pid.cmp(&b.pid)),
    column!("CONNECTS", 9, Right, from 0, |a, _, _| count(a.connects), by |a, b| most(a.connects, b.connects)),
    column!("NO PORT", 8, Right, from 0, |a, _, _| bad(a.failed.without_port()), by |a, b| most(a.failed.without_port(), b.failed.without_port())),
    column!("PORTS", 7, Right, from 0, |a, _, _| count(u64::from(a.ports_held)), by |a, b| most(a.ports_held, b.ports_held)),
    column!("TIME_WAIT", 9, Right, from 0, |a, _, _| count(a.time_wait.now), by |a, b| most(a.time_wait.now, b.time_wait.now)),
    column!("CL_WAIT", 7, Right, from 100, |a, _, _| count(a.close_wait.now), by |a, b| most(a.close_wait.now, b.close_wait.now)),
    column!("LIFE p50", 8, Right, from 0, |a, _, _| millis(a.lifetime_ms.p50), by |a, b| most_known(a.lifetime_ms.p50, b.lifetime_ms.p50)),
    column!("OLDEST", 8, Right, from 100, |a, _, _| millis(a.oldest_established_seconds.map(|s| s * 1e3)), by |a, b| most_known(a.oldest_established_seconds, b.oldest_established_seconds)),
];

/// The workloads that hold ports of a destination or lack one.
pub const HOLDERS: &[Column<HolderRow>] = &[
    column!("HOLDERS AND VICTIMS", 19 + 1, Left, from 0, |h, c, _| {
        let mark = if h.inferred { "~" } else { "" };
        vec![(Paint::Strong, format!("{mark}{}", c.safe(&h.workload)))]
    }, by |a, b| a.workload.cmp(&b.workload)),
    column!("PORTS", 7, Right, from 0, |h, _, _| count(u64::from(h.ports)), by |a, b| most(a.ports, b.ports)),
    column!("TIME_WAIT", 9, Right, from 0, |h, _, _| count(h.time_wait), by |a, b| most(a.time_wait, b.time_wait)),
    column!("NO PORT", 8, Right, from 0, |h, _, _| bad(h.failed), by |a, b| most(a.failed, b.failed)),
    column!("CONNECTS", 9, Right, from 50, |h, _, _| count(h.connects), by |a, b| most(a.connects, b.connects)),
    column!("PIDS", 5, Right, from 60, |h, _, _| count(h.processes as u64), by |a, b| most(a.processes, b.processes)),
];

/// The ports in use towards a destination.
pub const FLOWS: &[Column<PortUse>] = &[
    column!("PORT", 6, Right, from 0, |p, _, _| plain(p.port.to_string()), by |a, b| a.port.cmp(&b.port)),
    column!("STATE", 11, Left, from 0, |p, _, _| vec![(state_paint(p.state), p.state.name().into())], by |a, b| a.state.name().cmp(b.state.name())),
    column!("FOR", 9, Right, from 0, |p, c, _| p.since.map_or_else(unknown, |since| plain(brief(c.snapshot.now.seconds_since(since) * 1e3))), by |a, b| a.since.unwrap_or_default().cmp(&b.since.unwrap_or_default())),
    column!("PID", 8, Right, from 0, |p, c, _| owner(p, c).map_or_else(unknown, |owner| pid(owner.pid, owner.inferred)), by |a, b| a.owner.cmp(&b.owner)),
    column!("WORKLOAD", 12 + 1, Left, from 0, |p, c, _| owner(p, c).map_or_else(unknown, |owner| plain(c.safe(&owner.workload)))),
];

fn owner<'a>(port: &PortUse, context: &CellContext<'a>) -> Option<&'a Owner> {
    context.owners.get(usize::from(port.owner))
}

/// Connects that found no port.
pub const FAILURES: &[Column<Arc<FailureRecord>>] = &[
    column!("TIME", 12, Left, from 0, |f, c, _| plain(c.time(f.failed.ktime)), by |a, b| b.failed.ktime.cmp(&a.failed.ktime)),
    column!("WORKLOAD", 12 + 2, Left, from 0, |f, c, _| {
        let owner = f.failed.owner.as_ref();
        vec![(Paint::Strong, c.safe(owner.map_or("-", |owner| &owner.workload)))]
    }, by |a, b| a.failed.owner.as_ref().map(|o| &o.workload).cmp(&b.failed.owner.as_ref().map(|o| &o.workload))),
    column!("PID", 8, Right, from 0, |f, _, _| f.failed.owner.as_ref().map_or_else(unknown, |owner| pid(owner.pid, owner.inferred)), by |a, b| a.failed.owner.as_ref().map(|o| o.pid).cmp(&b.failed.owner.as_ref().map(|o| o.pid))),
    column!("DESTINATION", 15 + 1, Left, from 0, |f, _, _| {
        // bind(port 0) fails without one.
        if f.failed.key.remote.port == 0 { plain(format!("bind {}", f.failed.key.local.addr)) } else { plain(f.failed.key.remote.to_string()) }
    }, by |a, b| a.failed.key.remote.cmp(&b.failed.key.remote)),
    column!("REASON", 14, Left, from 110, |f, _, _| vec![(Paint::Bad, f.failed.failure.to_string())]),
    column!("SEARCHED", 8, Right, from 90, |f, _, _| millis(f.failed.after_ms), by |a, b| most_known(a.failed.after_ms, b.failed.after_ms)),
    column!("HELD THEN", 15, Right, from 0, |f, _, _| match f.capacity {
        Some(capacity) => plain(format!("{}/{}", number(u64::from(f.in_use)), number(u64::from(capacity)))),
        None => plain(number(u64::from(f.in_use))),
    }, by |a, b| most(a.in_use, b.in_use)),
    column!("MOST BY", 14 + 2, Left, from 100, |f, c, _| f.holders.first().map_or_else(unknown, |holder| plain(c.safe(&holder.workload)))),
];

/// The findings of the host.
pub const FINDINGS: &[Column<Finding>] = &[
    column!("SEVERITY", 8, Left, from 0, |f, _, _| {
        let (paint, word) = severity(f.severity);
        vec![(if f.is_active() { paint } else { Paint::Dim }, word.into())]
    }),
    column!("STATE", 5, Left, from 0, |f, _, _| {
        if f.is_active() { plain("now".into()) } else { vec![(Paint::Dim, "over".into())] }
    }),
    column!("BEGAN", 12, Left, from 100, |f, c, _| f.life.began.map_or_else(unknown, |at| plain(c.time(at)))),
    column!("ENDED", 12, Left, from 120, |f, c, _| f.life.ended.map_or_else(unknown, |at| plain(c.time(at)))),
    column!("FINDING", 30 + 1, Left, from 0, |f, c, _| plain(c.safe(&f.summary))),
];

/// The states of a flow, one after the other.
pub const STEPS: &[Column<FlowStep>] = &[
    column!("ENTERED", 12, Left, from 0, |s, c, _| s.entered.map_or_else(|| vec![(Paint::Dim, "before start".into())], |at| plain(c.time(at)))),
    column!("STATE", 12, Left, from 0, |s, _, _| vec![(state_paint(s.state), s.state.name().into())]),
    column!("STAYED", 12, Right, from 0, |s, _, _| s.dwell.map_or_else(unknown, |dwell| plain(stay(dwell)))),
    column!("", 10 + 1, Picture, from 0, |s, c, width| dwell_bar(s, c, width)),
];

/// A time in a state as a bar on a logarithmic scale from 1 us to an hour, so that a millisecond and a minute both show.
fn dwell_bar(step: &FlowStep, context: &CellContext<'_>, width: usize) -> StyledLine {
    const DECADES: f64 = 9.5;
    let Some(dwell) = step.dwell else { return plain(String::new()) };
    let decades = (dwell.max(1) as f64 / 1e3).max(1.0).log10();
    let cells = (0..width).take_while(|&cell| (cell as f64) < decades / DECADES * width as f64).count();
    let letter = if context.options.unicode { "\u{2501}" } else { "-" };
    vec![(state_paint(step.state), letter.repeat(cells))]
}
