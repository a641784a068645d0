//! One damage has one name and one answer, whoever reads the file.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tracer_core::event::{Event, Ktime, Netns, NetnsFacts};
use tracer_core::recording::{RecordingHeader, Writer, create};
use tracer_core::step::TrackerStep;

fn portchurn(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portchurn")).args(arguments).output().expect("the program")
}

/// A recording of so many batches of four seconds each.
fn write(path: &Path, batches: u64) -> Vec<u8> {
    let header = RecordingHeader { begin_ns: 1, ..RecordingHeader::default() };
    let mut writer = Writer::new(create(path, true).expect("a file"), &header).expect("a header");
    for batch in 0..batches {
        let facts = NetnsFacts {
            ktime: Ktime((batch * 4 + 1) * 1_000_000_000),
            netns: Netns::of_inode(1),
            ..NetnsFacts::default()
        };
        writer.step(&TrackerStep::Event(Event::Netns(Box::new(facts)))).expect("room");
        for second in batch * 4..batch * 4 + 4 {
            writer.step(&TrackerStep::Advance(Ktime((second + 1) * 1_000_000_000))).expect("room");
        }
        writer.flush().expect("room");
    }
    writer.finish().expect("room");
    fs::read(path).expect("a file")
}

/// Where the frames with rows begin.
fn batches(bytes: &[u8]) -> Vec<usize> {
    let starts = (8..bytes.len() - 8).filter(|&at| bytes[at..].starts_with(&[0xff; 4]));
    let framed = starts.filter(|&at| {
        let length = u32::from_le_bytes(*bytes[at + 4..].first_chunk().expect("a length"));
        let trailer = at + 8 + usize::try_from(length).expect("small") - 48;
        bytes.get(trailer..trailer + 8).is_some_and(|head| head.starts_with(b"PCB1") && head[4] != 0)
    });
    framed.collect()
}

#[test]
fn a_damage_has_the_same_words_and_codes_in_all_readers() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.arrow");
    let file = path.to_str().expect("UTF-8");
    let (whole, one, none) = (write(&path, 4), write(&path, 1), write(&path, 0));
    let at = batches(&whole);
    let [_, second, third, fourth] = at[..] else { panic!("{at:?}") };
    let flipped = |byte: usize| {
        let mut bytes = whole.clone();
        bytes[byte] ^= 4;
        bytes
    };
    let tail = whole.windows(4).rposition(|word| word == b"PCE1").expect("a tail");
    let cases = [
        ("whole", whole.clone(), None, 0),
        ("one batch", one.clone(), None, 0),
        ("no batch", none, None, 1),
        ("a flipped bit", flipped(third - 3), Some(("corrupt", 5, false)), 1),
        ("a flipped bit in a length", flipped(second + 5), Some(("corrupt", 5, false)), 1),
        ("cut in a batch", whole[..fourth + 40].to_vec(), Some(("cut-off", 0, true)), 1),
        ("still being written", whole[..fourth].to_vec(), Some(("unfinished", 0, true)), 1),
        ("a footer cut off", whole[..tail].to_vec(), Some(("no-footer", 0, false)), 0),
    ];
    for (what, bytes, damage, checked) in cases {
        fs::write(&path, bytes).expect("written");
        let json = |arguments: &[&str], codes: &[i32]| -> (Value, String) {
            let output = portchurn(arguments);
            assert!(output.status.code().is_some_and(|code| codes.contains(&code)), "{what}: {arguments:?} {output:?}");
            (serde_json::from_slice(&output.stdout).unwrap_or_default(), String::from_utf8_lossy(&output.stderr).into())
        };
        let (report, complaint) = json(&["report", file, "--json"], &[0]);
        let (info, _) = json(&["info", file, "--json"], &[0]);
        let (check, _) = json(&["check", file, "--json", "--fail-if", "port-exhaustion"], &[checked]);
        assert_eq!(info["recordings"][0]["damage"], report["damage"], "{what}");
        assert_eq!(check["damage"], report["damage"], "{what}");
        match damage {
            None => assert_eq!((&report["damage"], complaint.as_str()), (&Value::Null, ""), "{what}"),
            Some((kind, rows, at_least)) => {
                let found = &report["damage"];
                assert_eq!((&found["kind"], &found["rows"]), (&kind.into(), &rows.into()), "{what}: {found}");
                assert_eq!(found["at_least"], at_least, "{what}: {found}");
                assert!(complaint.contains(found["why"].as_str().expect("a reason")), "{what}: {complaint}");
            }
        }
        // Those that have no such field say the same sentence.
        for arguments in [
            &["export", file, "--format", "jsonl"][..],
            &["replay", file, "--json", "--speed", "max"],
            &["diff", file, file],
        ] {
            let output = portchurn(arguments);
            assert_eq!(output.status.code(), Some(0), "{what}: {arguments:?} {output:?}");
            let told = String::from_utf8_lossy(&output.stderr);
            for line in complaint.lines() {
                assert!(told.contains(line), "{what}: {arguments:?} says {told} and not {line}");
            }
        }
        let text = String::from_utf8_lossy(&portchurn(&["report", file]).stdout).into_owned();
        let all_clear = text.contains("Nothing is wrong");
        assert!(!all_clear || checked == 0, "{what}: {text}");
    }
    fs::write(&path, "").expect("written");
    for arguments in
        [&["report", file][..], &["info", file], &["check", file, "--fail-if", "failed>0"], &["diff", file, file]]
    {
        let output = portchurn(arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && told.contains("is empty"), "{arguments:?}: {told}");
    }
}
