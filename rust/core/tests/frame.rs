//! Frames, with the table of RFC 6455 written out byte by byte as the oracle.

use std::collections::HashSet;

use casdk_core::frame::{Mask, frame_len, fresh_mask, write_frame};
use proptest::collection::vec;
use proptest::prelude::*;

fn frame(payload: &[u8], mask: Mask) -> Vec<u8> {
    // Neither what was there before nor what comes after may show.
    let mut out = vec![0x55; frame_len(payload.len())];
    write_frame(payload, mask, &mut out);
    out
}

fn oracle(payload: &[u8], mask: Mask) -> Vec<u8> {
    let mut frame = vec![0b1000_0010];
    match payload.len() {
        len @ 0..126 => frame.push(0b1000_0000 + u8::try_from(len).unwrap()),
        len @ 126..65_536 => {
            frame.push(0b1000_0000 + 126);
            frame.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            frame.push(0b1000_0000 + 127);
            frame.extend(u64::try_from(len).unwrap().to_be_bytes());
        }
    }
    frame.extend(mask);
    for (at, byte) in payload.iter().enumerate() {
        frame.push(byte ^ mask[at % 4]);
    }
    frame
}

/// Reads a frame as a server does: the payload, and what comes after the frame.
fn unmask(frame: &[u8]) -> (Vec<u8>, &[u8]) {
    assert_eq!(frame[0], 0x82);
    assert_eq!(frame[1] & 0x80, 0x80, "a client's frame is masked");
    let (len, start) = match frame[1] & 0x7f {
        126 => (u64::from(u16::from_be_bytes([frame[2], frame[3]])), 4),
        127 => (u64::from_be_bytes(frame[2..10].try_into().unwrap()), 10),
        short => (u64::from(short), 2),
    };
    let (mask, rest) = frame[start..].split_at(4);
    let (body, after) = rest.split_at(usize::try_from(len).unwrap());
    let payload = body
        .iter()
        .enumerate()
        .map(|(at, byte)| byte ^ mask[at & 3]);
    (payload.collect(), after)
}

#[test]
fn the_example_of_the_rfc() {
    // Section 5.7 has it as text: "Hello", masked with 37 fa 21 3d.
    let frame = frame(b"Hello", [0x37, 0xfa, 0x21, 0x3d]);
    assert_eq!(frame, b"\x82\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
}

#[test]
fn no_mask_is_used_for_the_next_frames() {
    let mut drawn = HashSet::new();
    for _ in 0..2000 {
        drawn.insert(fresh_mask().unwrap());
    }
    // Of two thousand out of four thousand million, two are the same in one run of two thousand.
    assert!(drawn.len() >= 1999);
}

#[test]
fn each_length_takes_as_few_bytes_as_it_can() {
    let mask = [1, 2, 3, 4];
    for (payload, head) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
        assert_eq!(frame_len(payload), head + 4 + payload);
        let bytes: Vec<u8> = (0..=250).cycle().take(payload).collect();
        assert_eq!(frame(&bytes, mask), oracle(&bytes, mask));
    }
}

#[test]
#[should_panic(expected = "the frame's length")]
fn another_length_is_refused() {
    write_frame(b"four", [0; 4], &mut [0; 9]);
}

proptest! {
    #[test]
    fn frames_are_those_of_the_oracle(payload in vec(any::<u8>(), 0..400), mask: Mask) {
        prop_assert_eq!(frame(&payload, mask), oracle(&payload, mask));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn frames_in_a_row_are_read_as_they_were(
        payloads in vec((prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 65_530..65_560)], any::<Mask>()), 1..4),
    ) {
        let stream: Vec<u8> = payloads.iter().flat_map(|(payload, mask)| frame(payload, *mask)).collect();
        let mut left = stream.as_slice();
        for (payload, _) in &payloads {
            let (read, after) = unmask(left);
            prop_assert_eq!(&read, payload);
            left = after;
        }
        prop_assert!(left.is_empty());
    }
}
