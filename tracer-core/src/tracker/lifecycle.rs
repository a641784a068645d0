//! The rules by which transitions change flows.
//!
//! Who may be believed when: the caller of CLOSE->SYN_SENT owns the flow to the end of its `TIME_WAIT`; a passive flow begins at
//! SYN_RECV->ESTABLISHED (LISTEN->SYN_RECV carries the listener's cookie up to 6.12) and belongs to the listener until
//! accept() names somebody; later events never change an owner.

use super::Tracker;
use super::flow::Flow;
use super::history::Trace;
use super::people::AttrId;
use super::slab::Ref;
use super::snapshot::{Ended, FlowEnd, Notice, Opened, StateChange};
use super::time_wait::Entry;
use crate::errno::{ECONNABORTED, ECONNRESET, ETIMEDOUT};
use crate::event::{FlowKey, Ktime, SocketEvent, TcpState, Transition};

pub(super) fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

impl Tracker {
    pub(super) fn transition(&mut self, t: &Transition) {
        match (t.old, t.new) {
            (TcpState::Close, TcpState::SynSent) => self.opens(t),
            (TcpState::Close, TcpState::Listen) => self.listens(t),
            (TcpState::Listen, TcpState::Close) => self.stops_listening(t),
            (TcpState::Listen, _) => {}
            _ => self.moves(t),
        }
    }

    fn opens(&mut self, t: &Transition) {
        if let Some(at) = self.flows.find(t.id, None) {
            let repeated = |flow: &Flow| t.rescued && flow.state == t.new && flow.previous == t.old;
            if self.flows.get(at).is_some_and(repeated) {
                self.duplicates += 1;
                return;
            }
            self.loses_end(at, t.ktime);
        }
        // One thread is in one connect() at a time: whatever it failed before is over.
        self.settle_thread(t.current_tid);
        let proc = self.people.of_pid(t.caller.map_or(0, |caller| caller.pid));
        let dest = self.dest(&t.key, t.ktime);
        let attr = self.people.attribute(proc, dest, t.key.netns, false, t.ktime);
        self.people.tick(attr, t.ktime);
        if let Some(history) = &mut self.history {
            history.count(t.ktime, |second| second.connects += 1);
        }
        if let Some(dest) = dest.and_then(|dest| self.places.get_mut(dest)) {
            dest.rate.count(t.ktime);
            dest.touch(t.ktime);
        }
        self.count(Some(attr), dest, |cell| cell.connects += 1);
        let bound = t.key.local.port != 0;
        let flow = Flow {
            key: t.key,
            id: t.id,
            state: t.new,
            previous: t.old,
            opened: Opened::Active,
            attr: Some(attr),
            dest,
            began: Some(t.ktime),
            established: None,
            state_since: Some(t.ktime),
            last: t.ktime,
            tid: t.current_tid,
            port_before: t.last_port,
            bound,
            occupies: false,
            inferred_owner: false,
            repaired: false,
            pass: self.pass,
        };
        let Some(at) = self.flows.insert(flow) else {
            self.evicted += 1;
            return;
        };
        self.unsettled.push_back((t.ktime, at));
        if bound {
            self.port_bound(&SocketEvent {
                ktime: t.ktime,
                id: t.id,
                key: t.key,
                pid: t.caller.map_or(0, |caller| caller.pid),
                tid: t.current_tid,
                named: None,
                listener: None,
            });
        }
        self.tell_change(at, t.ktime, t.old, t.new, None);
    }

    /// The flow's end was lost: it is over since some unknown moment before `now`.
    pub(super) fn loses_end(&mut self, at: Ref, now: Ktime) {
        self.repaired += 1;
        if let Some(flow) = self.flows.get_mut(at) {
            flow.repaired = true;
        }
        self.ends(at, now, Ended::Unknown, false);
    }

    /// The flow's end was lost, but its minisocket exists: only an active closer leaves one (of a simultaneous close both do).
    pub(super) fn became_minisocket(&mut self, at: Ref, now: Ktime) {
        let Some(flow) = self.flows.get_mut(at) else { return };
        flow.repaired = true;
        let (state, attr, dest) = (flow.state, flow.attr, flow.dest);
        if !matches!(state, TcpState::FinWait1 | TcpState::FinWait2 | TcpState::Closing) {
            self.count(attr, dest, |cell| cell.active_closes += 1);
        }
        self.ends(
            at,
            now,
            if state == TcpState::Closing { Ended::SimultaneousClose } else { Ended::ActiveClose },
            false,
        );
    }

    fn moves(&mut self, t: &Transition) {
        let mut key = t.key;
        if key.local.port == 0 {
            key.local.port = t.last_port;
        }
        self.reunite(t);
        let Some(at) = self.flows.find(t.id, Some(&key)) else { return self.stranger(t, key) };
        let Some(flow) = self.flows.get(at) else { return };
        if t.rescued && flow.state == t.new && flow.previous == t.old {
            self.duplicates += 1;
            return;
        }
        if flow.began.is_none() && t.ktime < flow.last && flow.state != t.old {
            // A list of sockets that was taken after this event has told already what it led to.
            return;
        }
        if flow.state != t.old {
            self.skip_ahead(at, t);
        }
        self.change(at, t);
    }

    /// Takes back the second flow that a list of sockets made of one without a name.
    fn reunite(&mut self, t: &Transition) {
        let Some(twin) = self.flows.twin(t.id) else { return };
        self.vacate(twin);
        let Some(flow) = self.flows.forget(twin) else { return };
        self.repaired = self.repaired.saturating_sub(u64::from(flow.repaired));
        if flow.state == TcpState::CloseWait {
            self.count(flow.attr, flow.dest, |cell| cell.close_wait.down());
        }
    }

    /// Transitions between the flow's state and `t.old` were lost.
    fn skip_ahead(&mut self, at: Ref, t: &Transition) {
        self.repaired += 1;
        let Some(flow) = self.flows.get_mut(at) else { return };
        flow.repaired = true;
        let was_connecting =
            flow.opened == Opened::Active && matches!(flow.state, TcpState::SynSent | TcpState::SynRecv);
        let connected = !matches!(t.old, TcpState::SynSent | TcpState::SynRecv | TcpState::Close);
        let (attr, dest) = (flow.attr, flow.dest);
        if was_connecting && connected {
            self.count(attr, dest, |cell| cell.established += 1);
        }
        self.set_state(at, t.old, t.ktime);
        if let Some(flow) = self.flows.get_mut(at) {
            flow.state_since = None;
        }
    }

    /// A transition of a socket that is not known.
    fn stranger(&mut self, t: &Transition, key: FlowKey) {
        if self.flows.closed_at(t.id.cookie).is_some() {
            // Its flow is over; this is the repetition of its last transition.
            if t.rescued {
                self.duplicates += 1;
            }
            return;
        }
        let passive_open = t.old == TcpState::SynRecv && t.new == TcpState::Established;
        if t.old == TcpState::SynRecv && !passive_open {
            // A handshake that failed: nobody's flow yet.
            return;
        }
        let listener = self.bound.listener(key.netns, key.local.addr, key.local.port);
        let known_netns = self.places.known_namespace(key.netns).is_some_and(|namespace| namespace.baselined);
        let active = !passive_open && listener.is_none() && self.looks_ephemeral(&key);
        let dest = if active { self.dest(&key, t.ktime) } else { None };
        let caller = t.caller.map(|caller| self.people.of_pid(caller.pid));
        let of_listener = listener.and_then(|at| self.bound.get(at)?.owner);
        let proc = if passive_open { of_listener } else { caller.or(of_listener) }.unwrap_or(self.people.unknown());
        let attr = self.people.attribute(proc, dest, key.netns, true, t.ktime);
        if passive_open {
            self.count(Some(attr), None, |cell| cell.accepted += 1);
            if let Some(at) = listener {
                self.bound.accepted(at);
            }
        }
        let flow = Flow {
            key,
            id: t.id,
            state: t.old,
            previous: t.old,
            opened: if passive_open || listener.is_some() { Opened::Passive } else { Opened::Unknown },
            attr: Some(attr),
            dest,
            began: passive_open.then_some(t.ktime),
            established: passive_open.then_some(t.ktime),
            state_since: None,
            last: t.ktime,
            tid: 0,
            port_before: 0,
            bound: false,
            occupies: false,
            inferred_owner: true,
            // Before the first complete list of its namespace it simply is older than we are.
            repaired: !passive_open && known_netns,
            pass: self.pass,
        };
        if flow.repaired {
            self.repaired += 1;
        }
        match self.flows.insert(flow) {
            Some(at) => {
                if t.old == TcpState::CloseWait {
                    self.count(Some(attr), dest, |cell| cell.close_wait.up());
                }
                self.occupy(at);
                self.change(at, t);
            }
            None => self.evicted += 1,
        }
    }

    /// Applies a transition whose `old` is the flow's state.
    fn change(&mut self, at: Ref, t: &Transition) {
        let Some(flow) = self.flows.get(at) else { return };
        let (attr, dest, opened, began) = (flow.attr, flow.dest, flow.opened, flow.began);
        let dwell = flow.state_since.map(|since| t.ktime.since(since));
        if flow.key.local.port == 0 {
            let chosen =
                if t.key.local.port == 0 && t.last_port != flow.port_before { t.last_port } else { t.key.local.port };
            if chosen != 0 {
                self.flows.name_port(at, chosen);
            }
        }
        self.tell_change(at, t.ktime, t.old, t.new, dwell);
        match t.new {
            TcpState::Established if opened == Opened::Active => {
                if let Some(flow) = self.flows.get_mut(at) {
                    flow.established = Some(t.ktime);
                }
                self.count(attr, dest, |cell| {
                    cell.established += 1;
                    if let Some(began) = began {
                        cell.connect.record(t.ktime.since(began));
                    }
                });
            }
            TcpState::FinWait1 => self.count(attr, dest, |cell| cell.active_closes += 1),
            TcpState::CloseWait => self.count(attr, dest, |cell| cell.passive_closes += 1),
            TcpState::Close => return self.closes(at, t),
            _ => {}
        }
        self.set_state(at, t.new, t.ktime);
        if t.new == TcpState::Established {
            if let Some(key) = self.flows.get(at).map(|flow| flow.key) {
                self.make_way(&key);
            }
            self.occupy(at);
            self.credit_reuse(at);
        }
    }

    /// Moves the flow to `state`, with what hangs on states: occupancy and the `CLOSE_WAIT` gauge.
    pub(super) fn set_state(&mut self, at: Ref, state: TcpState, now: Ktime) {
        let Some(flow) = self.flows.get_mut(at) else { return };
        let old = flow.state;
        flow.previous = old;
        flow.state = state;
        flow.state_since = Some(now);
        flow.last = flow.last.max(now);
        let (attr, dest) = (flow.attr, flow.dest);
        if flow.occupies
            && let Some(dest) = dest.and_then(|dest| self.places.get_mut(dest))
        {
            dest.shift(old, state);
            dest.touch(now);
        }
        match (old == TcpState::CloseWait, state == TcpState::CloseWait) {
            (false, true) => self.count(attr, dest, |cell| cell.close_wait.up()),
            (true, false) => self.count(attr, dest, |cell| cell.close_wait.down()),
            _ => {}
        }
    }

    /// The flow holds a local port towards its destination.
    pub(super) fn occupy(&mut self, at: Ref) {
        let Some(flow) = self.flows.get_mut(at) else { return };
        if flow.occupies || flow.dest.is_none() {
            return;
        }
        flow.occupies = true;
        let (state, bound, attr, dest) = (flow.state, flow.bound, flow.attr, flow.dest);
        if let Some(dest) = dest.and_then(|dest| self.places.get_mut(dest)) {
            dest.take(state, bound);
        }
        self.count(attr, None, |cell| cell.ports.up());
    }

    pub(super) fn vacate(&mut self, at: Ref) {
        let Some(flow) = self.flows.get_mut(at) else { return };
        if !flow.occupies {
            return;
        }
        flow.occupies = false;
        let (state, bound, attr, dest) = (flow.state, flow.bound, flow.attr, flow.dest);
        if let Some(dest) = dest.and_then(|dest| self.places.get_mut(dest)) {
            dest.give(state, bound);
        }
        self.count(attr, None, |cell| cell.ports.down());
    }

    /// A connection came to life on the 4-tuple of a minisocket that was just killed: that was the reason.
    fn credit_reuse(&mut self, at: Ref) {
        let Some(key) = self.flows.get(at).map(|flow| flow.key) else { return };
        if let Some(former) = self.ledger.reused(&key) {
            self.count(former.attr, former.dest, |cell| cell.tw_reused += 1);
        }
    }

    fn closes(&mut self, at: Ref, t: &Transition) {
        let Some(flow) = self.flows.get(at) else { return };
        if matches!(t.old, TcpState::SynSent | TcpState::SynRecv) && flow.opened == Opened::Active {
            self.vacate(at);
            self.set_state(at, TcpState::Close, t.ktime);
            if let Some(flow) = self.flows.bury(at, t.ktime) {
                self.connect_failed(&flow, t);
            }
            return;
        }
        let ended = match (t.old, t.sk_err) {
            (_, ETIMEDOUT) => Ended::TimedOut,
            (_, ECONNABORTED) | (TcpState::Established | TcpState::CloseWait | TcpState::SynRecv, 0) => {
                Ended::ResetByUs
            }
            (_, ECONNRESET) => Ended::ResetByPeer,
            (TcpState::LastAck, _) => Ended::PassiveClose,
            (TcpState::FinWait1 | TcpState::FinWait2, _) => Ended::ActiveClose,
            (TcpState::Closing, _) => Ended::SimultaneousClose,
            (_, 0) => Ended::Unknown,
            (_, _) => Ended::ResetByPeer,
        };
        // With the timers in sight a minisocket has announced itself by now; without, these two transitions make one.
        let to_infer =
            !self.config.time_wait_observed && matches!(t.old, TcpState::FinWait2 | TcpState::Closing) && t.sk_err == 0;
        let heir = self.flows.get(at).filter(|_| to_infer).map(|flow| Entry {
            key: flow.key,
            cookie: flow.id.cookie,
            began: t.ktime,
            armed: t.ktime,
            attr: flow.attr,
            dest: flow.dest,
            observed: false,
            fin_wait2: t.old == TcpState::FinWait2,
            bound: flow.bound,
            pass: self.pass,
        });
        if let Some(entry) = heir {
            self.vacate(at);
            self.begin_time_wait(entry, true);
        }
        self.ends(at, t.ktime, ended, true);
    }

    /// The flow is over, since just now if its end was `seen`.
    pub(super) fn ends(&mut self, at: Ref, now: Ktime, ended: Ended, seen: bool) {
        self.vacate(at);
        self.set_state(at, TcpState::Close, now);
        let Some(flow) = self.flows.bury(at, now) else { return };
        // When a flow whose end was lost really ended is not known, so neither is how long it lived.
        let lifetime = flow.began.filter(|_| seen && ended != Ended::Unknown).map(|began| now.since(began));
        self.count(flow.attr, flow.dest, |cell| {
            cell.closed += 1;
            cell.resets += u64::from(matches!(ended, Ended::ResetByPeer | Ended::ResetByUs));
            if let Some(lifetime) = lifetime {
                cell.lifetime.record(lifetime);
            }
        });
        if self.config.notices.flows {
            let connect = flow.began.zip(flow.established).filter(|_| flow.opened == Opened::Active);
            self.notices.push(Notice::FlowEnd(FlowEnd {
                ktime: now,
                key: flow.key,
                owner: self.owner(flow.attr, flow.inferred_owner),
                opened: flow.opened,
                ended,
                lifetime_ms: lifetime.map(millis),
                connect_ms: connect.map(|(began, established)| millis(established.since(began))),
                repaired: flow.repaired,
                time_wait: self.ledger.find(&flow.key).is_some(),
            }));
        }
    }

    fn tell_change(&mut self, at: Ref, now: Ktime, old: TcpState, new: TcpState, dwell: Option<u64>) {
        if let Some(history) = &mut self.history
            && let Some(flow) = self.flows.get(at)
        {
            history.step(Trace { at: now, cookie: flow.id.cookie, key: flow.key, old, new });
        }
        if !self.config.notices.transitions {
            return;
        }
        if let Some(flow) = self.flows.get(at) {
            let (key, attr, inferred) = (flow.key, flow.attr, flow.inferred_owner);
            self.tell(now, key, attr, inferred, old, new, dwell);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of the notice")]
    pub(super) fn tell(
        &mut self,
        ktime: Ktime,
        key: FlowKey,
        attr: Option<AttrId>,
        inferred: bool,
        old: TcpState,
        new: TcpState,
        dwell: Option<u64>,
    ) {
        let owner = self.owner(attr, inferred);
        self.notices.push(Notice::StateChange(StateChange {
            ktime,
            key,
            owner,
            old,
            new,
            dwell_ms: dwell.map(millis),
        }));
    }
}
