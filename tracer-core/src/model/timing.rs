//! Times that the kernel keeps.

use std::time::Duration;

/// How long a minisocket stays in `TIME_WAIT` (`TCP_TIMEWAIT_LEN`, include/net/tcp.h). No setting changes it.
pub const TIME_WAIT: Duration = Duration::from_mins(1);
/// What the kernel's timer wheel adds to a timer of that length on average, at 250 Hz (kernel/time/timer.c).
pub const WHEEL_DELAY: Duration = Duration::from_secs(1);
