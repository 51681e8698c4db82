//! The delivery engine: every event ends, for every subscription that wants it, as delivered, dead, expired or cancelled.
//!
//! The event in the log is the obligation; publishing writes nothing for subscriptions. [`core`] decides and needs
//! no surroundings, [`engine`] gives it time, the network, a thread that writes down what came of it, and another one for
//! the attempts to receivers that have not proved to be well.

mod alerts;
pub mod core;
mod engine;
mod flight;
mod keys;
mod lane;
mod matcher;
mod permits;
mod rate;
mod receiver;
mod recorder;

pub use self::alerts::Alert;
pub use self::engine::{Engine, EngineError, EngineHandle, EngineOptions};
pub use self::permits::PermitLimits;

#[cfg(test)]
mod tests {
    use crate::domain::company::CompanyId;
    use crate::domain::filter::TypeFilter;
    use crate::domain::health::Health;
    use crate::domain::profile::{Overrides, Profile};
    use crate::domain::subscription::{Auth, Ordering, Secret, Standing, Subscription, SubscriptionId, Wishes};
    use crate::domain::time::Timestamp;

    /// A subscription of company 1 with this filter; an empty one takes everything.
    pub(super) fn subscription(number: u32, filter: &str) -> Subscription {
        let filter = if filter.is_empty() { TypeFilter::default() } else { TypeFilter::parse_list(filter).unwrap() };
        Subscription {
            id: SubscriptionId(number),
            company: CompanyId(1),
            wishes: Wishes {
                name: "test".to_owned(),
                url: "http://127.0.0.1:9/".to_owned(),
                types: Vec::new(),
                filter,
                profile: Profile::Standard,
                overrides: Overrides::default(),
                auth: Auth::None,
                headers: Vec::new(),
                ordering: Ordering::Parallel,
                ordering_key: None,
                max_in_flight: 4,
                rate_per_minute: 0,
            },
            secret: Secret([7; 32]),
            previous: None,
            consent: None,
            resumes: 0,
            standing: Standing::Active,
            health: Health::default(),
            created: Timestamp::from_micros(1),
        }
    }
}
