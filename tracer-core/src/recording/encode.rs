//! Encodes steps as rows and rows as batches: the writing half of the format.
//!
//! Not for: files, which `writer` writes.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use arrow_array::types::{TimestampNanosecondType, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, SchemaRef};

use super::column_builders::{
    AddressBuilder, AnswerBuilder, EnumBuilder, FlagBuilder, NumberBuilder, SparseTextBuilder,
};
use super::enums::RowKind;
use super::frame::{Stats, flags};
use super::{BATCH_ROWS, MAX_TEXT, detail};
use crate::errno;
use crate::event::{
    Addr, Baseline, Call, CallFailed, Event, FlowKey, Ktime, Netns, SocketCookie, SocketEvent, SocketId, SocketRow,
    TcpState, TimeWaitEvent, Transition,
};
use crate::step::TrackerStep;

/// Sockets whose address the encoder remembers: half as many as a batch has rows. They take 128 KiB of the CPU's cache.
const SOCKS: usize = BATCH_ROWS / 2;

/// Collects rows until a batch is due.
pub struct Encoder {
    /// `time` minus this is `CLOCK_MONOTONIC`, in nanoseconds.
    offset: i64,
    /// Random and never stored. Kernel addresses are XORed with it: equal sockets stay equal in a recording, and it
    /// does not reveal the layout of kernel memory (KASLR).
    address_mask: u64,
    rows: usize,
    stats: Stats,
    now: Ktime,
    /// Cookie and masked address of the last row of a socket in this batch, by the cookie's remainder. A row whose
    /// cookie and address are here leaves its address out. Cookies with the same remainder evict each other, which
    /// costs one repeated address.
    latest_socks: Vec<Option<(SocketCookie, u64)>>,
    time: NumberBuilder<TimestampNanosecondType>,
    kind: EnumBuilder,
    netns: NumberBuilder<UInt32Type>,
    netns_cookie: NumberBuilder<UInt32Type>,
    device: NumberBuilder<UInt32Type>,
    local_addr: AddressBuilder,
    local_port: NumberBuilder<UInt16Type>,
    remote_addr: AddressBuilder,
    remote_port: NumberBuilder<UInt16Type>,
    old_state: EnumBuilder,
    new_state: EnumBuilder,
    errno: SparseTextBuilder,
    comm: SparseTextBuilder,
    pid: NumberBuilder<UInt32Type>,
    tid: NumberBuilder<UInt32Type>,
    cgroup: NumberBuilder<UInt64Type>,
    cookie: NumberBuilder<UInt64Type>,
    sock: NumberBuilder<UInt64Type>,
    listener_cookie: NumberBuilder<UInt64Type>,
    listener_sock: NumberBuilder<UInt64Type>,
    last_port: NumberBuilder<UInt16Type>,
    took: NumberBuilder<UInt64Type>,
    remaining: NumberBuilder<UInt64Type>,
    shutdown: FlagBuilder,
    rescued: FlagBuilder,
    classic: FlagBuilder,
    expired: FlagBuilder,
    fin_wait2: FlagBuilder,
    minisocket: FlagBuilder,
    named: AnswerBuilder,
    closed: AnswerBuilder,
    has_descriptor: AnswerBuilder,
    timestamps: AnswerBuilder,
    detail: SparseTextBuilder,
}

impl Encoder {
    /// `offset` plus `CLOCK_MONOTONIC` is wall time, in nanoseconds.
    pub fn new(offset: i64) -> Self {
        Self::with_mask(offset, RandomState::new().hash_one(0_u64))
    }

    fn with_mask(offset: i64, address_mask: u64) -> Self {
        let states = || EnumBuilder::new(TcpState::ALL.map(TcpState::name));
        Self {
            offset,
            address_mask,
            rows: 0,
            stats: Stats::default(),
            now: Ktime(0),
            latest_socks: vec![None; SOCKS],
            time: NumberBuilder::default(),
            kind: EnumBuilder::new(RowKind::ALL.map(RowKind::as_str)),
            netns: NumberBuilder::default(),
            netns_cookie: NumberBuilder::default(),
            device: NumberBuilder::default(),
            local_addr: AddressBuilder::default(),
            local_port: NumberBuilder::default(),
            remote_addr: AddressBuilder::default(),
            remote_port: NumberBuilder::default(),
            old_state: states(),
            new_state: states(),
            errno: SparseTextBuilder::default(),
            comm: SparseTextBuilder::default(),
            pid: NumberBuilder::default(),
            tid: NumberBuilder::default(),
            cgroup: NumberBuilder::default(),
            cookie: NumberBuilder::default(),
            sock: NumberBuilder::default(),
            listener_cookie: NumberBuilder::default(),
            listener_sock: NumberBuilder::default(),
            last_port: NumberBuilder::default(),
            took: NumberBuilder::default(),
            remaining: NumberBuilder::default(),
            shutdown: FlagBuilder::default(),
            rescued: FlagBuilder::default(),
            classic: FlagBuilder::default(),
            expired: FlagBuilder::default(),
            fin_wait2: FlagBuilder::default(),
            minisocket: FlagBuilder::default(),
            named: AnswerBuilder::default(),
            closed: AnswerBuilder::default(),
            has_descriptor: AnswerBuilder::default(),
            timestamps: AnswerBuilder::default(),
            detail: SparseTextBuilder::default(),
        }
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// A batch is due.
    pub fn full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.detail.bytes() + self.comm.bytes() >= MAX_TEXT
    }

    /// No new address fits into one of the address columns.
    pub fn is_full_of_addresses(&self) -> bool {
        self.local_addr.is_full() || self.remote_addr.is_full()
    }

    /// Adds the rows of a step. Whenever a batch is due, `full` must take it with [`Self::batch`]; a list of sockets
    /// may fill several.
    ///
    /// # Errors
    /// The error of `full`.
    pub fn step<E>(&mut self, step: &TrackerStep, mut full: impl FnMut(&mut Self) -> Result<(), E>) -> Result<(), E> {
        match step {
            TrackerStep::Event(Event::Baseline(baseline)) => {
                self.baseline(baseline);
                for row in baseline.rows.iter() {
                    if self.full() {
                        full(self)?;
                    }
                    self.socket(row, baseline.ended);
                }
            }
            TrackerStep::Event(event) => self.event(event),
            TrackerStep::Advance(now) => {
                self.row(RowKind::Tick, *now);
                self.end();
            }
            TrackerStep::Skipped(records) => {
                let row = self.row(RowKind::Skipped, self.now);
                self.detail(row, &detail::SkippedDetail { records: *records });
                self.end();
            }
        }
        if self.full() { full(self) } else { Ok(()) }
    }

    /// Begins a row and returns its number. [`Self::end`] ends it.
    fn row(&mut self, kind: RowKind, ktime: Ktime) -> usize {
        let time = self.offset.wrapping_add(ktime.0.cast_signed());
        let row = self.rows;
        debug_assert!(row < BATCH_ROWS, "`step` empties a full batch before the next row");
        if row == 0 {
            self.stats = Stats { rows: 0, flags: 0, first: time, last: time };
        }
        self.stats.first = self.stats.first.min(time);
        self.stats.last = self.stats.last.max(time);
        self.now = ktime;
        self.time.put(row, time);
        self.kind.put(row, kind as u8);
        row
    }

    fn end(&mut self) {
        self.rows += 1;
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Transition(transition) => self.transition(transition),
            Event::TimeWaitStart(start) => self.time_wait(RowKind::TimeWaitStart, start),
            Event::TimeWaitEnd(end) => self.time_wait(RowKind::TimeWaitEnd, end),
            Event::TimeWaitListed(listed) => self.time_wait(RowKind::TimeWaitListed, listed),
            Event::CallFailed(call) => self.call_failed(call),
            Event::Accepted(accepted) => self.socket_event(RowKind::Accepted, accepted),
            Event::Bound(bound) => self.socket_event(RowKind::Bound, bound),
            Event::Released(released) => self.socket_event(RowKind::Released, released),
            Event::Process(facts) => {
                let row = self.row(RowKind::Process, facts.ktime);
                self.stats.flags |= flags::FACTS;
                self.netns(row, facts.netns);
                self.pid.put(row, facts.pid);
                self.cgroup.put(row, facts.cgroup.0);
                self.comm.put(row, &facts.comm);
                self.detail(row, &detail::ProcessDetail::from(&**facts));
                self.end();
            }
            Event::Netns(facts) => {
                let row = self.row(RowKind::Netns, facts.ktime);
                self.stats.flags |= flags::FACTS;
                self.netns(row, facts.netns);
                self.detail(row, &detail::NetnsDetail::from(&**facts));
                self.end();
            }
            Event::ReservedPorts(ktime, netns, ports) => {
                let row = self.row(RowKind::ReservedPorts, *ktime);
                self.stats.flags |= flags::FACTS;
                self.netns(row, *netns);
                self.detail(row, &detail::ReservedPortsDetail::from(&**ports));
                self.end();
            }
            Event::PortSearch(search) => {
                let row = self.row(RowKind::PortSearch, search.ktime);
                self.id(row, search.id);
                self.took.put(row, search.nanos);
                self.end();
            }
            // `step` has written its rows.
            Event::Baseline(_) => {}
            Event::Loss(counts) => {
                let row = self.row(RowKind::Loss, counts.ktime);
                self.stats.flags |= flags::FACTS;
                self.detail(row, &detail::LossDetail::from(counts));
                self.end();
            }
        }
    }

    #[inline]
    fn netns(&mut self, row: usize, netns: Netns) {
        self.netns.put(row, netns.inode);
        if netns.cookie != 0 {
            self.netns_cookie.put(row, netns.cookie);
        }
    }

    #[inline]
    fn device(&mut self, row: usize, device: u32) {
        if device != 0 {
            self.device.put(row, device);
        }
    }

    /// Puts a key into its columns and returns the addresses that do not fit there, which belong into the detail.
    #[inline]
    fn key_columns(&mut self, row: usize, key: &FlowKey) -> detail::OverflowAddresses {
        self.netns(row, key.netns);
        self.device(row, key.device);
        self.local_port.put(row, key.local.port);
        self.remote_port.put(row, key.remote.port);
        self.addresses(row, key.local.addr, Some(key.remote.addr))
    }

    fn key(&mut self, row: usize, key: &FlowKey) {
        let overflow = self.key_columns(row, key);
        if overflow.any() {
            self.detail(row, &overflow);
        }
    }

    /// Puts addresses into their columns and returns those that do not fit there.
    fn addresses(&mut self, row: usize, local: Addr, remote: Option<Addr>) -> detail::OverflowAddresses {
        let local_full = !self.local_addr.put(row, local);
        let remote_full = remote.is_some_and(|remote| !self.remote_addr.put(row, remote));
        detail::OverflowAddresses::new(local_full.then_some(local), remote.filter(|_| remote_full))
    }

    /// 0 is no address.
    #[inline]
    fn masked(&self, sock: u64) -> u64 {
        if sock == 0 { 0 } else { sock ^ self.address_mask }
    }

    fn id(&mut self, row: usize, id: SocketId) {
        let sock = self.masked(id.sock);
        if let Some(cookie) = id.cookie {
            self.cookie.put(row, cookie.get());
            // Within a batch the cookie stands for the address too.
            let slot = usize::try_from(cookie.get() % SOCKS as u64).unwrap_or(0);
            if let Some(latest) = self.latest_socks.get_mut(slot)
                && latest.replace((cookie, sock)) == Some((cookie, sock))
            {
                return;
            }
        }
        self.sock.put(row, sock);
    }

    fn transition(&mut self, t: &Transition) {
        let row = self.row(RowKind::Transition, t.ktime);
        self.id(row, t.id);
        let overflow = self.key_columns(row, &t.key);
        let own_range = detail::OwnRangeDetail { own_range: t.own_range, overflow };
        if own_range.any() {
            self.detail(row, &own_range);
        }
        if t.last_port != t.key.local.port {
            self.last_port.put(row, t.last_port);
        }
        self.old_state.put(row, t.old as u8 - 1);
        self.new_state.put(row, t.new as u8 - 1);
        if t.sk_err != 0 {
            self.errno.put(row, &errno::name(t.sk_err));
        }
        if let Some(caller) = t.caller {
            self.pid.put(row, caller.pid);
            self.cgroup.put(row, caller.cgroup.0);
        }
        self.tid.put(row, t.current_tid);
        for (is_set, column) in
            [(t.shutdown, &mut self.shutdown), (t.rescued, &mut self.rescued), (t.classic, &mut self.classic)]
        {
            if is_set {
                column.set(row);
            }
        }
        self.end();
    }

    fn time_wait(&mut self, kind: RowKind, e: &TimeWaitEvent) {
        let row = self.row(kind, e.ktime);
        if let Some(cookie) = e.cookie {
            self.cookie.put(row, cookie.get());
        }
        self.key(row, &e.key);
        if e.fin_wait2 {
            self.fin_wait2.set(row);
        }
        if e.expired {
            self.expired.set(row);
        }
        self.timestamps.put(row, e.timestamps);
        self.end();
    }

    fn call_failed(&mut self, call: &CallFailed) {
        let kind = match call.call {
            Call::Connect => RowKind::ConnectFailed,
            Call::Bind => RowKind::BindFailed,
            Call::Listen => RowKind::ListenFailed,
        };
        let row = self.row(kind, call.ktime);
        self.id(row, call.id);
        self.netns(row, call.netns);
        self.device(row, call.device);
        self.local_port.put(row, call.local.port);
        let target = call.target.filter(|_| call.call == Call::Connect);
        if let Some(target) = target {
            self.remote_port.put(row, target.port);
        }
        let overflow = self.addresses(row, call.local.addr, target.map(|target| target.addr));
        if call.call == Call::Bind {
            self.detail(row, &detail::BindFailedDetail::new(call.target, call.own_range, overflow));
        } else {
            let own_range = detail::OwnRangeDetail { own_range: call.own_range, overflow };
            if own_range.any() {
                self.detail(row, &own_range);
            }
        }
        self.errno.put(row, &errno::name(call.errno));
        self.comm.put(row, &call.comm);
        self.pid.put(row, call.caller.pid);
        self.tid.put(row, call.caller.tid);
        self.cgroup.put(row, call.caller.cgroup.0);
        self.took.put(row, call.ktime.0.wrapping_sub(call.entered.0));
        self.end();
    }

    fn socket_event(&mut self, kind: RowKind, e: &SocketEvent) {
        let row = self.row(kind, e.ktime);
        self.id(row, e.id);
        self.key(row, &e.key);
        self.pid.put(row, e.pid);
        self.tid.put(row, e.tid);
        self.named.put(row, e.named);
        if let Some(listener) = e.listener {
            if let Some(cookie) = listener.cookie {
                self.listener_cookie.put(row, cookie.get());
            }
            self.listener_sock.put(row, self.masked(listener.sock));
        }
        self.end();
    }

    fn baseline(&mut self, baseline: &Baseline) {
        let row = self.row(RowKind::Baseline, baseline.ended);
        self.stats.flags |= flags::BASELINE;
        self.netns(row, baseline.netns);
        let sockets = baseline.rows.len() as u64;
        self.detail(row, &detail::BaselineDetail { initial: baseline.initial, began_ns: baseline.began.0, sockets });
        self.end();
    }

    fn socket(&mut self, socket: &SocketRow, at: Ktime) {
        let row = self.row(RowKind::Socket, at);
        if let Some(cookie) = socket.cookie {
            self.cookie.put(row, cookie.get());
        }
        if socket.sock != 0 {
            self.sock.put(row, self.masked(socket.sock));
        }
        let overflow = self.key_columns(row, &socket.key);
        match socket.queue {
            Some(queue) => self.detail(row, &detail::ListenerDetail::new(queue, overflow)),
            None if overflow.any() => self.detail(row, &overflow),
            None => {}
        }
        self.named.put(row, socket.named);
        self.closed.put(row, socket.closed);
        self.has_descriptor.put(row, socket.has_descriptor);
        self.timestamps.put(row, socket.timestamps);
        self.new_state.put(row, socket.state as u8 - 1);
        if socket.minisocket {
            self.minisocket.set(row);
        }
        if let Some(remaining) = socket.remaining {
            self.remaining.put(row, remaining);
        }
        if let Some(owner) = socket.owner {
            self.pid.put(row, owner);
        }
        self.end();
    }

    fn detail(&mut self, row: usize, detail: &impl serde::Serialize) {
        // Structs of numbers and strings always serialise. If one did not, its row would have no detail, and readers
        // would count it as bad.
        if let Ok(text) = serde_json::to_string(detail) {
            self.detail.put(row, &text);
        }
    }

    /// The rows so far as a batch of `schema`. The encoder keeps its lists of addresses and is otherwise empty
    /// afterwards.
    ///
    /// # Errors
    /// [`ArrowError`] if the columns do not fit `schema`, which [`super::schema::schema`] rules out.
    pub fn batch(&mut self, schema: &SchemaRef) -> Result<(RecordBatch, Stats), ArrowError> {
        let rows = std::mem::take(&mut self.rows);
        self.latest_socks.fill(None);
        let mut stats = std::mem::take(&mut self.stats);
        stats.rows = u32::try_from(rows).unwrap_or(u32::MAX);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.time.finish(rows).with_timezone("UTC")),
            self.kind.finish(rows)?,
            Arc::new(self.netns.finish(rows)),
            Arc::new(self.netns_cookie.finish(rows)),
            Arc::new(self.device.finish(rows)),
            self.local_addr.finish(rows)?,
            Arc::new(self.local_port.finish(rows)),
            self.remote_addr.finish(rows)?,
            Arc::new(self.remote_port.finish(rows)),
            self.old_state.finish(rows)?,
            self.new_state.finish(rows)?,
            self.errno.finish(rows)?,
            self.comm.finish(rows)?,
            Arc::new(self.pid.finish(rows)),
            Arc::new(self.tid.finish(rows)),
            Arc::new(self.cgroup.finish(rows)),
            Arc::new(self.cookie.finish(rows)),
            Arc::new(self.sock.finish(rows)),
            Arc::new(self.listener_cookie.finish(rows)),
            Arc::new(self.listener_sock.finish(rows)),
            Arc::new(self.last_port.finish(rows)),
            Arc::new(self.took.finish(rows)),
            Arc::new(self.remaining.finish(rows)),
            self.shutdown.finish(rows),
            self.rescued.finish(rows),
            self.classic.finish(rows),
            self.expired.finish(rows),
            self.fin_wait2.finish(rows),
            self.minisocket.finish(rows),
            self.named.finish(rows),
            self.closed.finish(rows),
            self.has_descriptor.finish(rows),
            self.timestamps.finish(rows),
            self.detail.finish(rows)?,
        ];
        Ok((RecordBatch::try_new(Arc::clone(schema), columns)?, stats))
    }
}
