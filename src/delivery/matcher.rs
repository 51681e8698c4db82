//! Which subscriptions want an event: by company, then by type, never by looking at all of them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::company::CompanyId;
use crate::domain::filter::{OWN_PREFIX, TypeFilter};
use crate::domain::subscription::{Subscription, SubscriptionId};

/// The filters of all subscriptions, indexed.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    companies: HashMap<CompanyId, CompanyIndex>,
}

/// The filters of one company's subscriptions.
#[derive(Debug, Default)]
struct CompanyIndex {
    filters: HashMap<SubscriptionId, TypeFilter>,
    /// By whole type, in lower case.
    exact: HashMap<String, Vec<SubscriptionId>>,
    /// By what a type starts with, such as `claim.`.
    prefixes: HashMap<String, Vec<SubscriptionId>>,
    /// Without a filter.
    everything: Vec<SubscriptionId>,
}

impl Matcher {
    /// Whether nobody wants anything.
    pub fn is_empty(&self) -> bool {
        self.companies.is_empty()
    }

    /// Takes a subscription in, in place of what it was before.
    pub fn insert(&mut self, subscription: &Arc<Subscription>) {
        self.remove(subscription.company, subscription.id);
        let filter = &subscription.wishes.filter;
        let index = self.companies.entry(subscription.company).or_default();
        if filter.is_everything() {
            index.everything.push(subscription.id);
        }
        for (text, is_prefix) in filter.entries() {
            let entries = if is_prefix { &mut index.prefixes } else { &mut index.exact };
            let ids = entries.entry(text.to_owned()).or_default();
            if !ids.contains(&subscription.id) {
                ids.push(subscription.id);
            }
        }
        index.filters.insert(subscription.id, filter.clone());
    }

    /// Forgets a subscription.
    pub fn remove(&mut self, company: CompanyId, id: SubscriptionId) {
        let Some(index) = self.companies.get_mut(&company) else { return };
        let Some(filter) = index.filters.remove(&id) else { return };
        index.everything.retain(|known| *known != id);
        for (text, is_prefix) in filter.entries() {
            let entries = if is_prefix { &mut index.prefixes } else { &mut index.exact };
            if let Some(ids) = entries.get_mut(text) {
                ids.retain(|known| *known != id);
                if ids.is_empty() {
                    entries.remove(text);
                }
            }
        }
        if index.filters.is_empty() {
            self.companies.remove(&company);
        }
    }

    /// The subscriptions of a company that want events of this type (in lower case) and version.
    pub fn matching(&self, company: CompanyId, folded: &str, version: &str) -> Vec<SubscriptionId> {
        let Some(index) = self.companies.get(&company) else { return Vec::new() };
        let mut ids: Vec<SubscriptionId> = index.exact.get(folded).cloned().unwrap_or_default();
        for (dot, _) in folded.match_indices('.') {
            if let Some(found) = folded.get(..=dot).and_then(|prefix| index.prefixes.get(prefix)) {
                ids.extend(found);
            }
        }
        if !folded.starts_with(OWN_PREFIX) {
            ids.extend(&index.everything);
        }
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|id| index.filters.get(id).is_some_and(|filter| filter.matches(folded, version)));
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::subscription;
    use super::*;
    use proptest::prelude::*;

    const TYPES: [&str; 6] = ["claim.created", "claim.note.added", "claim", "policy.bound", "lutine.delivery.exhausted", "claims.created"];
    const FILTERS: [&str; 8] =
        ["", "claim.*", "claim.created", "claim.created@2", "claim.note.*,policy.bound", "lutine.*", "claim.*@2,claim", "policy.*"];

    proptest! {
        #[test]
        fn the_index_finds_what_asking_every_filter_finds(picks in proptest::collection::vec((0..FILTERS.len(), any::<bool>()), 1..12)) {
            let mut matcher = Matcher::default();
            let mut kept = Vec::new();
            for (number, (filter, is_removed)) in (1..).zip(picks) {
                let subscription = Arc::new(subscription(number, FILTERS[filter]));
                matcher.insert(&subscription);
                if is_removed { matcher.remove(subscription.company, subscription.id) } else { kept.push(subscription) }
            }
            for kind in TYPES {
                for version in ["1", "2"] {
                    let expected: Vec<_> =
                        kept.iter().filter(|known| known.wishes.filter.matches(kind, version)).map(|known| known.id).collect();
                    prop_assert_eq!(matcher.matching(CompanyId(1), kind, version), expected);
                }
            }
            prop_assert!(matcher.matching(CompanyId(2), "claim.created", "1").is_empty());
        }
    }

    #[test]
    fn a_changed_filter_takes_the_place_of_the_old_one() {
        let mut matcher = Matcher::default();
        matcher.insert(&Arc::new(subscription(1, "claim.*")));
        matcher.insert(&Arc::new(subscription(1, "policy.*")));
        assert!(matcher.matching(CompanyId(1), "claim.created", "1").is_empty());
        assert_eq!(matcher.matching(CompanyId(1), "policy.bound", "1"), [SubscriptionId(1)]);
    }
}
