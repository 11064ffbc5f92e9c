//! Documents, parameters and requests of every shape.

use std::borrow::Cow;
use std::collections::BTreeMap;

use casdk_core::document::{Content, Document, Fields, Id, Score, Scores, Tensor, Value};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

/// Short and long texts: both sides of where a length takes one more byte.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "\\PC{0,12}",
        1 => (120usize..140).prop_map(|len| "ä".repeat(len)),
        1 => (16_380usize..16_390).prop_map(|len| "x".repeat(len)),
    ]
}

fn cow() -> impl Strategy<Value = Cow<'static, str>> {
    prop_oneof![Just(String::new()), text()].prop_map(Cow::Owned)
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-1e300..1e300).prop_map(Value::Number),
        Just(Value::Number(-0.0)),
        text().prop_map(Value::Text),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::List),
            fields_of(inner).prop_map(Value::Struct),
        ]
    })
}

fn fields_of(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Fields> {
    btree_map(text(), value, 0..4).prop_map(|fields: BTreeMap<_, _>| fields.into_iter().collect())
}

pub fn fields() -> impl Strategy<Value = Fields> {
    fields_of(value())
}

/// An array of at least so many numbers, with one axis or two.
fn tensor(least: usize) -> impl Strategy<Value = Tensor<'static>> {
    (
        vec((-1e30f32..1e30, any::<u8>()), least..40),
        any::<bool>(),
        prop_oneof!["<f4", "<f8", "\\|u1"],
    )
        .prop_map(|(numbers, is_flat, dtype)| {
            let write = |(number, byte): (f32, u8)| match &*dtype {
                "<f4" => number.to_le_bytes().to_vec(),
                "<f8" => f64::from(number).to_le_bytes().to_vec(),
                _ => vec![byte],
            };
            let count = u32::try_from(numbers.len()).unwrap();
            Tensor {
                buffer: Cow::Owned(numbers.iter().flat_map(|&number| write(number)).collect()),
                shape: if is_flat || count % 2 == 1 {
                    vec![count]
                } else {
                    vec![count / 2, 2]
                },
                dtype: Cow::Owned(dtype),
            }
        })
}

fn float() -> impl Strategy<Value = f32> {
    prop_oneof![Just(0.0), Just(-0.0), -1e30f32..1e30]
}

fn scores() -> impl Strategy<Value = Scores<'static>> {
    let score =
        (float(), cow(), cow(), cow()).prop_map(|(value, op_name, description, ref_id)| Score {
            value,
            op_name,
            description,
            ref_id,
        });
    btree_map(text(), score, 0..3).prop_map(|scores| {
        scores
            .into_iter()
            .map(|(name, score)| (Cow::Owned(name), score))
            .collect()
    })
}

fn content() -> impl Strategy<Value = Content<'static>> {
    prop_oneof![
        Just(Content::Empty),
        text().prop_map(|text| Content::Text(Cow::Owned(text))),
        vec(any::<u8>(), 1..300).prop_map(|bytes| Content::Blob(Cow::Owned(bytes))),
        tensor(1).prop_map(Content::Tensor),
    ]
}

fn id() -> impl Strategy<Value = Id<'static>> {
    prop_oneof![
        cow().prop_map(Id::Own),
        Just(Id::Position),
        (0usize..2000).prop_map(Id::Candidate)
    ]
}

/// A document as it can be sent, with parts and matches.
pub fn document() -> impl Strategy<Value = Document<'static>> {
    let leaf = (
        (id(), content(), cow(), cow(), cow(), cow()),
        (
            any::<u32>(),
            any::<u32>(),
            float(),
            float(),
            vec(float(), 0..4),
        ),
        (fields(), option::of(tensor(0)), scores(), scores()),
    )
        .prop_map(|(words, numbers, extras)| {
            let (mut id, content, uri, mime_type, parent_id, modality) = words;
            if content == Content::Empty || content == Content::Text(Cow::Borrowed("")) {
                // Only what has an id of its own may be empty.
                id = Id::Own(Cow::Borrowed("empty"));
            }
            let (granularity, adjacency, weight, offset, location) = numbers;
            let (tags, embedding, scores, evaluations) = extras;
            Document {
                id,
                content,
                uri,
                mime_type,
                parent_id,
                modality,
                granularity,
                adjacency,
                weight,
                offset,
                location,
                tags,
                embedding,
                scores,
                evaluations,
                ..Document::default()
            }
        });
    leaf.prop_recursive(2, 6, 2, |inner| {
        (inner.clone(), vec(inner.clone(), 0..3), vec(inner, 0..3)).prop_map(
            |(root, chunks, matches)| Document {
                chunks,
                matches,
                ..root
            },
        )
    })
}
