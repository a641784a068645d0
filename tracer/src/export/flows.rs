//! The table of flows: one row per connection that ended, failed, or was open at the end.
//!
//! Not for: the meaning of the values, which the tracker's notices define.

use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Float64Builder, StringBuilder, TimestampNanosecondBuilder, UInt16Builder, UInt32Builder,
    UInt64Builder,
};
use arrow_array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::Serialize;

use tracer_core::clock::Clock;
use tracer_core::event::{Endpoint, FlowKey, Ktime, SocketCookie};
use tracer_core::tracker::snapshot::{FailedConnect, FlowEnd, Notice, OpenFlow, Owner};

/// Rows of a batch.
const BATCH_ROWS: usize = 1 << 16;

/// The columns, in their order.
pub fn schema() -> SchemaRef {
    let time = || DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        Field::new("time", time(), false),
        Field::new("type", DataType::Utf8, false),
        field("ktime_ns", DataType::UInt64),
        field("cookie", DataType::UInt64),
        field("end", time()),
        field("start", time()),
        field("netns", DataType::UInt32),
        field("local_addr", DataType::Utf8),
        field("local_port", DataType::UInt16),
        field("remote_addr", DataType::Utf8),
        field("remote_port", DataType::UInt16),
        field("workload", DataType::Utf8),
        field("comm", DataType::Utf8),
        field("pid", DataType::UInt32),
        field("inferred", DataType::Boolean),
        field("inferred_owner", DataType::Boolean),
        field("opened", DataType::Utf8),
        field("ended", DataType::Utf8),
        field("reason", DataType::Utf8),
        field("failure", DataType::Utf8),
        field("state", DataType::Utf8),
        field("lifetime_ms", DataType::Float64),
        field("connect_ms", DataType::Float64),
        field("after_ms", DataType::Float64),
        field("time_wait", DataType::Boolean),
        field("repaired", DataType::Boolean),
    ]))
}

/// Collects rows until a batch is due.
pub struct FlowTable {
    clock: Clock,
    rows: usize,
    time: TimestampNanosecondBuilder,
    kind: StringBuilder,
    ktime: UInt64Builder,
    cookie: UInt64Builder,
    end: TimestampNanosecondBuilder,
    start: TimestampNanosecondBuilder,
    netns: UInt32Builder,
    local_addr: StringBuilder,
    local_port: UInt16Builder,
    remote_addr: StringBuilder,
    remote_port: UInt16Builder,
    workload: StringBuilder,
    comm: StringBuilder,
    pid: UInt32Builder,
    inferred: BooleanBuilder,
    opened: StringBuilder,
    ended: StringBuilder,
    failure: StringBuilder,
    state: StringBuilder,
    lifetime: Float64Builder,
    connect: Float64Builder,
    after: Float64Builder,
    time_wait: BooleanBuilder,
    repaired: BooleanBuilder,
}

/// The name that a value has in JSON.
fn json_name(value: &impl Serialize) -> Option<String> {
    serde_json::to_value(value).ok()?.as_str().map(ToOwned::to_owned)
}

impl FlowTable {
    /// A table without rows. `clock` turns the times of events into wall time.
    pub fn new(clock: Clock) -> Self {
        let text = || StringBuilder::new();
        Self {
            clock,
            rows: 0,
            time: TimestampNanosecondBuilder::new().with_timezone("UTC"),
            kind: text(),
            ktime: UInt64Builder::new(),
            cookie: UInt64Builder::new(),
            end: TimestampNanosecondBuilder::new().with_timezone("UTC"),
            start: TimestampNanosecondBuilder::new().with_timezone("UTC"),
            netns: UInt32Builder::new(),
            local_addr: text(),
            local_port: UInt16Builder::new(),
            remote_addr: text(),
            remote_port: UInt16Builder::new(),
            workload: text(),
            comm: text(),
            pid: UInt32Builder::new(),
            inferred: BooleanBuilder::new(),
            opened: text(),
            ended: text(),
            failure: text(),
            state: text(),
            lifetime: Float64Builder::new(),
            connect: Float64Builder::new(),
            after: Float64Builder::new(),
            time_wait: BooleanBuilder::new(),
            repaired: BooleanBuilder::new(),
        }
    }

    /// Adds the row of a flow that ended or failed; other notices are ignored. True if a batch is due.
    pub fn add(&mut self, notice: &Notice) -> bool {
        match notice {
            Notice::FlowEnd(end) => self.ended(end),
            Notice::FailedConnect(failed) => self.failed(failed),
            Notice::StateChange(_) | Notice::Finding(_) => {}
        }
        self.rows >= BATCH_ROWS
    }

    fn wall(&self, at: Ktime) -> i64 {
        i64::try_from(self.clock.to_timestamp(at).as_nanosecond()).unwrap_or(i64::MAX)
    }

    fn common(
        &mut self,
        (kind, at): (&str, Ktime),
        cookie: Option<SocketCookie>,
        start: Option<i64>,
        key: &FlowKey,
        owner: Option<&Owner>,
    ) {
        self.rows += 1;
        let time = self.wall(at);
        self.time.append_value(time);
        self.kind.append_value(kind);
        self.ktime.append_value(at.0);
        self.cookie.append_option(cookie.map(SocketCookie::get));
        self.start.append_option(start);
        self.netns.append_option((key.netns.inode != 0).then_some(key.netns.inode));
        // An address without a port is one that is not known.
        let known = |end: Endpoint| (end.port != 0 || !end.addr.is_unspecified()).then(|| end.addr.to_string());
        self.local_addr.append_option(known(key.local));
        self.local_port.append_option((key.local.port != 0).then_some(key.local.port));
        self.remote_addr.append_option(known(key.remote));
        self.remote_port.append_option((key.remote.port != 0).then_some(key.remote.port));
        self.workload.append_option(owner.map(|owner| &*owner.workload));
        self.comm.append_option(owner.map(|owner| &*owner.comm));
        self.pid.append_option(owner.map(|owner| owner.pid).filter(|pid| *pid != 0));
        self.inferred.append_option(owner.map(|owner| owner.inferred));
    }

    /// When something began that `lasted` until `at`.
    #[expect(clippy::cast_possible_truncation, reason = "a float above the range becomes the last instant")]
    fn began(&self, at: Ktime, lasted_ms: Option<f64>) -> Option<i64> {
        // It was a whole number of nanoseconds. A float holds that exactly for about a hundred days.
        lasted_ms.map(|lasted| self.wall(at).saturating_sub((lasted * 1e6).round() as i64))
    }

    fn ended(&mut self, end: &FlowEnd) {
        let began = self.began(end.ktime, end.lifetime_ms);
        self.common(("flow", end.ktime), end.cookie, began, &end.key, end.owner.as_ref());
        let at = self.wall(end.ktime);
        self.end.append_value(at);
        self.opened.append_option(json_name(&end.opened));
        self.ended.append_option(json_name(&end.ended));
        self.failure.append_null();
        self.state.append_null();
        self.lifetime.append_option(end.lifetime_ms);
        self.connect.append_option(end.connect_ms);
        self.after.append_null();
        self.time_wait.append_value(end.time_wait);
        self.repaired.append_value(end.repaired);
    }

    fn failed(&mut self, failed: &FailedConnect) {
        let began = self.began(failed.ktime, failed.after_ms);
        self.common(("failure", failed.ktime), failed.cookie, began, &failed.key, failed.owner.as_ref());
        let at = self.wall(failed.ktime);
        self.end.append_value(at);
        self.opened.append_value("active");
        self.ended.append_value("connect-failed");
        self.failure.append_value(failed.failure.name());
        self.state.append_null();
        self.lifetime.append_null();
        self.connect.append_option(failed.after_ms);
        self.after.append_option(failed.after_ms);
        self.time_wait.append_value(false);
        self.repaired.append_value(false);
    }

    /// Adds the row of a flow that is open at `now`. True if a batch is due.
    pub fn open(&mut self, flow: &OpenFlow, now: Ktime) -> bool {
        let began = flow.began.map(|began| self.wall(began));
        self.common(("open", now), flow.cookie, began, &flow.key, flow.owner.as_ref());
        self.end.append_null();
        self.opened.append_option(json_name(&flow.opened));
        self.ended.append_null();
        self.failure.append_null();
        self.state.append_value(flow.state.name());
        self.lifetime.append_null();
        self.connect.append_option(flow.connect_ms);
        self.after.append_null();
        self.time_wait.append_value(false);
        self.repaired.append_value(flow.repaired);
        self.rows >= BATCH_ROWS
    }

    /// Returns the rows so far as a batch, and is empty afterwards.
    ///
    /// # Errors
    /// [`ArrowError`] if the columns do not fit [`schema`], which would be a defect of this module.
    pub fn batch(&mut self) -> Result<RecordBatch, ArrowError> {
        self.rows = 0;
        let (inferred, failure) = (Arc::new(self.inferred.finish()), Arc::new(self.failure.finish()));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.time.finish()),
            Arc::new(self.kind.finish()),
            Arc::new(self.ktime.finish()),
            Arc::new(self.cookie.finish()),
            Arc::new(self.end.finish()),
            Arc::new(self.start.finish()),
            Arc::new(self.netns.finish()),
            Arc::new(self.local_addr.finish()),
            Arc::new(self.local_port.finish()),
            Arc::new(self.remote_addr.finish()),
            Arc::new(self.remote_port.finish()),
            Arc::new(self.workload.finish()),
            Arc::new(self.comm.finish()),
            Arc::new(self.pid.finish()),
            Arc::<BooleanArray>::clone(&inferred),
            inferred,
            Arc::new(self.opened.finish()),
            Arc::new(self.ended.finish()),
            Arc::<StringArray>::clone(&failure),
            failure,
            Arc::new(self.state.finish()),
            Arc::new(self.lifetime.finish()),
            Arc::new(self.connect.finish()),
            Arc::new(self.after.finish()),
            Arc::new(self.time_wait.finish()),
            Arc::new(self.repaired.finish()),
        ];
        RecordBatch::try_new(schema(), columns)
    }
}
