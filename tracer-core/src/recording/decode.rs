//! Decodes rows of every version into steps: the reading half of the format.
//!
//! The checksum of a row's frame was right, but the program that wrote it may be wrong: a row that makes no sense is
//! counted and left out. Not for: bytes, which `message` turns into arrays.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array as _, RecordBatch, StringArray};
use arrow_buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use rustc_hash::FxHashMap;
use serde::de::DeserializeOwned;

use super::column_readers::{AddressLists, AddressReader, AnswerReader, EnumReader, NumberReader};
use super::enums::{RowKind, state_from_name};
use super::{MAX_SOCKETS, detail, schema::column};
use crate::errno;
use crate::event::{
    Baseline, Call, CallFailed, Caller, CgroupId, Endpoint, Event, FlowKey, Ktime, LossCounts, Netns, NetnsFacts,
    PortSearch, ProcessFacts, SocketCookie, SocketEvent, SocketId, SocketRow, TcpState, TimeWaitEvent, Transition,
};
use crate::foreign_text;
use crate::step::TrackerStep;

/// The columns of one batch.
struct Columns {
    time: ScalarBuffer<i64>,
    kind: EnumReader<RowKind>,
    netns: NumberReader<u32>,
    netns_cookie: NumberReader<u32>,
    device: NumberReader<u32>,
    local_addr: AddressReader,
    local_port: NumberReader<u16>,
    remote_addr: AddressReader,
    remote_port: NumberReader<u16>,
    /// The rows that have all five columns of a flow's key; `None` is all rows. One check instead of five.
    keyed: Option<NullBuffer>,
    old_state: EnumReader<TcpState>,
    new_state: EnumReader<TcpState>,
    /// The rows that have the other columns of a transition; `None` is all rows.
    moved: Option<NullBuffer>,
    errno: StringArray,
    comm: StringArray,
    pid: NumberReader<u32>,
    tid: NumberReader<u32>,
    cgroup: NumberReader<u64>,
    cookie: NumberReader<u64>,
    sock: NumberReader<u64>,
    /// Masked address of each socket as of its last row in this batch.
    latest_socks: FxHashMap<SocketCookie, u64>,
    listener_cookie: NumberReader<u64>,
    listener_sock: NumberReader<u64>,
    last_port: NumberReader<u16>,
    took: NumberReader<u64>,
    remaining: NumberReader<u64>,
    shutdown: BooleanBuffer,
    rescued: BooleanBuffer,
    classic: BooleanBuffer,
    expired: BooleanBuffer,
    fin_wait2: BooleanBuffer,
    minisocket: BooleanBuffer,
    named: AnswerReader,
    closed: AnswerReader,
    has_descriptor: AnswerReader,
    timestamps: AnswerReader,
    detail: StringArray,
}

impl Columns {
    /// `None` if a column is missing or of another type. Unknown columns are ignored.
    fn new(batch: &RecordBatch, lists: AddressLists, latest_socks: FxHashMap<SocketCookie, u64>) -> Option<Self> {
        fn numbers<T>(batch: &RecordBatch, name: &str) -> Option<NumberReader<T::Native>>
        where
            T: arrow_array::ArrowPrimitiveType,
        {
            let array = batch.column_by_name(name)?.as_primitive_opt::<T>()?;
            Some(NumberReader { values: array.values().clone(), nulls: array.nulls().cloned() })
        }
        /// Of a column that versions 1 to 3 lack.
        fn added<T>(batch: &RecordBatch, name: &str) -> Option<NumberReader<T::Native>>
        where
            T: arrow_array::ArrowPrimitiveType,
        {
            if batch.column_by_name(name).is_none() { Some(NumberReader::absent()) } else { numbers::<T>(batch, name) }
        }
        fn names<W>(batch: &RecordBatch, name: &str, parse: impl Fn(&str) -> Option<W>) -> Option<EnumReader<W>> {
            let array = batch.column_by_name(name)?.as_dictionary_opt::<UInt8Type>()?;
            let names = array.values().as_string_opt::<i32>()?;
            let keys = NumberReader { values: array.keys().values().clone(), nulls: array.keys().nulls().cloned() };
            Some(EnumReader { keys, values: names.iter().map(|name| parse(name?)).collect() })
        }
        let texts = |name: &str| batch.column_by_name(name)?.as_string_opt::<i32>().cloned();
        let flags = |name: &str| Some(batch.column_by_name(name)?.as_boolean_opt()?.values().clone());
        let answers = |name: &str| {
            let Some(column) = batch.column_by_name(name) else {
                return Some(AnswerReader { values: BooleanBuffer::new_unset(0), nulls: None });
            };
            let array = column.as_boolean_opt()?;
            Some(AnswerReader { values: array.values().clone(), nulls: array.nulls().cloned() })
        };
        let netns = numbers::<UInt32Type>(batch, column::NETNS)?;
        let local_addr = AddressReader::new(batch.column_by_name(column::LOCAL_ADDR)?, lists.local)?;
        let local_port = numbers::<UInt16Type>(batch, column::LOCAL_PORT)?;
        let remote_addr = AddressReader::new(batch.column_by_name(column::REMOTE_ADDR)?, lists.remote)?;
        let remote_port = numbers::<UInt16Type>(batch, column::REMOTE_PORT)?;
        let of_key = [
            netns.nulls.as_ref(),
            local_addr.nulls(),
            local_port.nulls.as_ref(),
            remote_addr.nulls(),
            remote_port.nulls.as_ref(),
        ];
        let keyed = NullBuffer::union_many(of_key);
        let old_state = names(batch, column::OLD_STATE, state_from_name)?;
        let new_state = names(batch, column::NEW_STATE, state_from_name)?;
        let tid = numbers::<UInt32Type>(batch, column::TID)?;
        let of_move = [&old_state.keys.nulls, &new_state.keys.nulls, &tid.nulls];
        let moved = NullBuffer::union_many(of_move.map(Option::as_ref));
        Some(Self {
            time: batch.column_by_name(column::TIME)?.as_primitive_opt::<TimestampNanosecondType>()?.values().clone(),
            kind: names(batch, column::KIND, |name| name.parse().ok())?,
            netns,
            netns_cookie: added::<UInt32Type>(batch, column::NETNS_COOKIE)?,
            device: added::<UInt32Type>(batch, column::DEVICE)?,
            local_addr,
            local_port,
            remote_addr,
            remote_port,
            keyed,
            old_state,
            new_state,
            moved,
            errno: texts(column::ERRNO)?,
            comm: texts(column::COMM)?,
            pid: numbers::<UInt32Type>(batch, column::PID)?,
            tid,
            cgroup: numbers::<UInt64Type>(batch, column::CGROUP)?,
            cookie: numbers::<UInt64Type>(batch, column::COOKIE)?,
            sock: numbers::<UInt64Type>(batch, column::SOCK)?,
            latest_socks,
            listener_cookie: added::<UInt64Type>(batch, column::LISTENER_COOKIE)?,
            listener_sock: added::<UInt64Type>(batch, column::LISTENER_SOCK)?,
            last_port: numbers::<UInt16Type>(batch, column::LAST_PORT)?,
            took: numbers::<UInt64Type>(batch, column::TOOK_NS)?,
            remaining: numbers::<UInt64Type>(batch, column::REMAINING_NS)?,
            shutdown: flags(column::SHUTDOWN)?,
            rescued: flags(column::RESCUED)?,
            classic: flags(column::CLASSIC)?,
            expired: flags(column::EXPIRED)?,
            fin_wait2: flags(column::FIN_WAIT2)?,
            minisocket: flags(column::MINISOCKET)?,
            named: answers(column::NAMED)?,
            closed: answers(column::CLOSED)?,
            has_descriptor: answers(column::HAS_DESCRIPTOR)?,
            timestamps: answers(column::TIMESTAMPS)?,
            detail: texts(column::DETAIL)?,
        })
    }
}

/// A list of sockets of which rows are still missing.
struct OpenSocketList {
    netns: Netns,
    began: Ktime,
    ended: Ktime,
    initial: bool,
    expected: u64,
    rows: Vec<SocketRow>,
    /// An address of one of its sockets could not be read.
    lost: bool,
}

/// The outcome of one row.
enum DecodedRow {
    /// The row, or the list that it completes, is this step.
    Step(TrackerStep),
    /// The row is part of a list of sockets that is not complete yet.
    Incomplete,
    /// The row makes no sense.
    Invalid,
}

/// Turns batches into steps, one after the other.
pub struct Decoder {
    /// `time` minus this is `CLOCK_MONOTONIC`, in nanoseconds.
    offset: i64,
    columns: Option<Columns>,
    /// Empty; its capacity is reused, while `columns` is `None`.
    latest_socks: FxHashMap<SocketCookie, u64>,
    row: usize,
    rows: usize,
    open: Option<OpenSocketList>,
    /// The file begins in the middle of a trace and no list has begun yet: rows of sockets are the rest of a list that
    /// an earlier file began, and are left out.
    adrift: bool,
    /// Rows so far that were read and are of no use, because something else that they need could not be read.
    pub lost_rows: u64,
    /// Part of the file could not be read: rows that are passed over are lost.
    damaged: bool,
    /// Rows that made no sense so far: their kind is unknown to this version, or they lack a value that their kind
    /// needs.
    pub bad_rows: u64,
}

impl Decoder {
    /// `offset` plus `CLOCK_MONOTONIC` is wall time, in nanoseconds; `continued` is
    /// [`super::RecordingHeader::continued`].
    pub fn new(offset: i64, continued: bool) -> Self {
        Self {
            offset,
            columns: None,
            latest_socks: FxHashMap::default(),
            row: 0,
            rows: 0,
            open: None,
            adrift: continued,
            lost_rows: 0,
            damaged: false,
            bad_rows: 0,
        }
    }

    /// Takes the next batch, with the addresses that its rows may refer to; rows that are left of the one before are dropped. False if the batch lacks a
    /// column of its version.
    pub fn feed(&mut self, batch: &RecordBatch, lists: AddressLists) -> bool {
        self.release();
        self.columns = Columns::new(batch, lists, std::mem::take(&mut self.latest_socks));
        (self.row, self.rows) = (0, batch.num_rows());
        self.columns.is_some()
    }

    /// Drops the batch.
    fn release(&mut self) {
        if let Some(columns) = self.columns.take() {
            self.latest_socks = columns.latest_socks;
            self.latest_socks.clear();
        }
    }

    /// Drops the batch and the incomplete list, before reading goes on at another position.
    pub fn reset(&mut self) {
        self.release();
        (self.open, self.row, self.rows) = (None, 0, 0);
    }

    /// Rows are missing between the last batch and the next: an incomplete list stays so.
    pub fn interrupt(&mut self) {
        self.damaged = true;
        if let Some(open) = self.open.take() {
            self.lost_rows += open.rows.len() as u64 + 1;
        }
        self.adrift = true;
    }

    /// All rows of the batch have been returned as steps, and no list goes on in the next batch.
    pub fn is_used_up(&self) -> bool {
        self.row >= self.rows && self.open.is_none()
    }

    /// The next step; `None` when the batch is used up.
    pub fn next(&mut self) -> Option<TrackerStep> {
        let Self { offset, columns: Some(columns), row, rows, open, adrift, bad_rows, lost_rows, damaged, .. } = self
        else {
            return None;
        };
        while *row < *rows {
            let at = *row;
            *row += 1;
            let kind = columns.kind.get(at);
            *adrift &= kind != Some(RowKind::Baseline);
            if *adrift && kind == Some(RowKind::Socket) {
                *lost_rows += u64::from(*damaged);
                continue;
            }
            if kind != Some(RowKind::Socket)
                && let Some(open) = open.take()
            {
                // The list's rows ended early. With half a list the tracker would take every missing socket for closed.
                *if open.lost { &mut *lost_rows } else { &mut *bad_rows } += open.rows.len() as u64 + 1;
            }
            match columns.decode(open, *offset, kind, at) {
                DecodedRow::Step(step) => return Some(step),
                DecodedRow::Incomplete => {}
                DecodedRow::Invalid if columns.addresses_are_lost(at) => {
                    *lost_rows += 1;
                    if let Some(open) = open {
                        open.lost = true;
                    }
                }
                DecodedRow::Invalid => *bad_rows += 1,
            }
        }
        // The addresses are free to be added to.
        self.release();
        None
    }
}

/// The list as a step once it has all its sockets.
fn close(list: &mut Option<OpenSocketList>) -> DecodedRow {
    let Some(open) = list.take_if(|open| open.rows.len() as u64 == open.expected) else {
        return DecodedRow::Incomplete;
    };
    DecodedRow::Step(TrackerStep::Event(Event::Baseline(Baseline {
        netns: open.netns,
        began: open.began,
        ended: open.ended,
        initial: open.initial,
        rows: open.rows.into(),
    })))
}

impl Columns {
    fn decode(
        &mut self,
        open: &mut Option<OpenSocketList>,
        offset: i64,
        kind: Option<RowKind>,
        row: usize,
    ) -> DecodedRow {
        let (Some(kind), Some(&time)) = (kind, self.time.get(row)) else { return DecodedRow::Invalid };
        let ktime = Ktime(time.wrapping_sub(offset).cast_unsigned());
        let event = match kind {
            RowKind::Tick => return DecodedRow::Step(TrackerStep::Advance(ktime)),
            RowKind::Skipped => {
                let skipped = self.detail::<detail::SkippedDetail>(row);
                return skipped
                    .map_or(DecodedRow::Invalid, |skipped| DecodedRow::Step(TrackerStep::Skipped(skipped.records)));
            }
            RowKind::Baseline => return self.begin_list(open, ktime, row),
            RowKind::Socket => return self.list_socket(open, row),
            RowKind::Transition => self.transition(ktime, row).map(Event::Transition),
            RowKind::TimeWaitStart => self.time_wait(ktime, row).map(Event::TimeWaitStart),
            RowKind::TimeWaitEnd => self.time_wait(ktime, row).map(Event::TimeWaitEnd),
            RowKind::TimeWaitListed => self.time_wait(ktime, row).map(Event::TimeWaitListed),
            RowKind::ConnectFailed => self.call_failed(Call::Connect, ktime, row),
            RowKind::BindFailed => self.call_failed(Call::Bind, ktime, row),
            RowKind::ListenFailed => self.call_failed(Call::Listen, ktime, row),
            RowKind::Accepted => self.socket_event(ktime, row).map(Event::Accepted),
            RowKind::Bound => self.socket_event(ktime, row).map(Event::Bound),
            RowKind::Released => self.socket_event(ktime, row).map(Event::Released),
            RowKind::Process => self.process(ktime, row),
            RowKind::Netns => self.limits(ktime, row),
            RowKind::PortSearch => {
                self.took.get(row).map(|nanos| Event::PortSearch(PortSearch { ktime, id: self.id(row), nanos }))
            }
            RowKind::ReservedPorts => self
                .detail_up_to::<detail::ReservedPortsDetail>(row, detail::MAX_PORT_LIST)
                .and_then(|detail| detail.ports())
                .map(|ports| Event::ReservedPorts(ktime, self.netns(row), ports)),
            RowKind::Loss => self
                .detail::<detail::LossDetail>(row)
                .map(|detail| Event::Loss(detail.complete(LossCounts { ktime, ..LossCounts::default() }))),
        };
        event.map_or(DecodedRow::Invalid, |event| DecodedRow::Step(TrackerStep::Event(event)))
    }

    fn begin_list(&self, list: &mut Option<OpenSocketList>, ended: Ktime, row: usize) -> DecodedRow {
        let Some(detail) = self.detail::<detail::BaselineDetail>(row).filter(|detail| detail.sockets <= MAX_SOCKETS)
        else {
            return DecodedRow::Invalid;
        };
        *list = Some(OpenSocketList {
            netns: self.netns(row),
            began: Ktime(detail.began_ns),
            ended,
            initial: detail.initial,
            expected: detail.sockets,
            rows: Vec::new(),
            lost: false,
        });
        close(list)
    }

    fn list_socket(&mut self, list: &mut Option<OpenSocketList>, row: usize) -> DecodedRow {
        let Some(open) = list else { return DecodedRow::Invalid };
        let (Some(key), Some(state)) = (self.key(row), self.new_state.get(row)) else { return DecodedRow::Invalid };
        open.rows.push(SocketRow {
            cookie: self.cookie.get(row).and_then(SocketCookie::new),
            sock: self.sock.get(row).unwrap_or_default(),
            key,
            state,
            minisocket: self.minisocket.value(row),
            remaining: self.remaining.get(row),
            owner: self.pid.get(row),
            named: self.named.get(row),
            closed: self.closed.get(row),
            timestamps: self.timestamps.get(row),
            queue: self.detail::<detail::ListenerDetail>(row).and_then(|detail| detail.queue()),
            has_descriptor: self.has_descriptor.get(row),
        });
        close(list)
    }
}

impl Columns {
    fn netns(&self, row: usize) -> Netns {
        Netns { inode: self.netns.get(row).unwrap_or_default(), cookie: self.netns_cookie.get(row).unwrap_or_default() }
    }

    fn addresses_are_lost(&self, row: usize) -> bool {
        self.local_addr.is_lost(row) || self.remote_addr.is_lost(row)
    }

    #[inline]
    fn device(&self, row: usize) -> u32 {
        self.device.get(row).unwrap_or_default()
    }

    fn own_range(&self, row: usize) -> Option<(u16, u16)> {
        self.detail::<detail::OwnRangeDetail>(row)?.own_range
    }

    fn detail<T: DeserializeOwned>(&self, row: usize) -> Option<T> {
        self.detail_up_to(row, foreign_text::MAX_BYTES)
    }

    /// The detail of `row`, each text of it cut at `most` bytes.
    fn detail_up_to<T: DeserializeOwned>(&self, row: usize, most: usize) -> Option<T> {
        if self.detail.is_null(row) { None } else { foreign_text::from_json(self.detail.value(row), most).ok() }
    }

    fn text(array: &StringArray, row: usize) -> Option<Cow<'_, str>> {
        if array.is_null(row) { None } else { Some(foreign_text::clean(array.value(row))) }
    }

    #[inline]
    fn key(&mut self, row: usize) -> Option<FlowKey> {
        if self.keyed.as_ref().is_some_and(|keyed| keyed.is_null(row)) {
            return Some(FlowKey {
                netns: self.netns(row),
                device: self.device(row),
                local: self.local(row)?,
                remote: self.remote(row)?,
            });
        }
        Some(FlowKey {
            netns: Netns {
                inode: *self.netns.values.get(row)?,
                cookie: self.netns_cookie.get(row).unwrap_or_default(),
            },
            device: self.device(row),
            local: Endpoint { addr: self.local_addr.at(row)?, port: *self.local_port.values.get(row)? },
            remote: Endpoint { addr: self.remote_addr.at(row)?, port: *self.remote_port.values.get(row)? },
        })
    }

    fn local(&mut self, row: usize) -> Option<Endpoint> {
        let addr = self.local_addr.get(row).or_else(|| self.overflow_addresses(row)?.local())?;
        Some(Endpoint { addr, port: self.local_port.get(row)? })
    }

    fn remote(&mut self, row: usize) -> Option<Endpoint> {
        let addr = self.remote_addr.get(row).or_else(|| self.overflow_addresses(row)?.remote())?;
        Some(Endpoint { addr, port: self.remote_port.get(row)? })
    }

    /// Addresses of `row` that did not fit into the dictionaries of their columns.
    fn overflow_addresses(&self, row: usize) -> Option<detail::OverflowAddresses> {
        self.detail(row)
    }

    #[inline]
    fn id(&mut self, row: usize) -> SocketId {
        let cookie = self.cookie.get(row).and_then(SocketCookie::new);
        let sock = match (cookie, self.sock.get(row)) {
            (None, sock) => sock.unwrap_or_default(),
            (Some(cookie), Some(sock)) => {
                self.latest_socks.insert(cookie, sock);
                sock
            }
            (Some(cookie), None) => self.latest_socks.get(&cookie).copied().unwrap_or_default(),
        };
        SocketId { cookie, sock }
    }

    /// The errno of `row`, 0 if it has none; `None` if the text is no errno.
    fn errno(&self, row: usize) -> Option<u16> {
        Self::text(&self.errno, row).map_or(Some(0), |name| errno::from_name(&name))
    }

    #[inline]
    fn cgroup(&self, row: usize) -> CgroupId {
        CgroupId(self.cgroup.get(row).unwrap_or_default())
    }

    fn transition(&mut self, ktime: Ktime, row: usize) -> Option<Transition> {
        if self.moved.as_ref().is_some_and(|moved| moved.is_null(row)) {
            return None;
        }
        let key = self.key(row)?;
        let tid = *self.tid.values.get(row)?;
        Some(Transition {
            ktime,
            id: self.id(row),
            key,
            last_port: self.last_port.get(row).unwrap_or(key.local.port),
            own_range: self.own_range(row),
            old: self.old_state.at(row)?,
            new: self.new_state.at(row)?,
            sk_err: self.errno(row)?,
            shutdown: self.shutdown.value(row),
            caller: self.pid.get(row).map(|pid| Caller { pid, tid, cgroup: self.cgroup(row) }),
            current_tid: tid,
            rescued: self.rescued.value(row),
            classic: self.classic.value(row),
        })
    }

    fn time_wait(&mut self, ktime: Ktime, row: usize) -> Option<TimeWaitEvent> {
        Some(TimeWaitEvent {
            ktime,
            cookie: self.cookie.get(row).and_then(SocketCookie::new),
            key: self.key(row)?,
            fin_wait2: self.fin_wait2.value(row),
            timestamps: self.timestamps.get(row),
            expired: self.expired.value(row),
        })
    }

    fn call_failed(&mut self, call: Call, ktime: Ktime, row: usize) -> Option<Event> {
        let (asked, own_range) = match call {
            Call::Connect => (self.remote(row), self.own_range(row)),
            Call::Listen => (None, self.own_range(row)),
            Call::Bind => {
                let detail = self.detail::<detail::BindFailedDetail>(row)?;
                (detail.endpoint(), detail.own_range())
            }
        };
        Some(Event::CallFailed(Box::new(CallFailed {
            ktime,
            entered: Ktime(ktime.0.wrapping_sub(self.took.get(row)?)),
            id: self.id(row),
            netns: self.netns(row),
            caller: Caller { pid: self.pid.get(row)?, tid: self.tid.get(row)?, cgroup: self.cgroup(row) },
            comm: Self::text(&self.comm, row)?.into(),
            call,
            errno: self.errno(row)?,
            target: asked,
            local: self.local(row)?,
            device: self.device(row),
            own_range,
        })))
    }

    fn socket_event(&mut self, ktime: Ktime, row: usize) -> Option<SocketEvent> {
        Some(SocketEvent {
            ktime,
            id: self.id(row),
            key: self.key(row)?,
            pid: self.pid.get(row)?,
            tid: self.tid.get(row)?,
            named: self.named.get(row),
            listener: self.listener(row),
        })
    }

    fn listener(&self, row: usize) -> Option<SocketId> {
        let sock = self.listener_sock.get(row)?;
        Some(SocketId { cookie: self.listener_cookie.get(row).and_then(SocketCookie::new), sock })
    }

    fn process(&self, ktime: Ktime, row: usize) -> Option<Event> {
        let detail = self.detail::<detail::ProcessDetail>(row)?;
        Some(Event::Process(Box::new(detail.complete(ProcessFacts {
            ktime,
            pid: self.pid.get(row)?,
            netns: self.netns(row),
            cgroup: self.cgroup(row),
            comm: Self::text(&self.comm, row).map(Arc::from)?,
            ..ProcessFacts::default()
        }))))
    }

    fn limits(&self, ktime: Ktime, row: usize) -> Option<Event> {
        let detail = self.detail::<detail::NetnsDetail>(row)?;
        let netns = self.netns(row);
        Some(Event::Netns(Box::new(detail.complete(&NetnsFacts { ktime, netns, ..NetnsFacts::default() }))))
    }
}
