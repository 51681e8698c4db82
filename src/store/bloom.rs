//! The membership filter of a sealed segment's dedupe hashes.
//!
//! A blocked Bloom filter: each key sets 8 bits inside one block of 64 bytes, so that a question costs one cache line
//! (Putze, Sanders, Singler: Cache-, Hash- and Space-Efficient Bloom Filters, 2007). With 12 bits a key about one
//! question in two hundred is answered "perhaps" wrongly, and costs a look into the table; "no" is never wrong. All filters
//! are in memory for as long as the store is open: 1.5 MB per million keys.

use super::prepared::DedupeHash;

const BLOCK_BYTES: usize = 64;
const BITS_PER_KEY: usize = 12;
const PROBES: u32 = 8;

/// Answers whether a hash may be in a set.
#[derive(Debug, Clone)]
pub(super) struct Bloom {
    blocks: Box<[u8]>,
}

impl Bloom {
    /// A filter of the given hashes.
    pub fn of(hashes: impl ExactSizeIterator<Item = DedupeHash>) -> Self {
        let blocks = (hashes.len() * BITS_PER_KEY).div_ceil(BLOCK_BYTES * 8);
        let mut filter = Self { blocks: vec![0; blocks * BLOCK_BYTES].into_boxed_slice() };
        for hash in hashes {
            let (start, bits) = filter.place(hash);
            for bit in bits {
                if let Some(byte) = filter.blocks.get_mut(start + bit / 8) {
                    *byte |= 1 << (bit % 8);
                }
            }
        }
        filter
    }

    /// A filter as it was stored.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.len().is_multiple_of(BLOCK_BYTES).then(|| Self { blocks: bytes.into() })
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.blocks
    }

    /// Where the block of a hash starts, and its bits in there.
    fn place(&self, hash: DedupeHash) -> (usize, impl Iterator<Item = usize> + use<>) {
        let low = (hash & u128::from(u64::MAX)) as u64;
        let high = (hash >> 64) as u64;
        let count = (self.blocks.len() / BLOCK_BYTES) as u128;
        let block = ((u128::from(low) * count) >> 64) as usize;
        // 8 probes of 9 bits take 72 bits; the last one borrows from the low half, whose upper bits chose the block.
        let wide = u128::from(high) | u128::from(low & 0xff) << 64;
        (block * BLOCK_BYTES, (0..PROBES).map(move |probe| (wide >> (probe * 9) & 511) as usize))
    }

    /// False only when the hash is certainly not in the set.
    pub fn may_contain(&self, hash: DedupeHash) -> bool {
        let (start, mut bits) = self.place(hash);
        let Some(block) = self.blocks.get(start..start + BLOCK_BYTES) else { return false };
        bits.all(|bit| block.get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twox_hash::XxHash3_64;

    fn hash(number: u64) -> u128 {
        let half = |seed| u128::from(XxHash3_64::oneshot_with_seed(seed, &number.to_le_bytes()));
        half(1) << 64 | half(2)
    }

    #[test]
    fn nothing_that_is_in_is_missed_and_little_that_is_not_is_taken() {
        let keys: Vec<u128> = (0..100_000).map(hash).collect();
        let filter = Bloom::of(keys.iter().copied());
        let filter = Bloom::from_bytes(filter.as_bytes()).unwrap();
        assert!(keys.iter().all(|key| filter.may_contain(*key)));
        let wrong = (1_000_000..1_200_000).filter(|number| filter.may_contain(hash(*number))).count();
        assert!(wrong < 1_400, "{wrong} of 200,000");
    }

    #[test]
    fn an_empty_filter_contains_nothing() {
        assert!(!Bloom::of(std::iter::empty::<u128>().collect::<Vec<_>>().into_iter()).may_contain(7));
        assert!(Bloom::from_bytes(&[0; 63]).is_none());
    }
}
