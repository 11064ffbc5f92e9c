//! Ids that nobody else draws.

use std::collections::HashSet;
use std::thread;

use casdk_core::ids::fresh;

#[test]
fn no_id_is_drawn_twice_whatever_threads_draw() {
    let draw = || (0..5000).map(|_| fresh().unwrap()).collect::<Vec<_>>();
    let threads: Vec<_> = (0..4).map(|_| thread::spawn(draw)).collect();
    let mut drawn = HashSet::new();
    for thread in threads {
        drawn.extend(thread.join().unwrap());
    }
    assert_eq!(drawn.len(), 20_000);
    let is_hex = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    assert!(drawn.iter().flatten().all(is_hex));
}
