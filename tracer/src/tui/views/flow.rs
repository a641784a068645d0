//! One flow, state by state.

use ratatui::layout::Rect;

use super::table;
use crate::tui::app::App;
use crate::tui::cells::netns;
use crate::tui::page::Pane;
use crate::tui::render::canvas::Canvas;
use tracer_core::event::FlowKey;
use tracer_core::layout::text::{Paint, StyledLine};
use tracer_core::tracker::snapshot::Opened;

/// Draws the page into `area`.
pub fn draw(canvas: &mut Canvas<'_>, app: &App, area: Rect, key: &FlowKey) {
    let mut title: StyledLine = vec![
        (Paint::Strong, format!("{} > {}", key.local, key.remote)),
        (Paint::Dim, format!("  netns {}", canvas.safe(&netns(&app.frame.snapshot, key.netns)))),
    ];
    let Some(flow) = app.flow_detail() else {
        canvas.line(area, area.y, &title);
        let text = "Nothing is known of this flow: it is being looked up, or it ended too long ago.";
        canvas.paragraph(Rect { y: area.y + 1, height: 2, ..area }, &Vec::new(), Paint::Plain, text);
        return;
    };
    title.push((
        Paint::Plain,
        match flow.opened {
            Opened::Active => "  opened by this side".into(),
            Opened::Passive => "  opened by the peer".into(),
            Opened::Unknown => String::new(),
        },
    ));
    canvas.line(area, area.y, &title);
    let mut owner: StyledLine = Vec::new();
    match &flow.owner {
        Some(found) => {
            let mark = if found.inferred { "~" } else { "" };
            owner.push((Paint::Plain, "owner ".into()));
            owner.push((Paint::Strong, format!("{mark}{}", canvas.safe(&found.workload))));
            owner.push((Paint::Plain, format!("  pid {} {}", found.pid, canvas.safe(&found.comm))));
        }
        None => owner.push((Paint::Dim, "owner unknown".into())),
    }
    if flow.begin_unknown {
        owner.push((Paint::Dim, "  earlier steps are not known".into()));
    }
    if flow.repaired {
        owner.push((Paint::Warn, "  set right after a loss".into()));
    }
    canvas.line(area, area.y + 1, &owner);
    table::draw(canvas, app, Pane::Steps, Rect { y: area.y + 3, height: area.height.saturating_sub(3), ..area });
}
