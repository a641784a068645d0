//! The pool against what was measured on kernels (docs/KERNEL.md), and against the kernel's loop written out.

use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;
/// Towards loopback, where `tcp_tw_reuse` is on by default; 6.18.
const REUSE: ReuseRule = ReuseRule { delay: ReuseDelay::After(1_000 * MS), orphans: false };

fn pool(range: (u16, u16)) -> PortPool {
    PortPool::new(PoolRules { range, ..PoolRules::default() }, 7)
}

fn fill(pool: &mut PortPool, now: u64) -> Vec<u16> {
    std::iter::from_fn(|| Some(pool.connect(now).ok()?.port)).collect()
}

/// 4.1: with all 8 ports in use towards a destination the ninth connect() fails. 4.9: the parity of the low end comes first.
#[test]
fn every_port_is_given_once_and_the_parity_of_the_low_end_first() {
    let mut pool = pool((40_000, 40_007));
    let ports = fill(&mut pool, 0);
    assert_eq!((ports.len(), pool.in_use(), pool.takeable()), (8, 8, 0));
    assert!(ports[..4].iter().all(|port| port % 2 == 0) && ports[4..].iter().all(|port| port % 2 == 1), "{ports:?}");
    assert_eq!(pool.connect(1), Err(NoPort { probes: 8 }));
}

/// 4.11: ranges of 5, 9 and 1 ports give them all over several connects, though one connect() may miss one.
#[test]
fn odd_ranges_lose_no_port_for_good() {
    for (range, size) in [((40_000, 40_004), 5), ((40_000, 40_008), 9), ((40_000, 40_000), 1)] {
        let mut missed = 0;
        for seed in 0..50 {
            let mut pool = PortPool::new(PoolRules { range, ..PoolRules::default() }, seed);
            let first = fill(&mut pool, 0).len();
            missed += size - first;
            // Others connect in between, each with an offset of its own.
            let all = (0..100).filter(|_| {
                pool.perturb = pool.noise.below(1 << 32);
                pool.connect(1).is_ok()
            });
            assert_eq!(first + all.count(), size);
        }
        assert_eq!(missed > 0, size > 1, "of {size} ports {missed} were missed at first");
    }
}

/// 3.8: 49 connects a second on 64 ports of loopback ran without a failure for 8 s: 393 connects, 329 re-uses, 64 in TIME_WAIT.
#[test]
fn reuse_carries_churn_that_time_wait_would_not() {
    let rules = PoolRules { range: (40_000, 40_063), reuse: Some(REUSE), ..PoolRules::default() };
    let mut pool = PortPool::new(rules, 7);
    let mut reused = 0;
    for n in 0..393_u64 {
        let now = n * 1_000 * MS / 49;
        let found = pool.connect(now).expect("a port");
        reused += u32::from(found.reused);
        pool.close(found.port, now + MS, Left::TimeWait { timestamps: true });
    }
    assert_eq!((reused, pool.time_wait()), (329, 64));
}

/// 3.9 and 3.10: without the peer's timestamps, and of orphans, nothing is re-used; orphans end by `tcp_fin_timeout`.
#[test]
fn what_a_minisocket_does_not_allow_is_not_reused() {
    let rules =
        PoolRules { range: (40_000, 40_063), reuse: Some(REUSE), fin_timeout: 3_000 * MS, ..PoolRules::default() };
    let after = |left, rules: &PoolRules, now| {
        let mut pool = PortPool::new(rules.clone(), 7);
        for port in fill(&mut pool, 0) {
            pool.close(port, 0, left);
        }
        pool.expire(now, |_, _| {});
        (pool.connect(now).is_ok(), pool.in_use())
    };
    let orphan = Left::Orphan { timestamps: true };
    assert_eq!(after(Left::TimeWait { timestamps: false }, &rules, 2_500 * MS), (false, 64));
    assert_eq!(after(orphan, &rules, 2_500 * MS), (false, 64));
    assert_eq!(after(orphan, &rules, 5_500 * MS), (true, 1), "fin_timeout 3 s: all are free after 5.5 s");
    let old = PoolRules { reuse: Some(ReuseRule { orphans: true, ..REUSE }), ..rules.clone() };
    assert_eq!(after(orphan, &old, 2_500 * MS), (true, 64), "5.10 takes orphans over");
    let time_wait = Left::TimeWait { timestamps: true };
    assert_eq!(after(time_wait, &rules, 1_000 * MS), (false, 64), "the delay is not over");
    assert_eq!(after(time_wait, &rules, 1_005 * MS), (true, 64));
    let old = PoolRules { reuse: Some(ReuseRule { delay: ReuseDelay::NextSecond, ..REUSE }), ..rules.clone() };
    assert_eq!((after(time_wait, &old, 999 * MS).0, after(time_wait, &old, 1_000 * MS).0), (false, true));
    assert_eq!(after(Left::Nothing, &rules, 0), (true, 1));
    // 3.3: 60 s at least, 62.05 s at most.
    assert_eq!(after(time_wait, &PoolRules { reuse: None, ..rules.clone() }, 59_999 * MS), (false, 64));
    assert_eq!(after(time_wait, &PoolRules { reuse: None, ..rules }, 62_051 * MS), (true, 1));
}

/// 3.2: when the peer's FIN comes, a whole TIME_WAIT follows.
#[test]
fn an_orphan_becomes_a_time_wait_when_its_peer_closes() {
    let mut pool = pool((40_000, 40_001));
    let port = pool.connect(0).expect("a port").port;
    pool.close(port, 0, Left::Orphan { timestamps: true });
    pool.peer_closes(port, 50 * SECOND);
    assert_eq!((pool.orphans(), pool.time_wait()), (0, 1));
    pool.expire(109 * SECOND, |_, _| {});
    assert_eq!(pool.in_use(), 1);
    pool.expire(113 * SECOND, |_, _| {});
    assert_eq!(pool.in_use(), 0);
}

/// 4.10: the search becomes slow at half of the range.
#[test]
fn a_search_walks_half_of_the_range_once_half_of_it_is_taken() {
    let mut pool = pool((30_000, 57_999));
    let probes: Vec<u32> = (0..28_000).map(|_| pool.connect(0).expect("a port").probes).collect();
    let median = |part: &[u32]| {
        let mut sorted = part.to_vec();
        sorted.sort_unstable();
        sorted[sorted.len() / 2]
    };
    assert!(median(&probes[..12_600]) < 100, "up to 45 %: {}", median(&probes[..12_600]));
    assert!(median(&probes[14_000..15_400]) > 14_000, "50 to 55 %");
}

/// 4.14: reserved ports, and those that bind() closed, are passed over; 4.13: a range of the socket's own has no parity.
#[test]
fn closed_ports_are_passed_over_and_their_users_keep_them() {
    let mut pool = PortPool::new(PoolRules { range: (40_000, 40_007), parity: false, ..PoolRules::default() }, 7);
    let held = pool.connect(0).expect("a port").port;
    pool.close_port(held);
    pool.close_port(if held == 40_003 { 40_004 } else { 40_003 });
    pool.close_port(1_024);
    assert_eq!((fill(&mut pool, 0).len(), pool.in_use()), (6, 7));
    pool.close(held, 1, Left::Nothing);
    assert_eq!(pool.connect(1), Err(NoPort { probes: 8 }));
    pool.open_port(held);
    assert_eq!(pool.connect(1).map(|found| found.port), Ok(held));
}

/// A busy pool whose ports are re-used every second must not remember every minisocket that it had.
#[test]
fn what_is_due_is_bounded() {
    let mut pool = PortPool::new(PoolRules { range: (40_000, 40_063), reuse: Some(REUSE), ..PoolRules::default() }, 7);
    for n in 0..10_000_u64 {
        let found = pool.connect(n * 20 * MS).expect("a port");
        pool.close(found.port, n * 20 * MS, Left::TimeWait { timestamps: true });
        assert!(pool.due.len() <= DUE_PER_PORT * 64 + 2);
    }
}

/// The kernel's loop as it stands in `__inet_hash_connect`, over the same ports.
fn kernels_choice(pool: &PortPool) -> Result<(u16, u32), u32> {
    let (low, high) = (i64::from(pool.rules.range.0), i64::from(pool.rules.range.1) + 1);
    let mut remaining = high - low;
    if remaining > 1 {
        remaining &= !1;
    }
    let step = if pool.rules.parity { 2 } else { 1 };
    let mut offset = i64::try_from(pool.perturb).expect("32 bits") % remaining;
    if pool.rules.parity {
        offset &= !1;
    }
    let mut probes = 0;
    loop {
        let mut port = low + offset;
        let mut i = 0;
        while i < remaining {
            if port >= high {
                port -= remaining;
            }
            probes += 1;
            let slot = pool.slots[usize::try_from(port - low).expect("inside")];
            if !slot.closed && (slot.used == Use::Free || slot.reusable) {
                return Ok((u16::try_from(port).expect("a port"), probes));
            }
            i += step;
            port += step;
        }
        offset += 1;
        if !pool.rules.parity || offset & 1 == 0 || remaining <= 1 {
            return Err(probes);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Connect,
    Close(usize, bool, bool),
    Pass(u64),
    PortClosed(u16, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Connect),
        4 => (any::<usize>(), any::<bool>(), any::<bool>()).prop_map(|(at, nothing, ts)| Step::Close(at, nothing, ts)),
        1 => (0..20_000_u64).prop_map(Step::Pass),
        1 => (40_000..40_150_u16, any::<bool>()).prop_map(|(port, closed)| Step::PortClosed(port, closed)),
    ];
    proptest::collection::vec(step, 1..400)
}

proptest! {
    #[test]
    fn the_walk_is_the_kernels(steps in steps(), size in 1..140_u16, parity: bool, reuse: bool, seed: u64) {
        let rules = PoolRules {
            range: (40_000, 40_000 + size - 1),
            parity,
            reuse: reuse.then_some(REUSE),
            ..PoolRules::default()
        };
        let mut pool = PortPool::new(rules, seed);
        let (mut now, mut live) = (0, Vec::new());
        for step in steps {
            match step {
                Step::Connect => {
                    pool.expire(now, |_, _| {});
                    let expected = kernels_choice(&pool);
                    let found = pool.connect(now);
                    let choice = found.map(|found| (found.port, found.probes)).map_err(|none| none.probes);
                    prop_assert_eq!(choice, expected);
                    live.extend(found.ok().map(|found| found.port));
                }
                Step::Close(at, nothing, timestamps) if !live.is_empty() => {
                    let port = live.swap_remove(at % live.len());
                    let left = if nothing { Left::Nothing } else { Left::TimeWait { timestamps } };
                    pool.close(port, now, left);
                }
                Step::Close(..) => {}
                Step::Pass(millis) => now += millis * MS,
                Step::PortClosed(port, true) => pool.close_port(port),
                Step::PortClosed(port, false) => pool.open_port(port),
            }
            let count = |used| u32::try_from(pool.slots.iter().filter(|slot| slot.used == used).count()).expect("few");
            prop_assert_eq!(pool.live() as usize, live.len());
            prop_assert_eq!(pool.time_wait(), count(Use::TimeWait));
        }
    }
}
