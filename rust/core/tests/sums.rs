//! Sums of words, held to those of all bytes at once.

use casdk_core::sums::{copy_and_sum, sum_words};
use proptest::prelude::*;

fn oracle(bytes: &[u8]) -> u64 {
    let terms = bytes.iter().enumerate();
    terms.fold(0, |sum, (place, &byte)| {
        sum.wrapping_add(u64::from(byte) << (8 * (place % 8)))
    })
}

proptest! {
    #[test]
    fn the_sum_of_all_is_that_of_its_parts(
        bytes in proptest::collection::vec(any::<u8>(), 0..40_000),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let (mut room, mut copied) = (vec![0; bytes.len()], 0u64);
        let mut summed = 0u64;
        for pair in cuts.windows(2) {
            let part = &bytes[pair[0]..pair[1]];
            summed = summed.wrapping_add(sum_words(part, pair[0]));
            copied = copied.wrapping_add(copy_and_sum(part, &mut room[pair[0]..pair[1]], pair[0]));
        }
        prop_assert_eq!(summed, oracle(&bytes));
        prop_assert_eq!(copied, oracle(&bytes));
        prop_assert_eq!(room, bytes);
    }
}
