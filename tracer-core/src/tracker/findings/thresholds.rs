//! When a number becomes a finding.

/// The numbers from which on something is a finding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Ports that run out within this many seconds: a quarter of an hour is time enough to look and act.
    pub soon_seconds: f64,
    /// Ports that run out within this many seconds are critical: no port in `TIME_WAIT` becomes free before.
    pub soon_critical_seconds: f64,
    /// Milliseconds of a slow port search: five times what one costs while ports are plenty. Ranges of some thousand ports stay below.
    pub search_slow_ms: f64,
    /// A search is slow if it takes this many times the quickest: at half of the range the cost rises by ten and more.
    pub search_slow_factor: f64,
    /// Share of the capacity that one workload keeps in `TIME_WAIT`: four such workloads fill it.
    pub churn_share: f64,
    /// The same as a warning: from half of the range on every connect() searches all even ports first, at ten times the cost.
    pub churn_warning_share: f64,
    /// Median lifetime of short connections, milliseconds: those that carry one request are shorter, pooled ones are not.
    pub short_lifetime_ms: f64,
    /// Age of a pooled connection, seconds: a single request does not take that long. In a window of less than twice that half of the window
    /// is enough.
    pub long_lived_seconds: f64,
    /// The least age of a pooled connection, seconds: thousands of times what a short one lives.
    pub long_lived_least_seconds: f64,
    /// Short connections per second beside a pool: below one, a pool that renews its connections looks the same.
    pub bypass_per_second: f64,
    /// Connects of a workload to one place that fail for one other reason in a minute: one or two are retries that nobody notices.
    pub failed_count: u64,
    /// From so many a minute on (one every two seconds) they matter whatever their share.
    pub failed_many: u64,
    /// Their share of the connects from which on few matter too: one in twenty users.
    pub failed_share: f64,
    /// Their share from which on many are critical: the service is down for its clients.
    pub failed_critical_share: f64,
    /// Connects that wait for an answer while none is answered: more than a handshake or a lost SYN leaves at one time.
    pub unanswered_count: u32,
    /// Connections that a proxy opens in a minute: five a second are 300 ports in TIME_WAIT; with fewer two equal numbers are chance.
    pub proxy_count: u64,
    /// By how much the numbers of accepted and opened connections may differ, as a share: connections that are under way at either end of
    /// the minute, and health checks.
    pub proxy_difference: f64,
    /// Sockets in `CLOSE_WAIT` of one workload: a few are normal while programs react to the end of a connection.
    pub close_wait_count: u64,
    /// Age of the oldest of them, seconds: no program takes a minute to react. In a window of less than twice that half of the window is
    /// enough, so that a short trace sees a leak too.
    pub close_wait_seconds: f64,
    /// The least age of the oldest, seconds: a program that is busy reacts later than that only if it leaks.
    pub close_wait_least_seconds: f64,
    /// From so many on the least age is enough: no pool leaves a hundred closed connections lying about.
    pub close_wait_many: u64,
    /// Age from which on they are suspected, seconds: ten times what a loaded event loop needs.
    pub close_wait_suspect_seconds: f64,
    /// Half-closed sockets towards one destination; fewer do not matter.
    pub half_closed_count: u32,
    /// Ports in `FIN_WAIT2` towards one destination; fewer do not matter.
    pub fin_wait2_count: u32,
    /// Their share of the ports in use towards that destination.
    pub fin_wait2_share: f64,
    /// Half-open connections at one listener: the accept backlog that most programs ask for.
    pub syn_recv_count: u32,
    /// Share of the range that bind() and listen() take away from every destination.
    pub blocked_share: f64,
    /// Share of the connection-tracking table in use: the fifth that is left is one burst of new connections.
    pub conntrack_warning: f64,
    /// The same as critical: the next burst drops packets.
    pub conntrack_critical: f64,
    /// Entries per chain of that table: with four every packet walks past two others on average, twice as many as the kernel plans for.
    pub conntrack_depth: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            soon_seconds: 900.0,
            soon_critical_seconds: 60.0,
            search_slow_ms: 0.25,
            search_slow_factor: 4.0,
            churn_share: 0.25,
            churn_warning_share: 0.5,
            short_lifetime_ms: 1_000.0,
            long_lived_seconds: 30.0,
            long_lived_least_seconds: 5.0,
            bypass_per_second: 1.0,
            proxy_count: 300,
            proxy_difference: 0.1,
            close_wait_count: 16,
            failed_count: 3,
            failed_many: 30,
            failed_share: 0.05,
            failed_critical_share: 0.5,
            unanswered_count: 16,
            close_wait_seconds: 60.0,
            close_wait_least_seconds: 10.0,
            close_wait_many: 100,
            close_wait_suspect_seconds: 5.0,
            half_closed_count: 100,
            fin_wait2_count: 100,
            fin_wait2_share: 0.2,
            syn_recv_count: 128,
            blocked_share: 0.1,
            conntrack_warning: 0.8,
            conntrack_critical: 0.95,
            conntrack_depth: 4.0,
        }
    }
}
