//! Addresses by their beginning: `10.0.0.0/8`, `::1`. Pure.

use std::fmt;
use std::net::IpAddr;

/// The addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// Reads `10.0.0.0/8`, or an address, which is a network of one.
    ///
    /// # Errors
    /// What is wrong with it, without the text.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (address, bits) = match text.trim().split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text.trim(), None),
        };
        let not_one = "is not a network such as \"10.0.0.0/8\" or \"::1\"";
        let address: IpAddr = address.parse().map_err(|_| not_one)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().ok().filter(|bits| *bits <= most).ok_or(not_one)?
            }
            Some(_) => return Err(not_one),
        };
        Ok(Self { address, bits })
    }

    /// Whether an address is one of these. IPv4 addresses inside IPv6 ones, as sockets for both report them, are IPv4.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let shift = 32_u32.saturating_sub(self.bits);
                ours.to_bits().checked_shr(shift) == theirs.to_bits().checked_shr(shift)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let shift = 128_u32.saturating_sub(self.bits);
                ours.to_bits().checked_shr(shift) == theirs.to_bits().checked_shr(shift)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_what_begins_alike() {
        for (network, address, inside) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("0.0.0.0/0", "9.9.9.9", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "fe80::1", true),
            ("::1", "::1", true),
            ("::1", "::2", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
        ] {
            assert_eq!(
                Network::parse(network).unwrap().contains(address.parse().unwrap()),
                inside,
                "{network} {address}"
            );
        }
        for text in ["", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/", "a", "::/129", "10.0.0/8"] {
            assert!(Network::parse(text).is_err(), "{text}");
        }
    }
}
