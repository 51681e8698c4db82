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

/// What is known of a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its last attempt ended as it should.
    Proven,
    /// Nothing yet, or its last attempt failed.
    Unproven,
    /// It fails, hangs, or answers at length.
    Slow,
}

/// A permit that was given out; to be returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Permit {
    /// Of the receiver, when it was given.
    pub standing: Standing,
    pub host: std::sync::Arc<str>,
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// All are out.
    All,
    /// Unproven receivers have all that they may have.
    Unproven,
    /// Slow receivers have all that they may have.
    Slow,
    /// The host has all that it may have.
    Host,
    /// The subscription has as much as is left for all others.
    Share,
}

/// The permits of the daemon.
#[derive(Debug)]
pub(super) struct Permits {
    limits: PermitLimits,
    out: usize,
    /// Of these, to receivers that were unproven when they were given.
    unproven: usize,
    /// And to those that were slow.
    slow: usize,
    hosts: HashMap<std::sync::Arc<str>, usize>,
}

impl Permits {
    pub fn new(limits: PermitLimits) -> Self {
        Self { limits, out: 0, unproven: 0, slow: 0, hosts: HashMap::new() }
    }

    /// Permits that are out.
    pub fn in_flight(&self) -> usize {
        self.out
    }

    /// Whether every permit is out.
    pub fn are_out(&self) -> bool {
        self.out >= self.limits.all
    }

    /// Permits that are left for receivers that nothing is known of.
    fn left_for_unproven(&self) -> usize {
        let left = (self.limits.all / 2).max(1).saturating_sub(self.unproven);
        left.min(self.limits.all - self.out)
    }

    /// Whether one more unproven receiver may be sent to.
    pub fn has_room_for_unproven(&self) -> bool {
        self.left_for_unproven() > 0
    }

    /// Whether one more slow receiver may be sent to.
    pub fn has_room_for_slow(&self) -> bool {
        self.slow < (self.limits.all / 4).max(1)
    }

    /// Whether one more attempt may be made at this host.
    pub fn has_room_for_host(&self, host: &str) -> bool {
        self.hosts.get(host).copied().unwrap_or(0) < self.limits.per_host
    }

    /// A permit for a subscription that holds so many already, if there is room.
    ///
    /// All slow receivers together get a quarter of the room at most, and all unproven ones half of it: what is left is for
    /// those that have proved to be well. None that has not gets more than is left for its like (the dynamic threshold of
    /// Choudhury and Hahne, 1998), so that many receivers that hang all at once leave room for one that does not.
    pub fn take(&mut self, host: &std::sync::Arc<str>, held: usize, standing: Standing) -> Result<Permit, NoRoom> {
        if self.are_out() {
            return Err(NoRoom::All);
        }
        match standing {
            Standing::Slow if !self.has_room_for_slow() => return Err(NoRoom::Slow),
            Standing::Unproven if !self.has_room_for_unproven() => return Err(NoRoom::Unproven),
            _ => {}
        }
        if !self.has_room_for_host(host) {
            return Err(NoRoom::Host);
        }
        if standing == Standing::Unproven && held > 0 && held >= self.left_for_unproven() {
            return Err(NoRoom::Share);
        }
        self.out += 1;
        self.unproven += usize::from(standing == Standing::Unproven);
        self.slow += usize::from(standing == Standing::Slow);
        *self.hosts.entry(std::sync::Arc::clone(host)).or_default() += 1;
        Ok(Permit { standing, host: std::sync::Arc::clone(host) })
    }

    /// Takes a permit back.
    pub fn give_back(&mut self, permit: &Permit) {
        self.out = self.out.saturating_sub(1);
        match permit.standing {
            Standing::Proven => {}
            Standing::Unproven => self.unproven = self.unproven.saturating_sub(1),
            Standing::Slow => self.slow = self.slow.saturating_sub(1),
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
        let taken: Vec<_> = hosts.iter().filter_map(|host| permits.take(host, 0, Standing::Slow).ok()).collect();
        assert_eq!(taken.len(), 2);
        assert_eq!(permits.take(&hosts[9], 0, Standing::Slow), Err(NoRoom::Slow));
        assert_eq!(hosts.iter().filter_map(|host| permits.take(host, 0, Standing::Proven).ok()).count(), 6);
        assert_eq!(permits.in_flight(), 8);
        permits.give_back(&taken[0]);
        assert!(permits.take(&hosts[9], 0, Standing::Slow).is_ok());
        assert_eq!(permits.take(&hosts[9], 0, Standing::Proven), Err(NoRoom::All));
    }

    #[test]
    fn many_that_are_unproven_leave_room_for_one_more_and_for_the_proven() {
        let mut permits = Permits::new(PermitLimits { all: 512, per_host: 512 });
        let mut held = [0; 100];
        for lane in (0..100).cycle().take(2_000) {
            let host = lane.to_string().as_str().into();
            held[lane] += usize::from(permits.take(&host, held[lane], Standing::Unproven).is_ok());
        }
        assert!(held.iter().all(|count| (2..=3).contains(count)), "{held:?}");
        assert!(permits.take(&"another".into(), 0, Standing::Unproven).is_ok());
        let proven = (0..512).take_while(|held| permits.take(&"healthy".into(), *held, Standing::Proven).is_ok()).count();
        assert!(proven >= 256, "{proven}");
    }

    #[test]
    fn more_that_are_unproven_than_there_is_room_for_leave_half_of_it() {
        let mut permits = Permits::new(PermitLimits { all: 512, per_host: 512 });
        let hosts = (0..1_000).map(|number: u32| std::sync::Arc::from(number.to_string()));
        let taken: Vec<_> = hosts.filter_map(|host| permits.take(&host, 0, Standing::Unproven).ok()).collect();
        assert_eq!(taken.len(), 256);
        assert_eq!(permits.take(&"late".into(), 0, Standing::Unproven), Err(NoRoom::Unproven));
        assert!(permits.take(&"healthy".into(), 0, Standing::Proven).is_ok());
        permits.give_back(&taken[0]);
        assert!(permits.take(&"late".into(), 0, Standing::Unproven).is_ok());
    }

    #[test]
    fn a_host_has_a_cap_of_its_own() {
        let mut permits = permits();
        let host = "one".into();
        let taken: Vec<_> = (0..6).filter_map(|_| permits.take(&host, 0, Standing::Proven).ok()).collect();
        assert_eq!(taken.len(), 4);
        permits.give_back(&taken[0]);
        assert!(permits.take(&host, 0, Standing::Proven).is_ok());
        assert_eq!(permits.take(&host, 0, Standing::Proven), Err(NoRoom::Host));
    }
}
