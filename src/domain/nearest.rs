//! The valid name that somebody probably meant.

/// The candidate closest to `given`, if it is close enough to be a typing mistake; compared without case.
#[must_use]
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase();
    let most = (given.chars().count() / 3).max(2);
    candidates
        .into_iter()
        .map(|candidate| (distance(&given, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= most && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The fewest insertions, removals, replacements and swaps of neighbours between two texts (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().take(128).collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    let mut previous_left = None;
    for (row, letter) in left.chars().take(128).enumerate() {
        let mut current = vec![row + 1];
        let mut previous_right = None;
        for (column, other) in right.iter().enumerate() {
            let at = |cells: &[usize], place: usize| cells.get(place).copied().unwrap_or(usize::MAX - 1);
            let mut best = (at(&last, column) + usize::from(letter != *other)).min(at(&last, column + 1) + 1).min(at(&current, column) + 1);
            if previous_left == Some(*other) && previous_right == Some(letter) && column > 0 {
                best = best.min(at(&before_last, column - 1) + 1);
            }
            current.push(best);
            previous_right = Some(*other);
        }
        before_last = std::mem::replace(&mut last, current);
        previous_left = Some(letter);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_are_recognised_and_other_words_are_not() {
        let names = ["payload", "metadata", "dedupeKey", "type"];
        assert_eq!(nearest("paylaod", names), Some("payload"));
        assert_eq!(nearest("dedupe_key", names), Some("dedupeKey"));
        assert_eq!(nearest("Type", names), Some("type"));
        assert_eq!(nearest("colour", names), None);
        assert_eq!(nearest("", names), None);
    }
}
