//! `10.0.0.0/8:443`: an address or network, a port, or both.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::Ipv6Net;

use crate::event::Addr;

/// IPv4 lives in `::ffff:0:0/96` of [`Addr`].
const MAPPED_BITS: u8 = 96;

/// What was expected where a value is none of these.
pub(super) const EXPECTED: &str = "an address (10.0.0.1, 2001:db8::1), a network (10.0.0.0/8), a port (:443), or both (10.0.0.0/8:443, [2001:db8::1]:443)";

/// The address and port that one end of a flow must have; `None` = any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndpointPattern {
    network: Option<Ipv6Net>,
    port: Option<u16>,
}

impl EndpointPattern {
    /// Parses the value of `src` or `dst`; `None` if it is neither an address, nor a network, nor a port.
    pub(super) fn parse(text: &str) -> Option<Self> {
        // A number alone is a port, although it could be an address.
        if let Ok(port) = text.parse() {
            return Some(Self { network: None, port: Some(port) });
        }
        let (network, port) = split_port(text)?;
        let network = match network {
            "" | "*" => None,
            network => Some(parse_network(network)?),
        };
        let port = port.map(str::parse).transpose().ok()?;
        (network.is_some() || port.is_some() || text == "*").then_some(Self { network, port })
    }

    /// Does the end of a flow have this address and port? `None` = a part that decides is unknown.
    pub(super) fn holds(self, addr: Option<Addr>, port: Option<u16>) -> Option<bool> {
        let addr =
            self.network.map_or(Some(true), |network| addr.map(|addr| network.contains(&Ipv6Addr::from(addr.0))));
        let port = self.port.map_or(Some(true), |wanted| port.map(|port| port == wanted));
        match (addr, port) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (addr, port) => Some(addr? && port?),
        }
    }
}

/// `[net]:port`, `[net]/len:port`, `net:port`, `:port`, `net`; IPv6 with a port needs the brackets.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if text.starts_with('[') {
        let end = text.find(']')?;
        let after = text.get(end + 1..)?;
        return match after.rsplit_once(':') {
            // The prefix length may stand behind the bracket; `parse_network` takes the bracket off.
            Some((length, port)) => {
                let network = text.get(..=end + length.len())?;
                Some((network, Some(port)))
            }
            None => Some((text, None)),
        };
    }
    match text.split_once(':') {
        Some((network, port)) if !port.contains(':') => Some((network, Some(port))),
        _ => Some((text, None)),
    }
}

/// An address or a network of either family, in the form that [`Addr`] has; `None` if `text` is neither.
fn parse_network(text: &str) -> Option<Ipv6Net> {
    let (addr, length) = match text.strip_prefix('[') {
        // `[addr]`, `[addr/len]`, `[addr]/len`.
        Some(inner) => {
            let (inside, after) = inner.split_once(']')?;
            match (inside.split_once('/'), after.strip_prefix('/')) {
                (Some((addr, length)), None) if after.is_empty() => (addr, Some(length)),
                (None, Some(length)) => (inside, Some(length)),
                (None, None) if after.is_empty() => (inside, None),
                _ => return None,
            }
        }
        None => match text.split_once('/') {
            Some((addr, length)) => (addr, Some(length)),
            None => (text, None),
        },
    };
    let ip: IpAddr = addr.parse().ok()?;
    let mapped = if ip.is_ipv4() { MAPPED_BITS } else { 0 };
    let full = 128 - mapped;
    let length: u8 = length.map_or(Some(full), |length| length.parse().ok())?;
    if length > full {
        return None;
    }
    Ipv6Net::new(Ipv6Addr::from(Addr::from(ip).0), mapped + length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(place: &str, addr: &str, port: u16) -> bool {
        let addr = addr.parse::<IpAddr>().expect("address").into();
        EndpointPattern::parse(place).expect(place).holds(Some(addr), Some(port)) == Some(true)
    }

    #[test]
    fn every_form_means_what_it_says() {
        for (place, addr, port, expected) in [
            ("10.0.0.1", "10.0.0.1", 1, true),
            ("10.0.0.1", "10.0.0.2", 1, false),
            ("10.0.0.1", "::ffff:10.0.0.1", 1, true),
            ("10.0.0.0/8", "10.255.0.1", 1, true),
            ("10.9.9.9/8", "10.255.0.1", 1, true),
            ("10.0.0.0/8", "11.0.0.1", 1, false),
            ("10.0.0.0/8:443", "10.1.1.1", 443, true),
            ("10.0.0.0/8:443", "10.1.1.1", 80, false),
            ("0.0.0.0/0", "192.0.2.1", 1, true),
            ("0.0.0.0/0", "2001:db8::1", 1, false),
            ("::/0", "2001:db8::1", 1, true),
            (":443", "2001:db8::1", 443, true),
            ("443", "2001:db8::1", 443, true),
            ("*:443", "192.0.2.1", 443, true),
            ("443", "2001:db8::1", 80, false),
            ("2001:db8::1", "2001:db8::1", 1, true),
            ("2001:db8::/32", "2001:db8:ffff::1", 1, true),
            ("2001:db8::/32", "2001:db9::1", 1, false),
            ("[2001:db8::1]", "2001:db8::1", 1, true),
            ("[2001:db8::1]:443", "2001:db8::1", 443, true),
            ("[2001:db8::1]:443", "2001:db8::1", 80, false),
            ("[2001:db8::/32]:443", "2001:db8::9", 443, true),
            ("[2001:db8::]/32:443", "2001:db8::9", 443, true),
            ("[2001:db8::]/32", "2001:db8::9", 1, true),
            ("::1", "::1", 1, true),
        ] {
            assert_eq!(holds(place, addr, port), expected, "{place} with {addr} {port}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for place in [
            "",
            ":",
            "10.0.0",
            "10.0.0.1:",
            "10.0.0.1:x",
            "10.0.0.1:65536",
            "10.0.0.0/33",
            "::/129",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[::/1]/2",
            "localhost",
            "65536",
            "10.0.0.0/",
            "[]:1",
            "/8",
            "é:1",
            "[é]é:1",
        ] {
            assert_eq!(EndpointPattern::parse(place), None, "{place}");
        }
    }

    #[test]
    fn an_unknown_part_decides_only_where_it_must() {
        let both = EndpointPattern::parse("10.0.0.1:443").expect("valid");
        let addr = |text: &str| Some(Addr::from(text.parse::<IpAddr>().expect("address")));
        assert_eq!(both.holds(addr("10.0.0.1"), None), None);
        assert_eq!(both.holds(addr("10.0.0.2"), None), Some(false));
        assert_eq!(both.holds(None, Some(80)), Some(false));
        assert_eq!(EndpointPattern::parse(":443").expect("valid").holds(None, Some(443)), Some(true));
    }
}
