//! The dedupe keys of an unsealed segment, in memory.
//!
//! A table of places beside the entries themselves, which lie in blocks in the order in which they came: nothing is moved
//! or doubled when it grows, and an entry takes 32 bytes and its share of the table.

use hashbrown::HashTable;

use super::prepared::{DedupeEntry, DedupeHash, DedupeMap, low_half};
use crate::domain::event::EventId;
use crate::domain::time::Timestamp;

/// Entries of a block.
const BLOCK: usize = 4096;

/// An entry without its time, which it shares with all of its commit. The hash is in halves, which need no padding.
#[derive(Debug, Clone, Copy)]
struct Packed {
    hash: [u64; 2],
    id: u64,
    fingerprint: u64,
}

fn halves(hash: DedupeHash) -> [u64; 2] {
    [low_half(hash), low_half(hash >> 64)]
}

/// Dedupe keys by their hashes.
#[derive(Debug, Default)]
pub(super) struct DedupeIndex {
    /// Places of entries. The hashes are keyed ones, which nobody outside can steer: they are not hashed again.
    places: HashTable<u32>,
    blocks: Vec<Vec<Packed>>,
    /// For each time the place of the first entry that has it; both ascend.
    times: Vec<(u32, Timestamp)>,
}

impl DedupeIndex {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    fn packed(blocks: &[Vec<Packed>], place: u32) -> Option<&Packed> {
        let place = place as usize;
        blocks.get(place / BLOCK)?.get(place % BLOCK)
    }

    fn find(&self, hash: DedupeHash) -> Option<u32> {
        let sought = halves(hash);
        let is_sought = |place: &u32| Self::packed(&self.blocks, *place).is_some_and(|packed| packed.hash == sought);
        self.places.find(sought[0], is_sought).copied()
    }

    fn entry(&self, place: u32) -> Option<DedupeEntry> {
        let packed = Self::packed(&self.blocks, place)?;
        let time = self.times.partition_point(|(first, _)| *first <= place).checked_sub(1)?;
        let (_, created) = *self.times.get(time)?;
        Some(DedupeEntry { id: EventId(packed.id), created, fingerprint: packed.fingerprint })
    }

    /// Where a key was used last.
    pub fn get(&self, hash: DedupeHash) -> Option<DedupeEntry> {
        self.entry(self.find(hash)?)
    }

    /// Takes the keys of one commit, which must follow those that are there. Of a key that is there already, the new entry counts.
    pub fn extend(&mut self, commit: &DedupeMap) {
        for (hash, entry) in commit {
            self.insert(*hash, entry);
        }
    }

    /// See [`DedupeIndex::extend`].
    pub fn insert(&mut self, hash: DedupeHash, entry: &DedupeEntry) {
        let filled = self.blocks.len().saturating_sub(1) * BLOCK + self.blocks.last().map_or(0, Vec::len);
        // A segment of so many keys would have been closed long before.
        let Ok(place) = u32::try_from(filled) else { return };
        if self.blocks.last().is_none_or(|block| block.len() == BLOCK) {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        if let Some(block) = self.blocks.last_mut() {
            block.push(Packed { hash: halves(hash), id: entry.id.0, fingerprint: entry.fingerprint });
        }
        if self.times.last().is_none_or(|(_, created)| *created != entry.created) {
            self.times.push((place, entry.created));
        }
        let sought = halves(hash);
        let is_sought = |place: &u32| Self::packed(&self.blocks, *place).is_some_and(|packed| packed.hash == sought);
        match self.places.find_mut(sought[0], is_sought) {
            Some(known) => *known = place,
            None => {
                let hash_of = |place: &u32| Self::packed(&self.blocks, *place).map_or(0, |packed| packed.hash[0]);
                self.places.insert_unique(sought[0], place, hash_of);
            }
        }
    }

    /// Every key with its entry, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (DedupeHash, DedupeEntry)> {
        let packed = self.blocks.iter().flatten().zip(0_u32..);
        packed.filter_map(|(packed, place)| {
            let [low, high] = packed.hash;
            let hash = u128::from(high) << 64 | u128::from(low);
            // Of a key that came twice only the last entry counts.
            (self.find(hash)? == place).then_some((hash, self.entry(place)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_entry_is_no_larger_than_its_parts() {
        assert_eq!(size_of::<Packed>(), 32);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn it_answers_as_a_map_does(commits in proptest::collection::vec((0_u64..3, proptest::collection::vec(0_u64..6_000, 0..3_000)), 1..6)) {
            let mut index = DedupeIndex::default();
            let mut expected = DedupeMap::default();
            let (mut id, mut time) = (0, 0);
            for (step, keys) in commits {
                time += step;
                let mut commit = DedupeMap::default();
                for key in keys {
                    id += 1;
                    // The low half decides where a key lies; here many share it.
                    let hash = u128::from(key) << 64 | u128::from(key / 3);
                    commit.insert(hash, DedupeEntry { id: EventId(id), created: Timestamp::from_micros(time), fingerprint: id * 7 });
                }
                index.extend(&commit);
                expected.extend(&commit);
            }
            prop_assert_eq!(index.len(), expected.len());
            prop_assert_eq!(index.iter().collect::<DedupeMap>(), expected.clone());
            for key in 0_u64..6_100 {
                let hash = u128::from(key) << 64 | u128::from(key / 3);
                prop_assert_eq!(index.get(hash), expected.get(&hash).copied());
            }
        }
    }
}
