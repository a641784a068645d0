//! What was written is read back; damage is noticed, and nothing damaged is replayed.

mod rows;
mod steps;

use std::fs;
use std::io::Cursor;
use std::path::Path;

use proptest::prelude::*;

use self::steps::*;
use super::writer::Sink as _;
use super::*;
use crate::damage::{Damage, DamageKind};
use crate::event::*;
use crate::step::TrackerStep;

fn header() -> RecordingHeader {
    RecordingHeader {
        tool: "portchurn test".into(),
        anchor: header::Anchor { ktime_ns: 5_000_000_000, unix_ns: 1_773_454_267_000_000_000 },
        begin_ns: 4_000_000_000,
        ..RecordingHeader::default()
    }
}

fn write(steps: &[TrackerStep], batch: usize) -> Vec<u8> {
    let mut writer = Writer::new(Cursor::new(Vec::new()), &header()).expect("a header");
    for chunk in steps.chunks(batch) {
        for step in chunk {
            writer.step(step).expect("in memory");
        }
        writer.flush().expect("in memory");
    }
    writer.finish().expect("in memory").1.into_inner()
}

fn read(bytes: &[u8]) -> Result<(Vec<TrackerStep>, Option<Damage>), ReadError> {
    read_from(Reader::open_file(Cursor::new(bytes))?)
}

fn read_from(mut reader: Reader<impl std::io::Read>) -> Result<(Vec<TrackerStep>, Option<Damage>), ReadError> {
    let mut steps = Vec::new();
    while let Some(step) = reader.next_step()? {
        steps.push(step);
    }
    assert_eq!(reader.unused_rows().bad, 0);
    Ok((steps, reader.damage()))
}

/// The steps with kernel addresses in a form that does not depend on the random mask of a recording.
fn without_mask(mut steps: Vec<TrackerStep>) -> Vec<TrackerStep> {
    let mut mask = None;
    let mut unmask = |sock: &mut u64| {
        if *sock != 0 {
            *sock ^= *mask.get_or_insert(*sock);
        }
    };
    for step in &mut steps {
        let TrackerStep::Event(event) = step else { continue };
        match event {
            Event::Transition(event) => unmask(&mut event.id.sock),
            Event::CallFailed(event) => unmask(&mut event.id.sock),
            Event::PortSearch(event) => unmask(&mut event.id.sock),
            Event::Accepted(event) | Event::Bound(event) | Event::Released(event) => {
                unmask(&mut event.id.sock);
                if let Some(listener) = &mut event.listener {
                    unmask(&mut listener.sock);
                }
            }
            Event::Baseline(list) => {
                let mut rows = list.rows.to_vec();
                for row in &mut rows {
                    unmask(&mut row.sock);
                }
                list.rows = rows.into();
            }
            _ => {}
        }
    }
    steps
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn everything_comes_back_in_its_order(steps in prop::collection::vec(step(), 0..80), batch in 1_usize..40) {
        let (back, damage) = read(&write(&steps, batch)).expect("a recording");
        prop_assert_eq!(damage, None);
        prop_assert_eq!(without_mask(back), without_mask(steps));
    }

    #[test]
    fn any_bytes_in_any_place_are_an_answer(
        steps in prop::collection::vec(step(), 1..20),
        at in any::<prop::sample::Index>(),
        junk in prop::collection::vec(any::<u8>(), 1..60),
    ) {
        let mut bytes = write(&steps, 7);
        let at = at.index(bytes.len());
        let end = bytes.len().min(at + junk.len());
        bytes[at..end].copy_from_slice(&junk[..end - at]);
        if let Ok((back, _)) = read(&bytes) {
            prop_assert!(are_among(&back, &steps), "{:?} of {:?}", back, steps);
        }
    }
}

/// Are these some of `all`, in their order? Addresses of the kernel are not compared: their mask is that of the first.
fn are_among(some: &[TrackerStep], all: &[TrackerStep]) -> bool {
    let without_socks = |step: &TrackerStep| match &without_mask(vec![step.clone()])[..] {
        [TrackerStep::Event(Event::Baseline(list))] => {
            let rows: Vec<_> = list.rows.iter().map(|row| SocketRow { sock: 0, ..*row }).collect();
            TrackerStep::Event(Event::Baseline(Baseline { rows: rows.into(), ..list.clone() }))
        }
        [TrackerStep::Event(Event::Accepted(event))] => {
            let listener = event.listener.map(|listener| SocketId { sock: 0, ..listener });
            TrackerStep::Event(Event::Accepted(SocketEvent { listener, ..*event }))
        }
        [step] => step.clone(),
        _ => unreachable!("one step is one"),
    };
    let mut all = all.iter();
    some.iter().all(|step| all.any(|other| without_socks(other) == without_socks(step)))
}

/// A few steps, with every kind of row.
fn sample() -> Vec<TrackerStep> {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut draw =
        |strategy: BoxedStrategy<Event>| TrackerStep::Event(strategy.new_tree(&mut runner).expect("a value").current());
    let mut steps = vec![
        draw(process().boxed()),
        draw(netns().boxed()),
        draw(reserved().boxed()),
        draw(baseline().boxed()),
        draw(transition().boxed()),
        draw(time_wait().boxed()),
        draw(call_failed().boxed()),
        draw(socket_event().boxed()),
        draw(loss().boxed()),
    ];
    steps.extend([TrackerStep::Skipped(3), TrackerStep::Advance(Ktime(9_000_000_000))]);
    steps
}

#[test]
fn a_file_cut_at_any_byte_is_read_to_its_last_whole_batch() {
    let steps = sample();
    let bytes = write(&steps, 4);
    let whole = without_mask(read(&bytes).expect("whole").0);
    let mut most = 0;
    // About every fifth length, so that the test is fast.
    for length in (0..bytes.len()).step_by(5) {
        let cut = &bytes[..length];
        match read(cut) {
            Err(ReadError::Empty) => assert_eq!(length, 0),
            Err(ReadError::NotArrow) => assert!(length < 8, "{length}"),
            Err(ReadError::NoHeader(_)) => assert_eq!(most, 0, "{length}: a header once read is always read"),
            Err(error) => panic!("{length}: {error}"),
            Ok((back, damage)) => {
                let damage = damage.unwrap_or_else(|| panic!("{length}: the end is missing and nobody says so"));
                assert_eq!(damage.at + damage.bytes, length as u64, "{length}");
                assert!(back.len() >= most, "{length}: more bytes, fewer events");
                most = back.len();
                assert_eq!(without_mask(back)[..], whole[..most], "{length}");
            }
        }
    }
    assert_eq!(most, whole.len(), "without the footer nothing is missing");
}

/// Offsets of the frames of a file, up to the end of the stream, and what they are.
fn frames(bytes: &[u8]) -> Vec<(usize, frame::Stats)> {
    let mut at = frame::MAGIC.len();
    let mut found = Vec::new();
    loop {
        let length = i32::from_le_bytes(*bytes[at + 4..].first_chunk().expect("a length"));
        let end = at + frame::PREFIX + usize::try_from(length).expect("a length");
        if length == 0 {
            return found;
        }
        let trailer = frame::trailer(&bytes[..end]).expect("a frame");
        found.push((at, trailer.stats));
        at = end + usize::try_from(trailer.body).expect("small");
    }
}

#[test]
fn a_flipped_bit_is_noticed_and_costs_one_batch() {
    let steps: Vec<TrackerStep> = sample().into_iter().chain((0..40).map(|number| towards(number / 2))).collect();
    let mut bytes = write(&steps, 4);
    let whole = read(&bytes).expect("whole").0;
    let footer = bytes.windows(4).rposition(|word| word == b"PCE1").expect("a tail") + 48;
    let frames = frames(&bytes);
    let first_batch = frames.iter().position(|(_, stats)| stats.rows > 0).expect("a batch");
    // The names of the kinds of rows stand before the first batch.
    let names = frames[first_batch].0;
    // One bit of about every 40th byte, so that the test is fast; the tests of `frame` flip every bit of a frame.
    for bit in (0..bytes.len() * 8).step_by(331) {
        bytes[bit / 8] ^= 1 << (bit % 8);
        match read(&bytes) {
            Err(ReadError::Io(error)) => panic!("bit {bit}: {error}"),
            Err(_) => assert!(bit / 8 < names, "bit {bit}: only the beginning is needed for the rest"),
            Ok((back, damage)) => {
                assert!(are_among(&back, &whole), "bit {bit}");
                let missing = whole.len() - back.len();
                assert!(missing <= 4 || bit / 8 < names, "bit {bit}: {missing} steps are missing");
                // Only the last bytes of the footer are compared, because only other programs read it.
                let noticed = damage.as_ref().is_some_and(|damage| {
                    damage.loses_events() == (missing > 0)
                        && !damage.at_least
                        && (damage.places == 1 || bit / 8 < names)
                });
                assert!(noticed || (bit / 8 >= footer && missing == 0), "bit {bit}: {damage:?}, {missing} missing");
            }
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_batch_that_is_damaged_is_missing_with_its_rows_and_its_time() {
    let second = |second: u64| TrackerStep::Advance(Ktime(4_000_000_000 + second * 1_000_000_000));
    let steps: Vec<TrackerStep> = (1..=9).map(second).collect();
    let bytes = write(&steps, 3);
    let batches: Vec<usize> = frames(&bytes).iter().filter(|(_, stats)| stats.rows > 0).map(|(at, _)| *at).collect();
    let [_, middle, last] = batches[..] else { panic!("{batches:?}") };
    let body = last - 1;
    let (prefix, trailer) = (middle + 2, bytes[..last].windows(4).rposition(|word| word == b"PCB1").expect("one"));
    for broken in [body, prefix, trailer] {
        let mut bytes = bytes.clone();
        bytes[broken] ^= 1;
        let (back, damage) = read(&bytes).expect("a recording");
        assert_eq!(back, [&steps[..3], &steps[6..]].concat(), "{broken}");
        let damage = damage.expect("a batch is missing");
        assert_eq!((damage.kind, damage.places, damage.rows), (DamageKind::Corrupt, 1, 3), "{broken}");
        assert_eq!((damage.at, damage.bytes), (middle as u64, (last - middle) as u64), "{broken}");
        assert_eq!((damage.nanos, damage.at_least, damage.end_missing), (4_000_000_000, false, false), "{broken}");
    }
    // Bytes that were left out.
    let mut gone = bytes.clone();
    gone.drain(middle + 40..middle + 60);
    let (back, damage) = read(&gone).expect("a recording");
    assert_eq!((back.len(), damage.expect("a batch is missing").rows), (6, 3));
}

/// A file repeats its addresses at its end, which a pipe and a file without its end cannot use.
#[test]
fn addresses_whose_addition_is_damaged_cost_a_file_nothing_and_a_pipe_the_rows_that_have_them() {
    let steps: Vec<TrackerStep> = (0..12).map(|number| towards(number % 10)).collect();
    let bytes = write(&steps, 2);
    let additions: Vec<usize> = frames(&bytes)
        .iter()
        .filter(|(_, stats)| stats.flags & frame::flags::DICTIONARY != 0 && stats.first > 0)
        .map(|(at, _)| *at)
        .collect();
    let mut broken = bytes.clone();
    broken[additions[1] + 60] ^= 1;
    let (back, damage) = read(&broken).expect("a recording");
    assert_eq!(back, steps);
    assert!(damage.is_some_and(|damage| !damage.loses_events() && damage.kind == DamageKind::NoFooter));
    let (back, damage) = Reader::open(&broken[..]).and_then(read_from).expect("a recording");
    let damage = damage.expect("addresses are missing");
    assert!(are_among(&back, &steps) && back.len() == 10, "{} steps", back.len());
    assert_eq!((damage.rows, damage.at_least, damage.nanos), (2, false, 0), "{damage:?}");
    // Out of turn.
    let mut reader = Reader::open_file(Cursor::new(&broken)).expect("a recording");
    let index = reader.batch_index().expect("in memory");
    for (place, batch) in index.batches.iter().zip(steps.chunks(2)).rev() {
        assert_eq!(reader.steps_of(&index, place).expect("in memory"), batch);
    }
}

#[test]
fn a_cut_says_what_is_missing_at_least() {
    let second = |second: u64| TrackerStep::Advance(Ktime(4_000_000_000 + second * 1_000_000_000));
    let bytes = write(&[second(1), second(2), second(3), second(10)], 2);
    let tail = bytes.windows(4).rposition(|word| word == b"PCE1").expect("a tail");
    let frames = frames(&bytes);
    // The two whole dictionaries follow the last batch.
    let [.., (last, _), (dictionary, _), _] = frames[..] else { panic!("{frames:?}") };
    let damage = |end: usize| {
        let (steps, damage) = read(&bytes[..end]).expect("a recording");
        (steps.len(), damage.expect("the end is missing"))
    };
    let (read, cut) = damage(dictionary - 1);
    assert_eq!((read, cut.kind, cut.rows, cut.nanos), (2, DamageKind::CutOff, 2, 8_000_000_000), "its head tells");
    assert!(cut.at_least && cut.end_missing, "more may have come behind");
    let (read, cut) = damage(last + 9);
    assert_eq!((read, cut.kind, cut.rows, cut.nanos, cut.at_least), (2, DamageKind::CutOff, 0, 0, true));
    assert!(cut.to_string().contains("an unknown number of rows"), "{cut}");
    let (read, cut) = damage(dictionary);
    assert_eq!((read, cut.kind, cut.rows, cut.loses_events()), (4, DamageKind::Unfinished, 0, true));
    for end in [tail - 8, tail, tail + 48, bytes.len() - 1] {
        let (read, cut) = damage(end);
        assert_eq!((read, cut.kind, cut.loses_events()), (4, DamageKind::NoFooter, false), "{end}");
    }
}

#[test]
fn what_is_no_recording_has_its_own_error() {
    let error = |bytes: &[u8]| Reader::open(bytes).err().expect("no recording");
    assert!(matches!(error(b""), ReadError::Empty));
    assert!(matches!(error(b"{\"schema\": \"portchurn.report/1\"}"), ReadError::NotArrow));
    assert!(matches!(error(b"ARROW1\0\0"), ReadError::NoHeader(_)));
    // A file of another program, and one of a later version.
    let arrow = |metadata: &[(&str, &str)]| {
        let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let metadata = metadata.collect::<std::collections::HashMap<_, _>>();
        let schema = arrow_schema::Schema::new_with_metadata(Vec::<arrow_schema::Field>::new(), metadata);
        let mut bytes = Vec::new();
        arrow_ipc::writer::FileWriter::try_new(&mut bytes, &schema).and_then(|mut file| file.finish()).expect("a file");
        bytes
    };
    assert!(matches!(error(&arrow(&[])), ReadError::NotOurs));
    let newer = (VERSION + 1).to_string();
    assert!(
        matches!(error(&arrow(&[("portchurn.version", &newer)])), ReadError::TooNew { found } if found == VERSION + 1)
    );
    assert!(matches!(error(&arrow(&[("portchurn.version", "0")])), ReadError::UnknownVersion { .. }));
    let hostile = format!("9\u{1b}[2J{}", "x".repeat(100_000));
    let message = error(&arrow(&[("portchurn.version", &hostile)])).to_string();
    assert!(message.len() < 120 && !message.contains(char::is_control), "quoted and cut: {message}");
    // A recording that another program has read and written again: it keeps the metadata and loses the checksums.
    for version in 1..=VERSION {
        assert!(matches!(error(&arrow(&[("portchurn.version", &version.to_string())])), ReadError::Unverifiable));
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_was_deleted_is_not_written_in_vain_for_long() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut file = create(&dir.path().join("gone.arrow"), false).expect("a file");
    file.sync().expect("it is there");
    dir.close().expect("removed");
    let error = file.sync().expect_err("it has no name any more");
    assert!(error.to_string().contains("deleted"), "{error}");
}

#[test]
fn positions_are_found_without_reading_and_reading_goes_on_from_there() {
    let second = |second: u64| TrackerStep::Advance(Ktime(second * 1_000_000_000));
    let steps: Vec<TrackerStep> = (0..10).map(second).collect();
    let mut reader = Reader::open(Cursor::new(write(&steps, 3))).expect("a recording");
    let index = reader.batch_index().expect("in memory");
    let positions = index.batches.clone();
    assert_eq!(positions.iter().map(|place| place.rows).collect::<Vec<_>>(), [3, 3, 3, 1]);
    assert_eq!((positions[1].first, positions[1].last), (Ktime(3_000_000_000), Ktime(5_000_000_000)));
    reader.go_to(&index, &positions[2]).expect("in memory");
    assert_eq!(reader.next_step().expect("in memory"), Some(second(6)));
    reader.go_to(&index, &positions[0]).expect("in memory");
    assert_eq!(reader.next_step().expect("in memory"), Some(second(0)));
}

fn list(rows: usize) -> TrackerStep {
    let endpoint = |port| Endpoint { addr: Addr::UNSPECIFIED, port };
    let row = SocketRow {
        sock: 0,
        cookie: SocketCookie::new(7),
        key: FlowKey { netns: Netns::of_inode(1), device: 0, local: endpoint(1), remote: endpoint(2) },
        state: TcpState::Established,
        minisocket: false,
        remaining: None,
        owner: Some(3),
        named: None,
        closed: None,
        timestamps: None,
        has_descriptor: None,
        queue: None,
    };
    let (netns, began, ended) = (Netns::of_inode(1), Ktime(1), Ktime(2));
    TrackerStep::Event(Event::Baseline(Baseline { netns, began, ended, initial: true, rows: vec![row; rows].into() }))
}

#[test]
fn a_list_of_more_sockets_than_a_batch_holds_stays_one() {
    let list = list(BATCH_ROWS + 5);
    let bytes = write(std::slice::from_ref(&list), 1);
    assert_eq!(read(&bytes).expect("a recording").0, [list]);
}

/// The memory of a flight recorder may begin in the middle of a list.
#[test]
fn the_rest_of_an_earlier_list_is_passed_over_without_a_word() {
    let header = RecordingHeader { continued: true, ..header() };
    let mut packer = writer::Packer::new(&header).expect("a header");
    packer.step(&list(BATCH_ROWS + 5), |_| Ok(())).expect("in memory");
    packer.step(&list(2), |_| Ok(())).expect("in memory");
    let rest = packer.flush().expect("in memory").expect("the rest");
    let schema_message = packer.schema_message(&header).expect("a header");
    let mut output =
        writer::RecordingFile::begin(Cursor::new(Vec::new()), schema_message, &mut packer).expect("in memory");
    output.batch(&rest).expect("in memory");
    let bytes = output.finish(&mut packer).expect("in memory").1.into_inner();
    assert_eq!(read(&bytes).expect("a recording"), (vec![list(2)], None));
}

/// The end of a socket that was connected to a server of its own.
fn towards(number: u32) -> TrackerStep {
    let client = Endpoint { addr: Addr::from(std::net::IpAddr::from([10, 0, 0, 1])), port: 40_000 };
    let server = Endpoint { addr: Addr::from(std::net::IpAddr::from((0x0b00_0000 + number).to_be_bytes())), port: 443 };
    TrackerStep::Event(Event::Released(SocketEvent {
        ktime: Ktime(5_000_000_000 + u64::from(number)),
        id: SocketId { cookie: SocketCookie::new(u64::from(number) + 1), sock: 0 },
        key: FlowKey { netns: Netns::of_inode(1), device: 0, local: client, remote: server },
        pid: 7,
        tid: 7,
        named: None,
        listener: None,
    }))
}

/// A batch may use addresses that any batch before it has added.
#[test]
fn batches_are_read_out_of_turn_with_the_addresses_of_those_before() {
    let steps: Vec<TrackerStep> = [0, 1, 2, 0, 3, 1, 4, 2, 0].map(towards).into();
    let bytes = write(&steps, 3);
    assert_eq!(read(&bytes).expect("a recording"), (steps.clone(), None));
    let mut reader = Reader::open(Cursor::new(&bytes)).expect("a recording");
    let index = reader.batch_index().expect("in memory");
    let positions = index.batches.clone();
    assert_eq!(positions.len(), 3);
    for (place, batch) in positions.iter().zip(steps.chunks(3)).rev() {
        assert_eq!(reader.steps_of(&index, place).expect("in memory"), batch);
    }
    reader.go_to(&index, &positions[1]).expect("in memory");
    let mut rest = Vec::new();
    while let Some(step) = reader.next_step().expect("in memory") {
        rest.push(step);
    }
    assert_eq!((&rest[..], reader.damage()), (&steps[3..], None));
    // A program that begins with the footer finds one whole dictionary.
    let whole = arrow_ipc::reader::FileReader::try_new(Cursor::new(&bytes), None).expect("a file for everybody");
    let batches: Vec<_> = whole.map(|batch| batch.expect("a batch")).collect();
    let column = batches[2].column_by_name(schema::column::REMOTE_ADDR).expect("a column");
    let texts = arrow_array::cast::AsArray::as_dictionary::<arrow_array::types::UInt32Type>(column);
    let texts = texts.downcast_dict::<arrow_array::StringArray>().expect("texts");
    let texts: Vec<_> = texts.into_iter().collect();
    assert_eq!(texts, [Some("11.0.0.4"), Some("11.0.0.2"), Some("11.0.0.0")]);
}

/// A flight recorder holds batches, drops the oldest, writes the rest into a file, and adds later batches.
#[test]
fn batches_that_were_packed_before_their_file_began_find_their_addresses() {
    let mut packer = writer::Packer::new(&header()).expect("a header");
    let pack = |packer: &mut writer::Packer, numbers: [u32; 2]| {
        for number in numbers {
            packer.step(&towards(number), |_| Ok(())).expect("in memory");
        }
        packer.flush().expect("in memory").expect("a batch")
    };
    let held = [[0, 1], [1, 2], [3, 0]].map(|numbers| pack(&mut packer, numbers));
    let schema_message = packer.schema_message(&header()).expect("a header");
    let mut output =
        writer::RecordingFile::begin(Cursor::new(Vec::new()), schema_message, &mut packer).expect("in memory");
    for packed in &held[1..] {
        output.batch(packed).expect("in memory");
    }
    output.batch(&pack(&mut packer, [4, 2])).expect("in memory");
    output.batch(&pack(&mut packer, [5, 4])).expect("in memory");
    let bytes = output.finish(&mut packer).expect("in memory").1.into_inner();
    let expected: Vec<TrackerStep> = [1, 2, 3, 0, 4, 2, 5, 4].map(towards).into();
    assert_eq!(read(&bytes).expect("a recording"), (expected, None));
}

#[test]
fn more_addresses_than_a_file_lists_are_kept_all_the_same() {
    let most = u32::try_from(MAX_ADDRESSES).expect("small");
    let mut steps: Vec<TrackerStep> = (0..most + 3).map(towards).collect();
    let Some(TrackerStep::Event(Event::Released(last))) = steps.last().cloned() else { panic!("no socket") };
    steps.push(TrackerStep::Event(Event::CallFailed(Box::new(CallFailed {
        ktime: last.ktime,
        entered: last.ktime,
        id: last.id,
        netns: last.key.netns,
        caller: Caller { pid: 7, tid: 7, cgroup: CgroupId(0) },
        comm: "client".into(),
        call: Call::Connect,
        errno: 99,
        target: Some(last.key.remote),
        local: last.key.local,
        device: 0,
        own_range: None,
    }))));
    let bytes = write(&steps, usize::MAX);
    let (back, damage) = read(&bytes).expect("a recording");
    assert!(back == steps, "the first that differs: {:?}", back.iter().zip(&steps).find(|(a, b)| a != b));
    assert_eq!(damage, None);
}

/// A disk that is full after this many bytes.
struct Small(Cursor<Vec<u8>>, u64);

impl std::io::Write for Small {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let room = usize::try_from(self.1.saturating_sub(self.0.position())).expect("small");
        match bytes.len().min(room) {
            0 if !bytes.is_empty() => Err(std::io::ErrorKind::StorageFull.into()),
            fits => self.0.write(&bytes[..fits]),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl std::io::Seek for Small {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        self.0.seek(to)
    }
}

impl writer::Sink for Small {
    fn truncate(&mut self, length: u64) -> std::io::Result<()> {
        self.0.truncate(length)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_leaves_a_whole_file() {
    let steps: Vec<TrackerStep> = (0..40).map(|second| TrackerStep::Advance(Ktime(second * 1_000_000_000))).collect();
    let whole = write(&steps, 4).len() as u64;
    let mut packer = writer::Packer::new(&header()).expect("a header");
    let schema_message = packer.schema_message(&header()).expect("a header");
    let least = writer::RecordingFile::begin(Cursor::new(Vec::new()), schema_message, &mut packer)
        .expect("in memory")
        .written()
        .bytes;
    for room in (least..whole).step_by(97) {
        let schema_message = packer.schema_message(&header()).expect("a header");
        let mut output =
            writer::RecordingFile::begin(Small(Cursor::new(Vec::new()), room), schema_message, &mut packer)
                .expect("room");
        let mut full = false;
        for chunk in steps.chunks(4) {
            for step in chunk {
                packer.step(step, |_| Ok(())).expect("in memory");
            }
            let packed = packer.flush().expect("in memory").expect("a batch");
            full = full || output.batch(&packed).is_err();
            if full {
                break;
            }
        }
        let Ok((written, sink)) = output.finish(&mut packer) else { continue };
        let bytes = sink.0.into_inner();
        assert_eq!(written.bytes, bytes.len() as u64);
        let (back, damage) = read(&bytes).expect("a recording");
        assert_eq!((damage, back.len() as u64), (None, written.batches * 4), "{room}");
        arrow_ipc::reader::FileReader::try_new(Cursor::new(bytes), None).expect("a file for everybody");
    }
}

/// The samples of a released version are never written again (`examples/recording_samples.rs` wrote these).
#[test]
fn samples_of_every_version_are_read_as_they_were_written() {
    assert_samples(
        include_bytes!("../samples/v1/clean.arrow"),
        include_bytes!("../samples/v1/truncated.arrow"),
        include_bytes!("../samples/v1/loss.arrow"),
    );
    assert_samples(
        include_bytes!("../samples/v2/clean.arrow"),
        include_bytes!("../samples/v2/truncated.arrow"),
        include_bytes!("../samples/v2/loss.arrow"),
    );
    assert_samples(
        include_bytes!("../samples/v3/clean.arrow"),
        include_bytes!("../samples/v3/truncated.arrow"),
        include_bytes!("../samples/v3/loss.arrow"),
    );
    assert_samples(
        include_bytes!("../samples/v4/clean.arrow"),
        include_bytes!("../samples/v4/truncated.arrow"),
        include_bytes!("../samples/v4/loss.arrow"),
    );
}

/// A reader needs all columns of the file's version: taking one away, or renaming it, takes a new version. Adding one
/// does not.
#[test]
fn what_is_written_has_all_columns_of_its_version() {
    let sample = Reader::open(&include_bytes!("../samples/v4/clean.arrow")[..]).expect("a recording");
    let written = write(&[], 1);
    let written = Reader::open(&written[..]).expect("a recording");
    assert_eq!(sample.schema().metadata().get("portchurn.version"), Some(&VERSION.to_string()), "the newest samples");
    for field in sample.schema().fields() {
        assert_eq!(written.schema().field_with_name(field.name()).ok(), Some(field.as_ref()), "{field}");
    }
}

fn assert_samples(clean: &[u8], truncated: &[u8], lossy: &[u8]) {
    let clean = read(clean).expect("a recording");
    assert_eq!(clean.1, None);
    let count = |steps: &[TrackerStep], wanted: fn(&Event) -> bool| {
        steps.iter().filter(|step| matches!(step, TrackerStep::Event(event) if wanted(event))).count()
    };
    let kinds = |steps: &[TrackerStep]| {
        [
            count(steps, |event| matches!(event, Event::Transition(_))),
            count(steps, |event| matches!(event, Event::TimeWaitStart(_))),
            count(steps, |event| matches!(event, Event::Accepted(_))),
            count(steps, |event| matches!(event, Event::Process(_))),
        ]
    };
    assert_eq!(kinds(&clean.0), [450, 50, 50, 2]);
    let Some(TrackerStep::Event(Event::Transition(first))) =
        clean.0.iter().find(|step| matches!(step, TrackerStep::Event(Event::Transition(_))))
    else {
        panic!("no transition")
    };
    assert_eq!((first.old, first.new, first.key.local.port), (TcpState::Close, TcpState::SynSent, 0));
    assert_eq!(first.key.remote.to_string(), "10.66.0.2:8443");
    assert_eq!(first.id.cookie, SocketCookie::new(1));
    assert_eq!(first.caller.map(|caller| caller.pid), Some(4_242));

    let (truncated, damage) = read(truncated).expect("a recording");
    assert_eq!(without_mask(truncated.clone())[..], without_mask(clean.0.clone())[..truncated.len()]);
    assert!(truncated.len() > 100 && damage.is_some_and(|damage| damage.bytes > 0), "{}", truncated.len());

    let (lossy, damage) = read(lossy).expect("a recording");
    assert_eq!(damage, None);
    let Some(TrackerStep::Event(Event::Loss(loss))) = lossy.last() else { panic!("no loss") };
    assert_eq!((loss.ring_transitions, loss.recorder), (90, 3));
    assert!(kinds(&lossy)[0] < 450);
}

/// The corpus has the inputs on which the fuzzer once made the reader panic, and seeds: each yields steps or an error.
#[test]
fn the_fuzzer_s_corpus_is_read_to_the_end() -> Result<(), Box<dyn std::error::Error>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/frames");
    for entry in fs::read_dir(corpus)? {
        let bytes = fs::read(entry?.path())?;
        let (mut messages, mut rest) = (Vec::new(), bytes.as_slice());
        while let Some((&[a, b, c, d], tail)) = rest.split_first_chunk::<4>() {
            let (metadata, tail) = tail.split_at(usize::from(u16::from_le_bytes([a, b])).min(tail.len()));
            let (body, tail) = tail.split_at(usize::from(u16::from_le_bytes([c, d])).min(tail.len()));
            messages.push((metadata, body));
            rest = tail;
        }
        if let Ok(mut reader) = Reader::open(Cursor::new(seal_for_tests(&messages))) {
            while let Ok(Some(_)) = reader.next_step() {}
        }
    }
    Ok(())
}
