//! Writes the sample recordings that every later version must read, and the seeds of the fuzz targets.
//!
//! `cargo run -p tracer-core --features testing --example recording_samples DIR CORPUS`. The samples of a released
//! version are never written again. FORMAT.md says which directory new ones get.

use std::collections::HashSet;
use std::fs;
use std::io::Cursor;
use std::path::Path;

use tracer_core::event::{Event, Ktime, LossCounts};
use tracer_core::recording::{RecordingHeader, Writer};
use tracer_core::step::TrackerStep;
use tracer_core::synthetic::{RecordedChurn, header};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn write(header: &RecordingHeader, steps: impl IntoIterator<Item = TrackerStep>) -> Result<Vec<u8>> {
    let mut writer = Writer::new(Cursor::new(Vec::new()), header)?;
    for (number, step) in steps.into_iter().enumerate() {
        writer.step(&step)?;
        // Small batches, so that the truncated sample holds some whole ones.
        if number % 100 == 99 {
            writer.flush()?;
        }
    }
    Ok(writer.finish()?.1.into_inner())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let samples = arguments.next().ok_or("a directory for the samples is missing")?;
    let corpus = arguments.next().ok_or("a directory for the corpus is missing")?;
    fs::create_dir_all(&samples)?;
    let clean = write(&header(), RecordedChurn::new(50))?;
    let lossy = RecordedChurn::new(50).enumerate().filter(|(number, _)| number % 7 != 3).map(|(_, step)| step);
    let loss = LossCounts { ktime: Ktime(100_001_000_000), ring_transitions: 90, recorder: 3, ..LossCounts::default() };
    let lossy = write(&header(), lossy.chain([TrackerStep::Event(Event::Loss(loss))]))?;
    let path = |name: &str| Path::new(&samples).join(name);
    fs::write(path("clean.arrow"), &clean)?;
    fs::write(path("loss.arrow"), &lossy)?;
    fs::write(path("truncated.arrow"), clean.get(..clean.len() * 2 / 3).unwrap_or_default())?;

    let seed = |target: &str, name: &str, bytes: &[u8]| -> Result<()> {
        let dir = Path::new(&corpus).join(target);
        fs::create_dir_all(&dir)?;
        Ok(fs::write(dir.join(name), bytes)?)
    };
    let small = write(&header(), RecordedChurn::new(2))?;
    seed("recording", "small", &small)?;
    seed("recording", "truncated", small.get(..small.len() - 500).unwrap_or_default())?;
    // The messages of the small recording without prefix, padding and trailer.
    let mut messages = Vec::new();
    let mut at = 8;
    let mut seen = HashSet::new();
    while let Some(length) = small.get(at + 4..at + 8).and_then(|length| length.first_chunk()) {
        let length = usize::try_from(i32::from_le_bytes(*length))?;
        let Some(head) = small.get(at + 8..at + 8 + length).filter(|_| length > 48 && seen.insert(at)) else { break };
        let (flatbuffer, trailer) = head.split_at(length - 48);
        let body = trailer.get(24..32).and_then(|body| body.first_chunk()).ok_or("a trailer is missing")?;
        let body = usize::try_from(u64::from_le_bytes(*body))?;
        let start = at + 8 + length;
        messages.extend_from_slice(&u16::try_from(flatbuffer.len())?.to_le_bytes());
        messages.extend_from_slice(&u16::try_from(body)?.to_le_bytes());
        messages.extend_from_slice(flatbuffer);
        messages.extend_from_slice(small.get(start..start + body).ok_or("a body is missing")?);
        at = start + body;
    }
    seed("frames", "small", &messages)?;
    for kind in 1..=10_u8 {
        let mut record = vec![0; 9_000];
        record[0] = kind;
        seed("records", &format!("kind{kind}"), &record)?;
    }
    Ok(())
}
