//! Who may have how many attempts in flight, so that sick receivers never take the room of healthy ones.

use std::collections::HashMap;

/// How much may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PermitLimits {
    /// In the whole daemon.
    pub all: usize,
    /// To one host and port.
    pub per_host: usize,
}

/// A permit that was given out; to be returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Permit {
    pub is_slow: bool,
    pub host: std::sync::Arc<str>,
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// All are out.
    All,
    /// Slow receivers have all that they may have.
    Slow,
    /// The host has all that it may have.
    Host,
}

/// The permits of the daemon.
#[derive(Debug)]
pub(super) struct Permits {
    limits: PermitLimits,
    out: usize,
    /// Of these, to receivers that were slow when they were given.
    slow: usize,
    hosts: HashMap<std::sync::Arc<str>, usize>,
}

impl Permits {
    pub fn new(limits: PermitLimits) -> Self {
        Self { limits, out: 0, slow: 0, hosts: HashMap::new() }
    }

    /// Permits that are out.
    pub fn in_flight(&self) -> usize {
        self.out
    }

    /// Whether every permit is out.
    pub fn are_out(&self) -> bool {
        self.out >= self.limits.all
    }

    /// Whether slow receivers may have more than they have.
    pub fn has_room_for_slow(&self) -> bool {
        self.slow < (self.limits.all / 4).max(1)
    }

    /// Whether a host may have more than it has.
    pub fn has_room_at(&self, host: &std::sync::Arc<str>) -> bool {
        self.hosts.get(host).is_none_or(|out| *out < self.limits.per_host)
    }

    /// A permit, if there is room. All slow receivers together get a quarter of the room at most.
    pub fn take(&mut self, host: &std::sync::Arc<str>, is_slow: bool) -> Result<Permit, NoRoom> {
        if self.are_out() {
            return Err(NoRoom::All);
        }
        if is_slow && !self.has_room_for_slow() {
            return Err(NoRoom::Slow);
        }
        if !self.has_room_at(host) {
            return Err(NoRoom::Host);
        }
        self.out += 1;
        self.slow += usize::from(is_slow);
        *self.hosts.entry(std::sync::Arc::clone(host)).or_default() += 1;
        Ok(Permit { is_slow, host: std::sync::Arc::clone(host) })
    }

    /// Takes a permit back.
    pub fn give_back(&mut self, permit: &Permit) {
        self.out = self.out.saturating_sub(1);
        if permit.is_slow {
            self.slow = self.slow.saturating_sub(1);
        }
        if let Some(count) = self.hosts.get_mut(&permit.host) {
            *count -= 1;
            if *count == 0 {
                self.hosts.remove(&permit.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits() -> Permits {
        Permits::new(PermitLimits { all: 8, per_host: 4 })
    }

    #[test]
    fn slow_receivers_share_a_quarter() {
        let mut permits = permits();
        let hosts: Vec<std::sync::Arc<str>> = (0..10).map(|number| format!("h{number}").into()).collect();
        let taken: Vec<_> = hosts.iter().filter_map(|host| permits.take(host, true).ok()).collect();
        assert_eq!(taken.len(), 2);
        assert_eq!(permits.take(&hosts[9], true), Err(NoRoom::Slow));
        assert_eq!(hosts.iter().filter_map(|host| permits.take(host, false).ok()).count(), 6);
        assert_eq!(permits.in_flight(), 8);
        permits.give_back(&taken[0]);
        assert!(permits.take(&hosts[9], true).is_ok());
        assert_eq!(permits.take(&hosts[9], false), Err(NoRoom::All));
    }

    #[test]
    fn a_host_has_a_cap_of_its_own() {
        let mut permits = permits();
        let host = "one".into();
        let taken: Vec<_> = (0..6).filter_map(|_| permits.take(&host, false).ok()).collect();
        assert_eq!(taken.len(), 4);
        permits.give_back(&taken[0]);
        assert!(permits.take(&host, false).is_ok());
        assert_eq!(permits.take(&host, false), Err(NoRoom::Host));
    }
}
