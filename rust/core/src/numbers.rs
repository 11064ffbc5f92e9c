//! Which numbers and arrays a request can carry: the same on every scheme, so what JSON cannot hold is sent on none.

use half::f16;

use crate::document::{Document, Scores, Tensor};
use crate::error::Error;
use crate::plain_fields;
use crate::reply::Dtype;

/// Most axes of an array, as `NumPy` has it.
const MOST_AXES: usize = 64;

/// Looks at the numbers of one document, those in it left out.
///
/// # Errors
///
/// [`Error::Value`] for NaN and the infinities, and for an array that no reader would understand.
pub(crate) fn check(document: &Document<'_>) -> Result<(), Error> {
    macro_rules! check_value {
        ($name:ident, float) => {
            check_number(stringify!($name), document.$name)?;
        };
        ($name:ident, $other:ident) => {};
    }
    macro_rules! check {
        ($($(#[$_says:meta])* $name:ident: $kind:ident = $number:literal,)*) => {
            $(check_value!($name, $kind);)*
        };
    }
    plain_fields!(check);
    for &number in &document.location {
        check_number("location", number)?;
    }
    check_scores("scores", &document.scores)?;
    check_scores("evaluations", &document.evaluations)?;
    match &document.embedding {
        Some(embedding) => check_array("embedding", embedding),
        None => Ok(()),
    }
}

fn check_scores(name: &str, scores: &Scores<'_>) -> Result<(), Error> {
    let mut scores = scores.iter();
    scores.try_for_each(|(_, score)| check_number(name, score.value))
}

fn check_number(name: &str, number: f32) -> Result<(), Error> {
    if number.is_finite() {
        return Ok(());
    }
    refuse(
        name,
        format!("the number {number} cannot be sent: JSON has none such"),
    )
}

/// Looks at an array.
///
/// # Errors
///
/// [`Error::Value`]: its dtype cannot be sent, its bytes do not fit its shape, or a number in it is NaN or infinite.
pub(crate) fn check_array(name: &str, array: &Tensor<'_>) -> Result<(), Error> {
    let Some(dtype) = Dtype::parse(&array.dtype) else {
        return refuse(
            name,
            format!("an array of dtype {} cannot be sent", array.dtype),
        );
    };
    let mut axes = array.shape.iter();
    let count = axes.try_fold(1usize, |count, &axis| count.checked_mul(axis as usize));
    if count.and_then(|count| count.checked_mul(dtype.size())) != Some(array.buffer.len()) {
        let (len, shape) = (array.buffer.len(), &array.shape);
        return refuse(
            name,
            format!("{len} bytes are no array {shape:?} of {}", array.dtype),
        );
    }
    if array.shape.is_empty() {
        return refuse(name, "an array without dimensions cannot be sent".into());
    }
    if array.shape.len() > MOST_AXES {
        return refuse(name, format!("{} axes are too many", array.shape.len()));
    }
    if are_finite(&array.buffer, dtype) {
        return Ok(());
    }
    refuse(
        name,
        "a number of it is NaN or infinite, which JSON cannot hold".into(),
    )
}

fn are_finite(bytes: &[u8], dtype: Dtype) -> bool {
    // Without branches in the loop, so that the compiler makes vector instructions of it.
    fn all<const N: usize>(bytes: &[u8], is_finite: impl Fn([u8; N]) -> bool) -> bool {
        let numbers = bytes.chunks_exact(N);
        numbers.fold(true, |all, number| {
            all & number
                .first_chunk()
                .is_some_and(|&number| is_finite(number))
        })
    }
    match dtype {
        Dtype::F16 => all(bytes, |number| f16::from_le_bytes(number).is_finite()),
        Dtype::F32 => all(bytes, |number| f32::from_le_bytes(number).is_finite()),
        Dtype::F64 => all(bytes, |number| f64::from_le_bytes(number).is_finite()),
        Dtype::U8 | Dtype::I8 | Dtype::I32 | Dtype::I64 => true,
    }
}

fn refuse(name: &str, reason: String) -> Result<(), Error> {
    Err(Error::Value {
        path: name.into(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::document::Score;

    fn tensor(dtype: &'static str, buffer: Vec<u8>, shape: Vec<u32>) -> Tensor<'static> {
        Tensor {
            buffer: Cow::Owned(buffer),
            shape,
            dtype: Cow::Borrowed(dtype),
        }
    }

    fn reason(result: Result<(), Error>) -> String {
        result.unwrap_err().to_string()
    }

    proptest! {
        #[test]
        fn an_array_of_finite_numbers_is_sent(
            numbers in vec(prop_oneof![8 => any::<f32>(), 1 => Just(f32::NAN), 1 => Just(f32::INFINITY)], 1..12),
        ) {
            let count = u32::try_from(numbers.len()).unwrap();
            let are_finite = numbers.iter().all(|number| number.is_finite());
            let single = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            prop_assert_eq!(check_array("array", &tensor("<f4", single, vec![count])).is_ok(), are_finite);
            let double = numbers.iter().flat_map(|&number| f64::from(number).to_le_bytes()).collect();
            prop_assert_eq!(check_array("array", &tensor("<f8", double, vec![count])).is_ok(), are_finite);
            let halves: Vec<_> = numbers.iter().map(|&number| f16::from_f32(number)).collect();
            let are_finite = halves.iter().all(|number| number.is_finite());
            let half = halves.iter().flat_map(|number| number.to_le_bytes()).collect();
            prop_assert_eq!(check_array("array", &tensor("<f2", half, vec![count])).is_ok(), are_finite);
        }

        #[test]
        fn any_bytes_are_whole_numbers(bytes in vec(any::<u8>(), 1..40)) {
            let count = u32::try_from(bytes.len()).unwrap();
            for dtype in ["|u1", "|i1"] {
                prop_assert!(check_array("array", &tensor(dtype, bytes.clone(), vec![count])).is_ok());
            }
        }
    }

    #[test]
    fn what_no_reader_would_understand_is_named() {
        for (array, says) in [
            (
                tensor("<c8", vec![0; 8], vec![1]),
                "array: an array of dtype <c8 cannot be sent",
            ),
            (
                tensor("<f4", vec![0; 7], vec![2]),
                "array: 7 bytes are no array [2] of <f4",
            ),
            (
                tensor("<f4", Vec::new(), vec![u32::MAX; 3]),
                "array: 0 bytes are no array [4294967295, 4294967295, 4294967295] of <f4",
            ),
            (
                tensor("<f4", vec![0; 4], Vec::new()),
                "array: an array without dimensions cannot be sent",
            ),
            (
                tensor("|u1", vec![0], vec![1; 65]),
                "array: 65 axes are too many",
            ),
        ] {
            assert_eq!(reason(check_array("array", &array)), says);
        }
    }

    #[test]
    fn each_number_of_a_document_is_looked_at() {
        let scores = |value| {
            let score = Score {
                value,
                ..Score::default()
            };
            vec![(Cow::Borrowed("cosine"), score)]
        };
        let row = tensor("<f4", f32::NAN.to_le_bytes().to_vec(), vec![1]);
        for (document, name) in [
            (
                Document {
                    weight: f32::NAN,
                    ..Document::default()
                },
                "weight",
            ),
            (
                Document {
                    offset: f32::INFINITY,
                    ..Document::default()
                },
                "offset",
            ),
            (
                Document {
                    location: vec![0.0, f32::NEG_INFINITY],
                    ..Document::default()
                },
                "location",
            ),
            (
                Document {
                    scores: scores(f32::NAN),
                    ..Document::default()
                },
                "scores",
            ),
            (
                Document {
                    evaluations: scores(f32::NAN),
                    ..Document::default()
                },
                "evaluations",
            ),
            (
                Document {
                    embedding: Some(row),
                    ..Document::default()
                },
                "embedding",
            ),
        ] {
            assert!(reason(check(&document)).starts_with(&format!("{name}: ")));
        }
        assert_eq!(check(&Document::default()), Ok(()));
        assert_eq!(
            check(&Document {
                scores: scores(1.0),
                ..Document::default()
            }),
            Ok(())
        );
    }
}
