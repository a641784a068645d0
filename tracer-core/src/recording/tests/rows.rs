//! Rows that depend on others of their batch, and rows that make no sense.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::UInt32Type;
use arrow_array::{ArrayRef, RecordBatch, new_null_array};
use arrow_schema::{DataType, Field, Schema};

use super::super::column_readers::AddressLists;
use super::super::decode::Decoder;
use super::super::encode::Encoder;
use super::super::schema;
use super::super::schema::column;
use super::*;
use crate::step::TrackerStep;

/// Up to Linux 6.12 the socket of a new connection has its listener's cookie for a while, so several sockets have one
/// cookie.
#[test]
fn a_row_does_not_get_the_address_of_another_socket_with_its_cookie() {
    // Cookies a power of two apart share a slot in the writer's memory of addresses.
    let other = 1 + (1 << 20);
    let sockets =
        [(1, 10), (1, 10), (1, 20), (1, 10), (other, 30), (1, 10), (other, 10), (1, 20), (1, 0), (0, 10), (1, 0)];
    let search = |(cookie, sock)| {
        let id = SocketId { cookie: SocketCookie::new(cookie), sock };
        TrackerStep::Event(Event::PortSearch(PortSearch { ktime: Ktime(5_000_000_000), id, nanos: 1 }))
    };
    let steps: Vec<TrackerStep> = sockets.map(search).into();
    for batch in 1..=steps.len() {
        let (back, damage) = read(&write(&steps, batch)).expect("a recording");
        assert_eq!((without_mask(back), damage), (without_mask(steps.clone()), None), "batches of {batch}");
    }
}

/// The program that wrote an intact batch may have been wrong.
#[test]
fn a_transition_without_what_it_needs_is_counted_and_left_out() {
    let end = |port| Endpoint { addr: Addr::from(std::net::IpAddr::from([10, 0, 0, 1])), port };
    let transition = Transition {
        ktime: Ktime(5_000_000_000),
        id: SocketId { cookie: SocketCookie::new(1), sock: 10 },
        key: FlowKey { netns: Netns::of_inode(1), device: 0, local: end(40_000), remote: end(443) },
        last_port: 40_000,
        own_range: None,
        old: TcpState::SynSent,
        new: TcpState::Established,
        sk_err: 0,
        shutdown: false,
        caller: None,
        current_tid: 7,
        rescued: false,
        classic: false,
    };
    let schema = schema::schema(HashMap::new());
    let mut encoder = Encoder::new(0);
    for step in [TrackerStep::Event(Event::Transition(transition)), TrackerStep::Advance(Ktime(6_000_000_000))] {
        encoder.step(&step, |_| Ok::<(), ()>(())).expect("room");
    }
    let (batch, _) = encoder.batch(&schema).expect("a batch");
    let decoded = |batch: &RecordBatch| {
        let mut decoder = Decoder::new(0, false);
        let (batch, lists) = as_read(batch);
        assert!(decoder.feed(&batch, lists));
        (std::iter::from_fn(|| decoder.next()).count(), decoder.bad_rows)
    };
    assert_eq!(decoded(&batch), (2, 0));
    for missing in [
        column::LOCAL_ADDR,
        column::LOCAL_PORT,
        column::REMOTE_ADDR,
        column::REMOTE_PORT,
        column::OLD_STATE,
        column::NEW_STATE,
        column::TID,
    ] {
        let mut columns = batch.columns().to_vec();
        let place = schema.index_of(missing).expect("a column");
        columns[place] = new_null_array(columns[place].data_type(), 2);
        let without = RecordBatch::try_new(Arc::clone(&schema), columns).expect("a batch");
        assert_eq!(decoded(&without), (1, 1), "without {missing}");
    }
}

/// The batch as a reader has it: indexes in place of addresses, and the lists of these.
fn as_read(batch: &RecordBatch) -> (RecordBatch, AddressLists) {
    let mut lists = AddressLists::default();
    let mut columns: Vec<ArrayRef> = Vec::new();
    let schema = batch.schema();
    let fields = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        let Some(listed) = column.as_dictionary_opt::<UInt32Type>() else {
            columns.push(Arc::clone(column));
            return Arc::clone(field);
        };
        let list = if field.name() == column::LOCAL_ADDR { &mut lists.local } else { &mut lists.remote };
        Arc::make_mut(list).extend(listed.values().as_string::<i32>());
        columns.push(Arc::new(listed.keys().clone()));
        Arc::new(Field::new(field.name(), DataType::UInt32, true))
    });
    let schema = Schema::new(fields.collect::<Vec<_>>());
    (RecordBatch::try_new(Arc::new(schema), columns).expect("a batch"), lists)
}
