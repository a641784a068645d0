//! The kernel's sockets as `ss` lists them, to compare with the sockets that the tracer reports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};

use crate::netns::TestNamespace;
use crate::process::{ktime_ns, output};

/// One line of `ss`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SsRow {
    /// State as reports name it: `TIME_WAIT`, not `TIME-WAIT`.
    pub state: String,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// True for a minisocket: `TIME_WAIT`, or `FIN_WAIT2` with the `TIME_WAIT` timer.
    pub minisocket: bool,
}

/// All TCP sockets of a namespace except listeners, and when `ss` ran.
#[derive(Clone, Debug)]
pub struct SocketListing {
    pub began_ns: u64,
    pub ended_ns: u64,
    pub rows: Vec<SsRow>,
}

impl SocketListing {
    pub fn take(namespace: &TestNamespace) -> Result<Self> {
        let began_ns = ktime_ns();
        let text = output(namespace.command("ss").args(["-Htano"]))?;
        let ended_ns = ktime_ns();
        let rows = text.lines().filter(|line| !line.starts_with("LISTEN")).map(parse).collect::<Result<_>>()?;
        Ok(Self { began_ns, ended_ns, rows })
    }

    pub fn minisockets(&self) -> BTreeSet<(SocketAddr, SocketAddr)> {
        self.rows.iter().filter(|row| row.minisocket).map(|row| (row.local, row.remote)).collect()
    }

    /// Number of sockets towards `remote` by state: the occupancy of one destination.
    pub fn towards(&self, remote: SocketAddr) -> BTreeMap<String, u32> {
        let mut states = BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.remote == remote) {
            *states.entry(row.state.clone()).or_default() += 1;
        }
        states
    }
}

fn parse(line: &str) -> Result<SsRow> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [state, _, _, local, remote, ..] = fields.as_slice() else { anyhow::bail!("a line of ss: {line:?}") };
    let state = match *state {
        "ESTAB" => "ESTABLISHED".into(),
        "CLOSE-WAIT" => "CLOSE_WAIT".into(),
        "TIME-WAIT" => "TIME_WAIT".into(),
        "FIN-WAIT-1" => "FIN_WAIT1".into(),
        "FIN-WAIT-2" => "FIN_WAIT2".into(),
        "LAST-ACK" => "LAST_ACK".into(),
        "SYN-SENT" => "SYN_SENT".into(),
        "SYN-RECV" => "SYN_RECV".into(),
        other => other.to_owned(),
    };
    let minisocket = line.contains("timer:(timewait") || state == "TIME_WAIT";
    Ok(SsRow { state, local: endpoint(local)?, remote: endpoint(remote)?, minisocket })
}

/// `127.0.0.1:80`, `127.0.0.1%lo:80`, `[::1]:80`, `[::ffff:127.0.0.1]:80`.
fn endpoint(text: &str) -> Result<SocketAddr> {
    let (addr, port) = text.rsplit_once(':').with_context(|| format!("an endpoint: {text:?}"))?;
    let addr = addr.trim_start_matches('[').trim_end_matches(']');
    let addr = addr.split('%').next().unwrap_or(addr);
    let addr: IpAddr = addr.parse().with_context(|| format!("an address: {text:?}"))?;
    Ok(SocketAddr::new(addr.to_canonical(), port.parse().with_context(|| format!("a port: {text:?}"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_ss() {
        let row = parse("TIME-WAIT 0 0 127.0.0.1:32770 127.0.0.1:9000 timer:(timewait,59sec,0)").expect("a row");
        assert_eq!((row.state.as_str(), row.minisocket, row.local.port()), ("TIME_WAIT", true, 32770));
        let row =
            parse("FIN-WAIT-2 0 0 [::ffff:10.0.0.1]:1 [::ffff:10.0.0.2]:2 timer:(timewait,3sec,0)").expect("a row");
        assert!(row.minisocket && row.local.is_ipv4());
        let row = parse("FIN-WAIT-2 0 0 [::1]:1 [::1]:2").expect("a row");
        assert!(!row.minisocket && row.local.is_ipv6());
        assert!(parse("ESTAB 0").is_err());
    }
}
