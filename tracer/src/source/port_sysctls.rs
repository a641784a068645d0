//! Port range and reserved ports of network namespaces, read again every second.
//!
//! A change of either counts from the moment it is made. The kernel's records tell of it with the next connect; these files tell
//! where nothing connects. A file of /proc/sys/net stays with the namespace in which it was opened, may be read from any
//! other, and does not keep the namespace alive: once that is gone, reading fails.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use tracer_core::event::{Event, Ktime, Netns, NetnsFacts};

/// Namespaces with files kept open, two each: with all else that is open they stay below the usual limit of 1,024 descriptors. Those
/// of further namespaces are read with every list of sockets only.
pub const MAX_WATCHED: usize = 256;
/// The kernel writes into the first read whatever fits and nothing into a second one (kernel/sysctl.c `proc_do_large_bitmap`).
const USUAL_BYTES: usize = 4 * 1024;
/// Every other port of 65,536, each with its comma.
const MOST_BYTES: usize = 32_768 * 6;
/// Pause between two looks at the files: a change is seen within a second.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A look that takes longer than usual (5 us for each file, more for a long list of reserved ports) is followed by a pause this many
/// times as long, so that looks take 0.2 % of one CPU at most.
const LOOK_SHARE: u32 = 500;

/// The two files of one namespace.
#[derive(Debug)]
pub struct PortSysctls {
    netns: Netns,
    range: File,
    reserved: File,
    /// What was in them when they were last read.
    last: [Vec<u8>; 2],
}

impl PortSysctls {
    /// Opens the files of the namespace that the calling thread is in and reads them once.
    ///
    /// # Errors
    /// A file could not be opened or read.
    pub fn open(netns: Netns) -> io::Result<Self> {
        let range = File::open("/proc/sys/net/ipv4/ip_local_port_range")?;
        let reserved = File::open("/proc/sys/net/ipv4/ip_local_reserved_ports")?;
        let last = [whole(&range)?, whole(&reserved)?];
        Ok(Self { netns, range, reserved, last })
    }

    /// Both ends inclusive.
    pub fn port_range(&self) -> Option<(u16, u16)> {
        let text = std::str::from_utf8(&self.last[0]).ok()?;
        let mut ends = text.split_whitespace().map(str::parse::<u16>);
        Some((ends.next()?.ok()?, ends.next()?.ok()?))
    }

    /// The reserved ports, ascending.
    pub fn reserved_ports(&self, at: Ktime) -> Event {
        Event::ReservedPorts(at, self.netns, port_list(&String::from_utf8_lossy(&self.last[1])).into())
    }

    /// Reads the files again; yields what has changed. Nothing can be read any more once the namespace is gone.
    fn changes(&mut self, at: Ktime) -> Vec<Event> {
        let mut events = Vec::new();
        if let Ok(now) = whole(&self.range)
            && now != self.last[0]
        {
            self.last[0] = now;
            let facts =
                NetnsFacts { ktime: at, netns: self.netns, port_range: self.port_range(), ..NetnsFacts::default() };
            events.push(Event::Netns(Box::new(facts)));
        }
        if let Ok(now) = whole(&self.reserved)
            && now != self.last[1]
        {
            self.last[1] = now;
            events.push(self.reserved_ports(at));
        }
        events
    }
}

/// The files of all namespaces that the last list of sockets went through.
#[derive(Debug, Default)]
pub struct PortSysctlWatch {
    files: Vec<PortSysctls>,
}

impl PortSysctlWatch {
    /// Watches these.
    pub fn new(files: Vec<PortSysctls>) -> Self {
        Self { files }
    }

    /// What has changed since the last look.
    pub fn changes(&mut self, at: Ktime) -> Vec<Event> {
        self.files.iter_mut().flat_map(|files| files.changes(at)).collect()
    }

    /// How long to wait after a look that took so long.
    pub fn pause_after(look: Duration) -> Duration {
        (look * LOOK_SHARE).max(LOOK_EVERY)
    }
}

/// What the file holds, from one read.
fn whole(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; USUAL_BYTES];
    let mut read = file.read_at(&mut bytes, 0)?;
    if read == bytes.len() {
        bytes.resize(MOST_BYTES, 0);
        read = file.read_at(&mut bytes, 0)?;
    }
    bytes.truncate(read);
    Ok(bytes)
}

/// `8080,9000-9010` as single ports.
fn port_list(text: &str) -> Vec<u16> {
    text.trim()
        .split(',')
        .filter_map(|item| {
            let (low, high) = item.split_once('-').unwrap_or((item, item));
            Some(low.parse::<u16>().ok()?..=high.parse::<u16>().ok()?)
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(port_list("8080,9000-9002\n"), [8080, 9000, 9001, 9002]);
        assert_eq!(port_list("\n"), Vec::<u16>::new());
    }

    /// As long as the kernel can make one.
    #[test]
    fn a_list_of_every_other_port_is_read_whole() {
        let path = tempfile::NamedTempFile::new().expect("a file");
        let text = (1..=u16::MAX).step_by(2).map(|port| port.to_string()).collect::<Vec<_>>().join(",") + "\n";
        std::fs::write(path.path(), &text).expect("written");
        let bytes = whole(&File::open(path.path()).expect("a file")).expect("readable");
        assert_eq!(String::from_utf8(bytes).expect("text"), text);
    }

    #[test]
    fn a_look_costs_a_fifth_of_a_percent_at_most() {
        assert_eq!(PortSysctlWatch::pause_after(Duration::from_micros(30)), Duration::from_secs(1));
        assert_eq!(PortSysctlWatch::pause_after(Duration::from_millis(4)), Duration::from_secs(2));
    }
}
