//! Which addresses the daemon may send to.
//!
//! The decision is about an address, never about a name: whoever connects asks it of the address that the connection
//! goes to. Special ranges: IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::proxy::Proxy;

/// What the operator allows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EgressPolicy {
    /// Networks that receivers may sit in although they are private.
    pub allow: Vec<IpNet>,
    /// Whether public addresses may be sent to.
    pub allow_public: bool,
    /// Whether `http` may be used, not only `https`.
    pub allow_http: bool,
    /// Whether loopback may be sent to: a developer's own machine.
    pub allow_loopback: bool,
    /// The proxy that connections go through. It resolves names, so what this policy says about addresses then holds for
    /// those that stand in a URL, and for whatever goes past the proxy.
    pub proxy: Option<Proxy>,
}

/// The rule that refused an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address} is not allowed: {rule}")]
pub struct EgressDenied {
    /// The address.
    pub address: IpAddr,
    /// The rule in words.
    pub rule: Rule,
}

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Loopback, and this is not development.
    Loopback,
    /// Link-local, which is also where clouds keep their metadata.
    LinkLocal,
    /// Not the address of one host: unspecified, multicast, broadcast or reserved.
    NoHost,
    /// Private, and in none of the allowed networks.
    Private,
    /// Public, and public addresses are off.
    Public,
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Loopback => "it is loopback, which only a development daemon sends to",
            Self::LinkLocal => "it is link-local or a metadata service, which is never sent to",
            Self::NoHost => "it is not the address of one host",
            Self::Private => "it is private and in none of the networks of egress.allow",
            Self::Public => "it is public and egress.allow_public is false",
        })
    }
}

/// What lets an address be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// A network of the list.
    Listed(IpNet),
    /// Public, and public addresses are on.
    Public,
    /// Loopback, and this is development.
    Loopback,
}

impl fmt::Display for Grant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listed(network) => write!(formatter, "it is in {network} of egress.allow"),
            Self::Public => formatter.write_str("it is public and egress.allow_public is true"),
            Self::Loopback => formatter.write_str("it is loopback and this is a development daemon"),
        }
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(segments: [u16; 8], length: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length)
}

/// Private networks: RFC 1918, and the shared space of RFC 6598.
const PRIVATE_V4: [Ipv4Net; 4] = [v4(10, 0, 0, 0, 8), v4(172, 16, 0, 0, 12), v4(192, 168, 0, 0, 16), v4(100, 64, 0, 0, 10)];
/// Networks without hosts that could receive anything: protocol assignments, documentation, benchmarks, reserved.
const NO_HOST_V4: [Ipv4Net; 8] = [
    v4(0, 0, 0, 0, 8),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(224, 0, 0, 0, 3),
];
/// Metadata services of clouds that answer outside the link-local range.
const METADATA_V4: [Ipv4Net; 2] = [v4(100, 100, 100, 200, 32), v4(168, 63, 129, 16, 32)];
/// Unique local addresses (RFC 4193).
const PRIVATE_V6: Ipv6Net = v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7);
/// Link-local, and site-local, which routers still may treat alike.
const LINK_LOCAL_V6: [Ipv6Net; 2] = [v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10)];
/// Metadata services of clouds inside the unique local range.
const METADATA_V6: [Ipv6Net; 2] = [v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128), v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128)];
/// Global unicast; everything else that has no rule of its own is not sent to.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);
/// Inside global unicast: protocol assignments and documentation.
const NO_HOST_V6: [Ipv6Net; 3] =
    [v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20)];
/// IPv4 inside IPv6 (RFC 6052), and the range for local use (RFC 8215).
const NAT64: [Ipv6Net; 2] = [v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96), v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48)];
/// 6to4 (RFC 3056): the IPv4 address follows the first 16 bits.
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);
/// Teredo (RFC 4380): the client's IPv4 address is the last 32 bits, inverted.
const TEREDO: Ipv6Net = v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32);

/// The IPv4 address that an IPv6 address stands for, if it stands for one.
fn wrapped(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = address.to_bits();
    let low = Ipv4Addr::from_bits((bits & u128::from(u32::MAX)) as u32);
    if let Some(mapped) = address.to_ipv4_mapped() {
        return Some(mapped);
    }
    if NAT64.iter().any(|network| network.contains(&address)) {
        return Some(low);
    }
    if SIX_TO_FOUR.contains(&address) {
        return Some(Ipv4Addr::from_bits(((bits >> 80) & u128::from(u32::MAX)) as u32));
    }
    if TEREDO.contains(&address) {
        return Some(Ipv4Addr::from_bits(!low.to_bits()));
    }
    // IPv4-compatible addresses (RFC 4291, 2.5.5.1, deprecated), but for `::` and `::1`.
    (bits >> 32 == 0 && bits > 1).then_some(low)
}

impl EgressPolicy {
    /// Decides about one address.
    ///
    /// # Errors
    /// Names the rule that refuses it.
    pub fn decide(&self, address: IpAddr) -> Result<(), EgressDenied> {
        let denied = |rule| Err(EgressDenied { address, rule });
        match self.rule_against(address) {
            None => Ok(()),
            Some(rule) => denied(rule),
        }
    }

    /// Decides about one address as [`EgressPolicy::decide`] does, and says what lets it be sent to.
    ///
    /// # Errors
    /// Names the rule that refuses it.
    pub fn grant(&self, address: IpAddr) -> Result<Grant, EgressDenied> {
        self.decide(address)?;
        let inner = match address {
            IpAddr::V6(wrapping) => wrapped(wrapping).map_or(address, IpAddr::V4),
            IpAddr::V4(_) => address,
        };
        let listed = self.allow.iter().find(|network| network.contains(&inner));
        Ok(match listed {
            _ if inner.is_loopback() => Grant::Loopback,
            Some(network) => Grant::Listed(*network),
            None => Grant::Public,
        })
    }

    fn rule_against(&self, address: IpAddr) -> Option<Rule> {
        match address {
            IpAddr::V4(address) => self.rule_against_v4(address),
            IpAddr::V6(address) => match wrapped(address) {
                // Whatever wraps an address gets no further than the address itself.
                Some(inner) => self.rule_against_v4(inner),
                None => self.rule_against_v6(address),
            },
        }
    }

    fn is_allowed_by_name(&self, address: IpAddr) -> bool {
        self.allow.iter().any(|network| network.contains(&address))
    }

    fn rule_against_v4(&self, address: Ipv4Addr) -> Option<Rule> {
        let within = |networks: &[Ipv4Net]| networks.iter().any(|network| network.contains(&address));
        if address.is_loopback() {
            return (!self.allow_loopback).then_some(Rule::Loopback);
        }
        if address.is_link_local() || within(&METADATA_V4) {
            return Some(Rule::LinkLocal);
        }
        if within(&NO_HOST_V4) {
            return Some(Rule::NoHost);
        }
        if within(&PRIVATE_V4) {
            return (!self.is_allowed_by_name(address.into())).then_some(Rule::Private);
        }
        (!self.allow_public && !self.is_allowed_by_name(address.into())).then_some(Rule::Public)
    }

    fn rule_against_v6(&self, address: Ipv6Addr) -> Option<Rule> {
        let within = |networks: &[Ipv6Net]| networks.iter().any(|network| network.contains(&address));
        if address.is_loopback() {
            return (!self.allow_loopback).then_some(Rule::Loopback);
        }
        if within(&LINK_LOCAL_V6) || within(&METADATA_V6) {
            return Some(Rule::LinkLocal);
        }
        if PRIVATE_V6.contains(&address) {
            return (!self.is_allowed_by_name(address.into())).then_some(Rule::Private);
        }
        if within(&NO_HOST_V6) || !GLOBAL_V6.contains(&address) {
            return Some(Rule::NoHost);
        }
        (!self.allow_public && !self.is_allowed_by_name(address.into())).then_some(Rule::Public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> EgressPolicy {
        EgressPolicy {
            allow: vec!["10.20.0.0/16".parse().unwrap(), "fd12::/16".parse().unwrap()],
            allow_public: true,
            ..Default::default()
        }
    }

    fn rule(address: &str) -> Option<Rule> {
        policy().decide(address.parse().unwrap()).err().map(|denied| denied.rule)
    }

    #[test]
    fn public_and_listed_addresses_are_allowed() {
        for address in ["8.8.8.8", "10.20.1.1", "2606:4700::1111", "fd12::1", "::ffff:8.8.8.8", "::ffff:10.20.1.1", "64:ff9b::8.8.8.8"] {
            assert_eq!(rule(address), None, "{address}");
        }
    }

    #[test]
    fn what_lets_an_address_be_sent_to_is_named() {
        let development = EgressPolicy { allow_loopback: true, ..policy() };
        let grant = |address: &str| development.grant(address.parse().unwrap()).map(|grant| grant.to_string());
        assert_eq!(grant("10.20.1.1").unwrap(), "it is in 10.20.0.0/16 of egress.allow");
        assert_eq!(grant("::ffff:10.20.1.1").unwrap(), "it is in 10.20.0.0/16 of egress.allow");
        assert_eq!(grant("8.8.8.8").unwrap(), "it is public and egress.allow_public is true");
        assert_eq!(grant("::1").unwrap(), "it is loopback and this is a development daemon");
        assert_eq!(grant("10.21.1.1").unwrap_err().rule, Rule::Private);
    }

    #[test]
    fn what_is_never_sent_to_is_refused_in_every_wrapping() {
        let never = [
            ("127.0.0.1", Rule::Loopback),
            ("127.255.255.254", Rule::Loopback),
            ("169.254.169.254", Rule::LinkLocal),
            ("100.100.100.200", Rule::LinkLocal),
            ("168.63.129.16", Rule::LinkLocal),
            ("0.0.0.0", Rule::NoHost),
            ("0.1.2.3", Rule::NoHost),
            ("224.0.0.1", Rule::NoHost),
            ("240.0.0.1", Rule::NoHost),
            ("255.255.255.255", Rule::NoHost),
            ("192.0.2.1", Rule::NoHost),
            ("198.18.0.1", Rule::NoHost),
            ("10.21.0.1", Rule::Private),
            ("172.16.0.1", Rule::Private),
            ("172.31.255.255", Rule::Private),
            ("192.168.0.1", Rule::Private),
            ("100.64.0.1", Rule::Private),
        ];
        for (address, expected) in never {
            assert_eq!(rule(address), Some(expected), "{address}");
            let plain: Ipv4Addr = address.parse().unwrap();
            let [a, b, c, d] = plain.octets();
            let inverted = Ipv4Addr::from_bits(!plain.to_bits());
            let wrappings = [
                format!("::ffff:{address}"),
                format!("64:ff9b::{address}"),
                format!("64:ff9b:1::{address}"),
                format!("2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1"),
                format!("2001:0:1:2:3:4:{:x}:{:x}", inverted.to_bits() >> 16, inverted.to_bits() & 0xffff),
            ];
            for wrapping in wrappings {
                assert_eq!(rule(&wrapping), Some(expected), "{wrapping}");
            }
        }
        let v6 = [
            ("::1", Rule::Loopback),
            ("::", Rule::NoHost),
            ("fe80::1", Rule::LinkLocal),
            ("fec0::1", Rule::LinkLocal),
            ("fd00:ec2::254", Rule::LinkLocal),
            ("fd20:ce::254", Rule::LinkLocal),
            ("fc00::1", Rule::Private),
            ("fd13::1", Rule::Private),
            ("ff02::1", Rule::NoHost),
            ("2001:db8::1", Rule::NoHost),
            ("100::1", Rule::NoHost),
            ("4000::1", Rule::NoHost),
        ];
        for (address, expected) in v6 {
            assert_eq!(rule(address), Some(expected), "{address}");
        }
    }

    #[test]
    fn public_can_be_switched_off_and_loopback_on() {
        let closed =
            EgressPolicy { allow_loopback: true, allow: vec!["9.9.9.9/32".parse().unwrap()], allow_http: true, ..EgressPolicy::default() };
        assert!(closed.decide("127.0.0.1".parse().unwrap()).is_ok());
        assert!(closed.decide("::1".parse().unwrap()).is_ok());
        assert!(closed.decide("9.9.9.9".parse().unwrap()).is_ok());
        assert_eq!(closed.decide("8.8.8.8".parse().unwrap()).unwrap_err().rule, Rule::Public);
        assert_eq!(closed.decide("169.254.169.254".parse().unwrap()).unwrap_err().rule, Rule::LinkLocal);
    }
}
