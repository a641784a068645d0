//! Which local ports of a namespace connect() may choose: the kernel's bind buckets, mirrored.
//!
//! The kernel keeps one `inet_bind_bucket` for each local port in use (include/net/inet_hashtables.h). A bucket that connect()
//! made is shared: every destination may use its port once. A bucket that bind() or listen() made, or joined, is closed: a
//! connect() that searches for a port passes it by, towards every destination (net/ipv4/inet_hashtables.c
//! `__inet_hash_connect`: `fastreuse >= 0 || fastreuseport >= 0`). Accepted sockets and minisockets stay in the bucket that
//! their socket was in (`__inet_inherit_port`, net/ipv4/inet_timewait_sock.c `inet_twsk_hashdance_schedule`), so that the
//! children of a listener keep its port closed after the listener is gone.
//!
//! Not for: which 4-tuples are taken. The destinations count those; [`PortBuckets::class_of`] says how each of their ports counts.

use rustc_hash::FxHashMap;
use serde::Serialize;

/// Why a socket is in the bucket of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BucketUser {
    /// connect() chose the port; also the minisocket of such a socket.
    Connect,
    /// listen().
    Listener,
    /// bind(), whether or not connect() followed.
    Bound,
    /// A listener's child.
    Accepted,
    /// A minisocket of a bound or an accepted socket.
    Minisocket,
}

/// Kinds of users other than connect().
const CLOSING_KINDS: usize = 4;

impl BucketUser {
    fn closing_index(self) -> Option<usize> {
        match self {
            Self::Connect => None,
            Self::Listener => Some(0),
            Self::Bound => Some(1),
            Self::Accepted => Some(2),
            Self::Minisocket => Some(3),
        }
    }
}

/// How a port counts for a destination that uses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortClass {
    /// Outside of the range that is in force: costs nothing.
    #[default]
    Outside,
    /// Any connect() might have chosen it.
    Open,
    /// Reserved or closed: in use here, and not to be had by anybody else.
    Unusable,
}

/// What a change of a bucket means for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum BucketChange {
    /// Nothing for anybody but the user itself.
    Own,
    /// The port was closed or opened while sockets of connect() use it: their destinations count it differently now.
    Others,
}

/// Ports that connect() cannot choose though they are in the range and not reserved, by the strongest reason of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Blocked {
    /// A socket listens there.
    pub listening: u32,
    /// A socket is bound there.
    pub bound: u32,
    /// Only connections of a former listener are left.
    pub accepted: u32,
    /// Only minisockets of bound or accepted sockets are left, or sockets of connect() in a bucket that bind() had closed.
    pub lingering: u32,
}

impl Blocked {
    /// Ports, whatever blocks them.
    pub fn total(&self) -> u32 {
        self.listening + self.bound + self.accepted + self.lingering
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    connect: u32,
    closing: [u32; CLOSING_KINDS],
    /// Stays closed until the last user is gone: kernels before 6.18 never open a bucket again.
    lingering: bool,
}

impl Bucket {
    fn closing(&self) -> bool {
        self.closing.iter().any(|&users| users > 0)
    }

    fn closed(&self) -> bool {
        self.closing() || self.lingering
    }

    fn empty(&self) -> bool {
        self.connect == 0 && !self.closing()
    }
}

/// One bit per port.
type PortSet = [u64; 1024];

/// The buckets of one namespace.
///
/// Bounded by the number of ports: 65,536 buckets of 24 bytes.
#[derive(Clone, Debug, Default)]
pub struct PortBuckets {
    by_port: FxHashMap<u16, Bucket>,
    range: Option<(u16, u16)>,
    reserved: Option<Box<PortSet>>,
    /// Reserved ports inside the range.
    reserved_in_range: u32,
    /// Closed ports inside the range that are not reserved.
    closed_in_range: u32,
    /// The kernel opens a bucket once its last bound socket is gone (6.18), though sockets of connect() stay.
    reopens: bool,
}

impl PortBuckets {
    /// `reopens`: whether this kernel opens a bucket again that bind() had joined (6.18 and later).
    pub fn new(reopens: bool) -> Self {
        Self { reopens, ..Self::default() }
    }

    /// `ip_local_port_range`, both ends inclusive. True if it is another one than before.
    pub fn set_range(&mut self, range: (u16, u16)) -> bool {
        let changed = self.range != Some(range);
        if changed {
            self.range = Some(range);
            self.recount();
        }
        changed
    }

    /// `ip_local_reserved_ports`. True if they are others than before.
    pub fn set_reserved(&mut self, ports: impl IntoIterator<Item = u16>) -> bool {
        let mut set: Option<Box<PortSet>> = None;
        for port in ports {
            let bits = set.get_or_insert_with(|| Box::new([0; 1024]));
            bits[usize::from(port / 64)] |= 1 << (port % 64);
        }
        let changed = self.reserved != set;
        if changed {
            self.reserved = set;
            self.recount();
        }
        changed
    }

    /// No socket has a port.
    pub fn is_empty(&self) -> bool {
        self.by_port.is_empty()
    }

    /// `ip_local_port_range` of the namespace, both ends inclusive; `None` if unknown.
    pub fn range(&self) -> Option<(u16, u16)> {
        self.range
    }

    /// Whether `port` lies in that range; false if the range is unknown.
    pub fn in_range(&self, port: u16) -> bool {
        self.range.is_some_and(|(low, high)| (low..=high).contains(&port))
    }

    /// Whether `port` is one of the reserved ports.
    pub fn is_reserved(&self, port: u16) -> bool {
        self.reserved.as_ref().is_some_and(|bits| bits[usize::from(port / 64)] >> (port % 64) & 1 != 0)
    }

    /// No connect() chooses this port, towards nobody.
    pub fn is_closed(&self, port: u16) -> bool {
        self.by_port.get(&port).is_some_and(Bucket::closed)
    }

    /// How a port counts for the destination that it is used towards.
    pub fn class_of(&self, port: u16) -> PortClass {
        if !self.in_range(port) {
            PortClass::Outside
        } else if self.is_closed(port) || self.is_reserved(port) {
            PortClass::Unusable
        } else {
            PortClass::Open
        }
    }

    /// A socket enters the bucket of `port`.
    pub fn acquire(&mut self, port: u16, user: BucketUser) -> BucketChange {
        let bucket = self.by_port.entry(port).or_default();
        let was_closed = bucket.closed();
        match user.closing_index() {
            None => bucket.connect = bucket.connect.saturating_add(1),
            Some(index) => bucket.closing[index] = bucket.closing[index].saturating_add(1),
        }
        let (closed, others) = (bucket.closed(), bucket.connect > 0);
        self.changed(port, was_closed, closed, others)
    }

    /// A socket leaves the bucket of `port`. What never entered is ignored.
    pub fn release(&mut self, port: u16, user: BucketUser) -> BucketChange {
        let reopens = self.reopens;
        let Some(bucket) = self.by_port.get_mut(&port) else { return BucketChange::Own };
        let was_closed = bucket.closed();
        match user.closing_index() {
            None => bucket.connect = bucket.connect.saturating_sub(1),
            Some(index) => bucket.closing[index] = bucket.closing[index].saturating_sub(1),
        }
        bucket.lingering = !reopens && was_closed && !bucket.closing() && bucket.connect > 0;
        let (closed, others, empty) = (bucket.closed(), bucket.connect > 0, bucket.empty());
        if empty {
            self.by_port.remove(&port);
        }
        self.changed(port, was_closed, closed, others)
    }

    fn changed(&mut self, port: u16, was_closed: bool, closed: bool, others: bool) -> BucketChange {
        if was_closed == closed {
            return BucketChange::Own;
        }
        if self.in_range(port) && !self.is_reserved(port) {
            self.closed_in_range =
                if closed { self.closed_in_range + 1 } else { self.closed_in_range.saturating_sub(1) };
        }
        if others { BucketChange::Others } else { BucketChange::Own }
    }

    /// Ports that connect() could choose towards a destination that nothing is connected to; `None` if the range is unknown.
    ///
    /// An odd range has its whole size: one connect() may miss one port of it, several miss none.
    pub fn usable(&self) -> Option<u32> {
        let (low, high) = self.range?;
        let size = (u32::from(high) + 1).saturating_sub(u32::from(low));
        Some(size.saturating_sub(self.reserved_in_range).saturating_sub(self.closed_in_range))
    }

    /// Reserved ports inside the range.
    pub fn reserved_in_range(&self) -> u32 {
        self.reserved_in_range
    }

    /// Closed ports inside the range that are not reserved: [`Blocked::total`] without a walk.
    pub fn closed_in_range(&self) -> u32 {
        self.closed_in_range
    }

    /// The same by reason. Walks the buckets.
    pub fn blocked(&self) -> Blocked {
        let mut blocked = Blocked::default();
        for bucket in self.closed_buckets().map(|(_, bucket)| bucket) {
            let count = match bucket.closing.map(|users| users > 0) {
                [true, ..] => &mut blocked.listening,
                [_, true, ..] => &mut blocked.bound,
                [_, _, true, _] => &mut blocked.accepted,
                [false, false, false, _] => &mut blocked.lingering,
            };
            *count += 1;
        }
        blocked
    }

    /// The ports of [`Self::blocked`], ascending.
    pub fn blocked_ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.closed_buckets().map(|(port, _)| port).collect();
        ports.sort_unstable();
        ports
    }

    /// Reserved ports inside the range, ascending.
    pub fn reserved_ports(&self) -> Vec<u16> {
        let Some((low, high)) = self.range else { return Vec::new() };
        (low..=high).filter(|&port| self.is_reserved(port)).collect()
    }

    /// All reserved ports, ascending.
    pub fn all_reserved(&self) -> Vec<u16> {
        (0..=u16::MAX).filter(|&port| self.is_reserved(port)).collect()
    }

    fn closed_buckets(&self) -> impl Iterator<Item = (u16, &Bucket)> {
        self.by_port
            .iter()
            .map(|(&port, bucket)| (port, bucket))
            .filter(|&(port, bucket)| bucket.closed() && self.in_range(port) && !self.is_reserved(port))
    }

    /// The two counts again, after the range or the reserved ports have changed.
    fn recount(&mut self) {
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        self.closed_in_range = small(self.closed_buckets().count());
        self.reserved_in_range = match (self.range, &self.reserved) {
            (Some((low, high)), Some(_)) => small((low..=high).filter(|&port| self.is_reserved(port)).count()),
            _ => 0,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn buckets() -> PortBuckets {
        let mut buckets = PortBuckets::new(true);
        buckets.set_range((40_000, 40_063));
        buckets
    }

    #[test]
    fn children_keep_the_port_of_a_closed_listener_from_everybody() {
        let mut buckets = buckets();
        let _ = buckets.acquire(40_001, BucketUser::Listener);
        let _ = buckets.acquire(40_001, BucketUser::Accepted);
        let _ = buckets.release(40_001, BucketUser::Listener);
        assert_eq!((buckets.usable(), buckets.blocked().accepted), (Some(63), 1));
        // The server closes first: its minisocket takes the child's place.
        let _ = buckets.acquire(40_001, BucketUser::Minisocket);
        let _ = buckets.release(40_001, BucketUser::Accepted);
        assert_eq!((buckets.usable(), buckets.blocked().lingering), (Some(63), 1));
        let _ = buckets.release(40_001, BucketUser::Minisocket);
        assert_eq!((buckets.usable(), buckets.blocked().total()), (Some(64), 0));
        assert!(buckets.by_port.is_empty(), "an unused port takes no memory");
    }

    #[test]
    fn a_bind_that_joins_closes_the_port_and_6_18_opens_it_again() {
        for (reopens, after) in [(true, 64), (false, 63)] {
            let mut buckets = PortBuckets::new(reopens);
            buckets.set_range((40_000, 40_063));
            assert_eq!(buckets.acquire(40_002, BucketUser::Connect), BucketChange::Own);
            assert_eq!(buckets.usable(), Some(64), "connect() shares its port");
            assert_eq!(buckets.acquire(40_002, BucketUser::Bound), BucketChange::Others);
            assert_eq!((buckets.usable(), buckets.class_of(40_002)), (Some(63), PortClass::Unusable));
            let _ = buckets.release(40_002, BucketUser::Bound);
            assert_eq!(buckets.usable(), Some(after));
            let _ = buckets.release(40_002, BucketUser::Connect);
            assert_eq!(buckets.usable(), Some(64));
        }
    }

    #[test]
    fn ports_outside_of_the_present_range_cost_nothing() {
        let mut buckets = buckets();
        let _ = buckets.acquire(40_010, BucketUser::Bound);
        let _ = buckets.acquire(50_000, BucketUser::Bound);
        assert_eq!(buckets.usable(), Some(63));
        assert!(buckets.set_range((50_000, 50_004)));
        assert_eq!((buckets.usable(), buckets.class_of(40_010)), (Some(4), PortClass::Outside));
        assert!(!buckets.set_range((50_000, 50_004)), "nothing has changed");
    }

    #[test]
    fn odd_ranges_and_ranges_of_one_port_have_their_whole_size() {
        let mut buckets = PortBuckets::new(true);
        for (range, size) in [((40_000, 40_008), 9), ((40_000, 40_000), 1), ((0, 65_535), 65_536)] {
            buckets.set_range(range);
            assert_eq!(buckets.usable(), Some(size));
        }
    }

    #[test]
    fn reserved_ports_count_once_whoever_holds_them() {
        let mut buckets = buckets();
        let _ = buckets.acquire(40_003, BucketUser::Listener);
        assert!(buckets.set_reserved((40_001..=40_063).step_by(2)));
        assert_eq!((buckets.usable(), buckets.reserved_in_range(), buckets.blocked().total()), (Some(32), 32, 0));
        let _ = buckets.release(40_003, BucketUser::Listener);
        assert_eq!(buckets.usable(), Some(32));
        assert!(buckets.set_reserved([]));
        assert_eq!(buckets.usable(), Some(64));
    }

    /// What a random history does.
    #[derive(Clone, Debug)]
    enum Step {
        Connect(u8),
        Bind(u16),
        Listen(u16),
        /// The socket at this position (modulo) accepts, closes for good, or leaves a minisocket.
        Accept(usize),
        Close(usize),
        TimeWait(usize),
        Range(u16, u16),
        Reserve(u16, u16),
    }

    /// A reference: sockets in a list, every question answered by looking at all of them, as the kernel's rules read.
    #[derive(Clone, Debug)]
    struct Socket {
        port: u16,
        to: Option<u8>,
        user: BucketUser,
    }

    #[derive(Default)]
    struct Reference {
        sockets: Vec<Socket>,
        /// Ports whose bucket bind() has closed and that are not empty yet (for kernels that never open one again).
        stuck: std::collections::BTreeSet<u16>,
        range: (u16, u16),
        reserved: (u16, u16),
        reopens: bool,
    }

    impl Reference {
        fn closed(&self, port: u16) -> bool {
            let bound = self.sockets.iter().any(|socket| socket.port == port && socket.user != BucketUser::Connect);
            bound || (!self.reopens && self.stuck.contains(&port))
        }

        fn settle(&mut self) {
            let sockets = &self.sockets;
            let bound: Vec<u16> = sockets.iter().filter(|s| s.user != BucketUser::Connect).map(|s| s.port).collect();
            self.stuck.extend(bound);
            self.stuck.retain(|&port| sockets.iter().any(|socket| socket.port == port));
        }

        /// Every port that a connect() to this destination could get now.
        fn free(&self, to: u8) -> Vec<u16> {
            let taken = |port: u16| self.sockets.iter().any(|socket| socket.port == port && socket.to == Some(to));
            let reserved = |port: u16| (self.reserved.0..=self.reserved.1).contains(&port);
            (self.range.0..=self.range.1)
                .filter(|&port| !reserved(port) && !self.closed(port) && !taken(port))
                .collect()
        }
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let port = 100_u16..116;
        prop::collection::vec(
            prop_oneof![
                6 => (0_u8..3).prop_map(Step::Connect),
                2 => port.clone().prop_map(Step::Bind),
                1 => port.clone().prop_map(Step::Listen),
                2 => any::<usize>().prop_map(Step::Accept),
                3 => any::<usize>().prop_map(Step::Close),
                2 => any::<usize>().prop_map(Step::TimeWait),
                1 => (port.clone(), 0_u16..12).prop_map(|(low, size)| Step::Range(low, low + size)),
                1 => (port, 0_u16..4).prop_map(|(low, size)| Step::Reserve(low, low + size)),
            ],
            1..80,
        )
    }

    proptest! {
        /// The ledger names as many free ports as the kernel's rules leave, at every step, towards every destination.
        #[test]
        fn what_is_free_is_what_the_kernels_rules_leave(steps in steps(), reopens in any::<bool>()) {
            let mut reference = Reference { range: (100, 107), reserved: (1, 0), reopens, ..Reference::default() };
            let mut buckets = PortBuckets::new(reopens);
            buckets.set_range(reference.range);
            for step in steps {
                match step {
                    Step::Connect(to) => {
                        if let Some(&port) = reference.free(to).first() {
                            reference.sockets.push(Socket { port, to: Some(to), user: BucketUser::Connect });
                            let _ = buckets.acquire(port, BucketUser::Connect);
                        }
                    }
                    Step::Bind(port) => {
                        reference.sockets.push(Socket { port, to: None, user: BucketUser::Bound });
                        let _ = buckets.acquire(port, BucketUser::Bound);
                    }
                    Step::Listen(port) => {
                        reference.sockets.push(Socket { port, to: None, user: BucketUser::Listener });
                        let _ = buckets.acquire(port, BucketUser::Listener);
                    }
                    Step::Accept(at) => {
                        let listeners: Vec<u16> =
                            reference.sockets.iter().filter(|s| s.user == BucketUser::Listener).map(|s| s.port).collect();
                        if let Some(&port) = listeners.get(at % listeners.len().max(1)) {
                            reference.sockets.push(Socket { port, to: None, user: BucketUser::Accepted });
                            let _ = buckets.acquire(port, BucketUser::Accepted);
                        }
                    }
                    Step::Close(at) if !reference.sockets.is_empty() => {
                        let socket = reference.sockets.remove(at % reference.sockets.len());
                        let _ = buckets.release(socket.port, socket.user);
                    }
                    Step::TimeWait(at) if !reference.sockets.is_empty() => {
                        let at = at % reference.sockets.len();
                        let socket = &mut reference.sockets[at];
                        if matches!(socket.user, BucketUser::Bound | BucketUser::Accepted) {
                            let was = std::mem::replace(&mut socket.user, BucketUser::Minisocket);
                            // The minisocket enters before the socket leaves.
                            let _ = buckets.acquire(socket.port, BucketUser::Minisocket);
                            let _ = buckets.release(socket.port, was);
                        }
                    }
                    Step::Close(_) | Step::TimeWait(_) => {}
                    Step::Range(low, high) => {
                        reference.range = (low, high);
                        buckets.set_range((low, high));
                    }
                    Step::Reserve(low, high) => {
                        reference.reserved = (low, high);
                        buckets.set_reserved(low..=high);
                    }
                }
                reference.settle();
                for to in 0..3 {
                    let open = reference.sockets.iter().filter(|socket| socket.to == Some(to));
                    let in_use_open = open.filter(|socket| buckets.class_of(socket.port) == PortClass::Open).count();
                    let free = buckets.usable().expect("a range") - u32::try_from(in_use_open).expect("few");
                    prop_assert_eq!(usize::try_from(free).expect("few"), reference.free(to).len(), "towards {}", to);
                }
                prop_assert_eq!(buckets.blocked().total(), buckets.closed_in_range());
                prop_assert_eq!(buckets.blocked_ports().len(), usize::try_from(buckets.closed_in_range()).expect("few"));
            }
        }
    }
}
