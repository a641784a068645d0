//! One destination: how full it is, who holds its ports, since when connects fail, and every port on a map.

use ratatui::layout::Rect;

use super::table;
use crate::tui::app::App;
use crate::tui::cells::{endpoint, full_in, netns, other_failures, percent};
use crate::tui::charts::{bar, port_map};
use crate::tui::page::Pane;
use crate::tui::render::canvas::Canvas;
use crate::tui::render::distributions;
use crate::tui::render::split::divide;
use tracer_core::event::DestinationKey;
use tracer_core::layout::human::{number, rate, rough_interval, short};
use tracer_core::layout::text::{Paint, StyledLine};
use tracer_core::tracker::snapshot::Destination;
use tracer_core::tracker::snapshot::detail::DestinationDetail;

/// From this height on, distributions have a line per bucket.
const TALL: u16 = 40;
/// Below this height distributions are left out, so that the holders have room.
const LOW: u16 = 16;
/// From this width on, the tables stand side by side.
const WIDE: u16 = 140;

/// Draws the page into `area`.
pub fn draw(canvas: &mut Canvas<'_>, app: &App, area: Rect, place: &DestinationKey) {
    let found = app.frame.snapshot.destinations.iter().find(|destination| destination.key() == *place);
    let Some(destination) = found else {
        let text = format!("Nothing is known of {} any more.", endpoint(place.remote_addr, place.remote_port));
        canvas.paragraph(area, &Vec::new(), Paint::Plain, &text);
        return;
    };
    let mut y = area.y;
    for line in facts(canvas, app, destination, usize::from(area.width)) {
        canvas.line(area, y, &line);
        y += 1;
    }
    let rest = |y: u16| Rect { y, height: area.bottom().saturating_sub(y), ..area };
    match app.destination_detail(place) {
        Some(detail) => {
            // A third of the page, with one line for the legend.
            let height = (area.height / 3).max(4);
            y += map(canvas, detail, Rect { height: height.min(rest(y).height), ..rest(y) });
            if area.height >= LOW {
                y += distributions::draw(
                    canvas,
                    rest(y),
                    area.height >= TALL,
                    &[
                        ("connect", &detail.connect),
                        ("lifetime", &detail.lifetime),
                        ("port search", &detail.port_search),
                    ],
                );
            }
        }
        None => {
            canvas.line(rest(y), y, &vec![(Paint::Dim, "port by port: being looked up ...".into())]);
            y += 1;
        }
    }
    let left = rest(y);
    let (holders, flows) = (app.rows.shown(Pane::Holders).len(), app.rows.shown(Pane::Flows).len());
    if area.width >= WIDE {
        let half = area.width / 2;
        table::draw(canvas, app, Pane::Holders, Rect { width: half - 1, ..left });
        table::draw(canvas, app, Pane::Flows, Rect { x: left.x + half, width: area.width - half, ..left });
    } else {
        let (first, second) = divide(left.height, holders, flows);
        table::draw(canvas, app, Pane::Holders, Rect { height: first, ..left });
        table::draw(canvas, app, Pane::Flows, Rect { y: y + first, height: second, ..left });
    }
}

/// The lines at the top: what, occupancy, pace, failures.
fn facts(canvas: &Canvas<'_>, app: &App, destination: &Destination, width: usize) -> Vec<StyledLine> {
    let snapshot = &app.frame.snapshot;
    let ports = &destination.ports;
    let title: StyledLine = vec![
        (Paint::Strong, endpoint(destination.remote_addr, destination.remote_port)),
        (Paint::Plain, format!(" from {}", destination.local_addr)),
        (Paint::Dim, format!("  netns {}", canvas.safe(&netns(snapshot, destination.netns)))),
        (
            Paint::Dim,
            ports.range.map_or_else(|| "  range unknown".into(), |(low, high)| format!("  range {low}-{high}")),
        ),
    ];
    let capacity = ports.capacity.map_or_else(|| "unknown".into(), |capacity| number(u64::from(capacity)));
    let numbers = format!(" {} of {capacity} ", number(u64::from(ports.in_use)));
    let peak = format!("  peak {}", number(u64::from(ports.peak)));
    let room = width.saturating_sub(numbers.len() + peak.len() + 6).clamp(10, 80);
    let mut occupancy = bar::bar(destination, room, canvas.options.unicode);
    occupancy.push((Paint::Strong, numbers));
    occupancy.extend(percent(ports.utilisation));
    occupancy.push((Paint::Dim, peak));
    let bears = destination.sustainable_per_second;
    let over = bears.is_some_and(|bears| destination.connects_per_second > bears);
    let mut pace: StyledLine = vec![
        (
            if over { Paint::Warn } else { Paint::Plain },
            format!("{} connects/s", rate(destination.connects_per_second)),
        ),
        (
            Paint::Plain,
            bears.map_or_else(|| ", bears unknown".into(), |bears| format!(", bears {}/s for good", rate(bears))),
        ),
        (Paint::Plain, "; full: ".into()),
    ];
    match destination.seconds_to_exhaustion {
        Some(left) if left > 0.0 => {
            let (soonest, latest) = (destination.exhaustion_soonest_seconds, destination.exhaustion_latest_seconds);
            pace.push((Paint::Warn, format!("in {}", rough_interval(left, soonest, latest))));
            if let Some(confidence) = destination.forecast_confidence {
                pace.push((Paint::Dim, format!(" (confidence {})", format!("{confidence:?}").to_lowercase())));
            }
        }
        Some(_) => pace.extend(full_in(destination)),
        None if ports.capacity.is_none() => pace.push((Paint::Dim, "unknown".into())),
        None => pace.push((Paint::Good, "not at this rate".into())),
    }
    let failed = destination.failed.without_port();
    let time = |at| app.trace.time_or_date(at, snapshot.now);
    let mut failures: StyledLine = vec![
        (if failed > 0 { Paint::Bad } else { Paint::Good }, format!("{} without a port", short(failed))),
        (Paint::Plain, format!("{} of {} connects", other_failures(&destination.failed), number(destination.connects))),
    ];
    if let (Some(first), Some(last)) = (destination.first_failure, destination.last_failure) {
        failures.push((Paint::Plain, format!("; first {}, last {}", time(first), time(last))));
    }
    vec![title, occupancy, pace, failures]
}

/// Draws the port map with its legend. Returns the lines used.
fn map(canvas: &mut Canvas<'_>, detail: &DestinationDetail, area: Rect) -> u16 {
    let unicode = canvas.options.unicode;
    let Some(map) = port_map::map(detail, usize::from(area.width), usize::from(area.height.saturating_sub(1)), unicode)
    else {
        canvas.line(area, area.y, &vec![(Paint::Dim, "no map: the range of local ports is unknown".into())]);
        return 1;
    };
    let [established, time_wait, other, free] = port_map::legend(unicode);
    let [free_ports, established_ports, time_wait_ports, other_ports, blocked] = map.counts;
    let legend: StyledLine = vec![
        (Paint::Good, format!("{established} ESTAB {established_ports}")),
        (Paint::Warn, format!("  {time_wait} TIME_WAIT {time_wait_ports}")),
        (Paint::Strong, format!("  {other} other {other_ports}")),
        (Paint::Dim, format!("  {free} free {free_ports}")),
        (Paint::Bad, format!("  x blocked {blocked}")),
        (
            Paint::Dim,
            match map.ports_per_cell {
                1 => "  1 port each".into(),
                many => format!("  {many} ports each"),
            },
        ),
    ];
    canvas.line(area, area.y, &legend);
    for (index, line) in map.lines.iter().enumerate() {
        canvas.line(area, area.y + 1 + u16::try_from(index).unwrap_or(0), line);
    }
    1 + u16::try_from(map.lines.len()).unwrap_or(0)
}
