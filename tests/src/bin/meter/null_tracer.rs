//! User space of the null tracer (tracer-ebpf/src/null_tracer.rs): reads its ring as often as portchurn does, and
//! counts records.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use aya::maps::RingBuf;
use aya::programs::BtfTracePoint;
use aya::{Btf, Ebpf};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The shortest pause of portchurn between two reads.
const POLL: Duration = Duration::from_millis(20);

/// Runs until SIGTERM, then prints the number of records read.
#[expect(clippy::print_stdout, reason = "the program's answer")]
pub fn run(object: &Path, program: &str) -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    let stop = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK)?;
    let btf = Btf::from_sys_fs()?;
    let mut ebpf = Ebpf::load_file(object).with_context(|| format!("loading {}", object.display()))?;
    let attached: &mut BtfTracePoint = ebpf.program_mut(program).context("no such program")?.try_into()?;
    attached.load("inet_sock_set_state", &btf)?;
    attached.attach()?;
    let mut ring = RingBuf::try_from(ebpf.map_mut("RECORDS").context("the ring")?)?;
    eprintln!("meter: ready");
    let mut records = 0_u64;
    loop {
        let over = stop.read_signal()?.is_some();
        while let Some(record) = ring.next() {
            records += u64::from(!record.is_empty());
        }
        if over {
            println!("{records}");
            return Ok(());
        }
        std::thread::sleep(POLL);
    }
}
