//! Rows of replies in a matrix, with plain casts as the oracle.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "casts are what is tested"
)]

use std::ops::Range;

use casdk_core::error::Error;
use casdk_core::matrix::{Rows, place};
use casdk_core::reply::{Dtype, Numbers, Reply, Row};
use half::f16;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::subsequence;

const REQUEST_ID: &str = "0123456789abcdef0123456789abcdef";
const NAN: u32 = f32::NAN.to_bits();

/// A message of ids and numbers, and the reply that says where they are.
#[derive(Default)]
struct Made {
    message: Vec<u8>,
    reply: Reply,
}

impl Made {
    fn append(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.message.len();
        self.message.extend(bytes);
        start..self.message.len()
    }

    fn row(mut self, id: &str, dtype: Dtype, bytes: &[u8]) -> Self {
        let id = self.append(id.as_bytes());
        let numbers = self.append(bytes);
        let row = Row {
            id,
            embedding: Some(Numbers::Raw(numbers, dtype)),
            ..Row::default()
        };
        self.reply.rows.push(row);
        self
    }

    fn without_embedding(mut self, id: &str) -> Self {
        let id = self.append(id.as_bytes());
        self.reply.rows.push(Row {
            id,
            ..Row::default()
        });
        self
    }

    fn place(
        &self,
        out: &mut [f32],
        width: usize,
        rows: Rows<'_>,
        sent: usize,
    ) -> Result<Vec<usize>, Error> {
        place(
            &self.reply,
            &self.message,
            out,
            width,
            rows,
            sent,
            REQUEST_ID,
        )
    }
}

fn id(position: usize) -> String {
    format!("{}{position:08x}", &REQUEST_ID[..24])
}

fn singles(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|value| value.to_bits()).collect()
}

fn same(out: &(Vec<f32>, Vec<f16>), exact: impl Iterator<Item = f64>) {
    for ((&single, &half), value) in out.0.iter().zip(&out.1).zip(exact) {
        let known = value as f32;
        assert!(
            single.to_bits() == known.to_bits() || (single.is_nan() && value.is_nan()),
            "{single} {value}"
        );
        let known = f16::from_f64(value);
        assert!(
            half == known || (half.is_nan() && known.is_nan()),
            "{half} {value}"
        );
    }
}

proptest! {
    #[test]
    fn each_row_goes_where_its_id_says(
        (sent, there) in (1usize..60).prop_flat_map(|sent| (Just(sent), subsequence((0..sent).collect::<Vec<_>>(), 0..=sent).prop_shuffle())),
        width in 1usize..20,
        start in 0usize..5,
        scatter in any::<bool>(),
    ) {
        let value = |position: usize, at: usize| (position * 1000 + at) as f32;
        let mut made = Made::default();
        for &position in &there {
            let numbers: Vec<f32> = (0..width).map(|at| value(position, at)).collect();
            made = made.row(&id(position), Dtype::F32, &singles(&numbers));
        }
        // Scattered: the last position to the first row, and so on.
        let target: Vec<usize> = (0..sent).map(|position| if scatter { sent - 1 - position } else { start + position }).collect();
        let rows = if scatter { Rows::At(&target) } else { Rows::From(start) };
        let mut out = vec![f32::NAN; (start + sent) * width];
        let missing = made.place(&mut out, width, rows, sent).unwrap();
        let expected: Vec<usize> = (0..sent).filter(|position| !there.contains(position)).collect();
        prop_assert_eq!(missing, expected);
        let mut known = vec![NAN; (start + sent) * width];
        for &position in &there {
            for at in 0..width {
                known[target[position] * width + at] = value(position, at).to_bits();
            }
        }
        prop_assert_eq!(bits(&out), known);
    }

    #[test]
    fn numbers_are_cast_as_rust_casts_them(raw in vec(any::<[u8; 8]>(), 1..50)) {
        let bytes: Vec<u8> = raw.concat();
        let cast = |dtype: Dtype| {
            let width = bytes.len() / dtype.size();
            let made = Made::default().row("", dtype, &bytes);
            let mut out = vec![0f32; width];
            let mut halves = vec![f16::ZERO; width];
            assert_eq!(made.place(&mut out, width, Rows::From(0), 1), Ok(vec![]));
            place(&made.reply, &made.message, &mut halves, width, Rows::From(0), 1, REQUEST_ID).unwrap();
            (out, halves)
        };
        same(&cast(Dtype::F32), bytes.as_chunks::<4>().0.iter().map(|&raw| f32::from_le_bytes(raw).into()));
        same(&cast(Dtype::F64), bytes.as_chunks::<8>().0.iter().map(|&raw| f64::from_le_bytes(raw)));
        same(&cast(Dtype::F16), bytes.as_chunks::<2>().0.iter().map(|&raw| f16::from_le_bytes(raw).into()));
        same(&cast(Dtype::U8), bytes.iter().map(|&raw| raw.into()));
        same(&cast(Dtype::I8), bytes.iter().map(|&raw| raw.cast_signed().into()));
        same(&cast(Dtype::I32), bytes.as_chunks::<4>().0.iter().map(|&raw| i32::from_le_bytes(raw).into()));
        let whole: Vec<i64> = bytes.as_chunks::<8>().0.iter().map(|&raw| i64::from_le_bytes(raw)).collect();
        for (single, value) in cast(Dtype::I64).0.iter().zip(whole) {
            prop_assert!(single.to_bits() == (value as f32).to_bits() || single.to_bits() == (value as f64 as f32).to_bits());
        }
    }
}

fn unfit(result: Result<Vec<usize>, Error>) -> String {
    match result {
        Err(Error::Unfit(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn foreign_ids_go_by_their_place_in_the_reply() {
    let made = Made::default()
        .row("mine", Dtype::F32, &singles(&[1.0]))
        .row("yours", Dtype::F32, &singles(&[2.0]));
    let mut out = [0f32; 2];
    assert_eq!(made.place(&mut out, 1, Rows::From(0), 2), Ok(vec![]));
    assert_eq!(bits(&out), bits(&[1.0, 2.0]));
    // The prefix of another request, and digits that are none.
    let other = format!("{}00000001", "f".repeat(24));
    let almost = format!("{}0000000g", &REQUEST_ID[..24]);
    let made = Made::default()
        .row(&other, Dtype::F32, &singles(&[3.0]))
        .row(&almost, Dtype::F32, &singles(&[4.0]));
    assert_eq!(made.place(&mut out, 1, Rows::From(0), 2), Ok(vec![]));
    assert_eq!(bits(&out), bits(&[3.0, 4.0]));
}

#[test]
fn a_row_of_another_width_names_both() {
    let made = Made::default().row("", Dtype::F32, &singles(&[1.0, 2.0, 3.0]));
    let reason = unfit(made.place(&mut [0f32; 4], 4, Rows::From(0), 1));
    assert!(reason.contains('3') && reason.contains('4'), "{reason}");
}

#[test]
fn a_row_outside_of_the_matrix_is_an_error() {
    let made = Made::default().row("", Dtype::F32, &singles(&[1.0]));
    for rows in [
        Rows::From(3),
        Rows::From(usize::MAX),
        Rows::At(&[3]),
        Rows::At(&[usize::MAX]),
        Rows::At(&[]),
    ] {
        unfit(made.place(&mut [0f32; 3], 1, rows, 1));
    }
}

#[test]
fn counts_that_do_not_fit_are_errors() {
    let one = || Made::default().row("mine", Dtype::F32, &singles(&[1.0]));
    let mut out = [0f32; 8];
    let reason = unfit(one().place(&mut out, 1, Rows::From(0), 0));
    assert!(reason.contains('1') && reason.contains('0'), "{reason}");
    let reason = unfit(one().place(&mut out, 1, Rows::From(0), 2));
    assert!(reason.contains('1') && reason.contains('2'), "{reason}");
    // With ids it is known which one is missing.
    let named = Made::default().row(&id(1), Dtype::F32, &singles(&[1.0]));
    assert_eq!(named.place(&mut out, 1, Rows::From(0), 2), Ok(vec![0]));
    let twice = Made::default()
        .row(&id(1), Dtype::F32, &singles(&[1.0]))
        .row(&id(1), Dtype::F32, &singles(&[1.0]));
    unfit(twice.place(&mut out, 1, Rows::From(0), 2));
    let beyond = Made::default().row(&id(2), Dtype::F32, &singles(&[1.0]));
    unfit(beyond.place(&mut out, 1, Rows::From(0), 2));
}

#[test]
fn a_document_without_embedding_is_missing() {
    let made = Made::default()
        .row("a", Dtype::F32, &singles(&[1.0]))
        .without_embedding("b");
    assert_eq!(made.place(&mut [0f32; 2], 1, Rows::From(0), 2), Ok(vec![1]));
}

#[test]
fn numbers_of_json_are_read_into_their_rows() {
    let mut made = Made::default();
    for text in [&b"[1.5, 2]"[..], b"[[3],[4e0]]"] {
        let range = made.append(text);
        made.reply.rows.push(Row {
            embedding: Some(Numbers::Text(range, 2)),
            ..Row::default()
        });
    }
    let mut out = [0f32; 4];
    assert_eq!(made.place(&mut out, 2, Rows::At(&[1, 0]), 2), Ok(vec![]));
    assert_eq!(bits(&out), bits(&[3.0, 4.0, 1.5, 2.0]));
    let mut halves = [f16::ZERO; 4];
    let (reply, message) = (&made.reply, &made.message);
    let placed = place(reply, message, &mut halves, 2, Rows::From(0), 2, REQUEST_ID);
    assert_eq!(placed, Ok(vec![]));
    assert_eq!(halves, [1.5, 2.0, 3.0, 4.0].map(f16::from_f32));
}
