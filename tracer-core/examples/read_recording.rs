//! Reads a recording as another program would: the findings, and who holds the ports of the worst destination.
//!
//! ```text
//! cargo run -p tracer-core --example read_recording -- incident.arrow
//! ```
#![allow(clippy::print_stdout, reason = "an example: it prints")]

use std::error::Error;

use tracer_core::playback::{PlayWindow, play};
use tracer_core::series;

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args_os().nth(1).ok_or("usage: read_recording FILE")?;
    // Everything is concluded again from what was recorded, so a newer version says more about an old file.
    let mut recording = series::open(&[file.into()])?.into_iter().next().ok_or("no recording")?;
    let played = play(&mut recording, None, PlayWindow::default())?;
    for warning in &played.warnings {
        eprintln!("{warning}");
    }
    let snapshot = played.tracker.snapshot();
    for finding in &snapshot.findings {
        println!("{}: {}", finding.id.as_str(), finding.summary);
    }
    let Some(worst) = snapshot.destinations.first() else {
        println!("nobody connected");
        return Ok(());
    };
    println!(
        "{}:{} {} ports at once at the most, {} connects",
        worst.remote_addr, worst.remote_port, worst.ports.peak, worst.connects
    );
    Ok(())
}
