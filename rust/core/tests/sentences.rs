//! Requests of nothing but sentences, with a plan of any documents as the oracle.

#[path = "oracle/plain.rs"]
mod plain;

use casdk_core::document::{Document, Id};
use casdk_core::load::Options;
use casdk_core::request::pack;
use casdk_core::sentences::TextPlan;
use plain::{REQUEST_ID, options, text};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn sentences_alone_are_written_like_any_documents(
        sentences in vec(("\\PC{0,150}", "\\PC{0,20}"), 0..20),
        are_named in any::<bool>(),
        max_item_bytes in 50u64..400,
        max_message_bytes in 1usize..3000,
        request_id in prop_oneof![Just(REQUEST_ID.to_string()), "\\PC{0,30}"],
    ) {
        let options = Options { max_item_bytes, max_message_bytes, ..options() };
        let (texts, ids): (Vec<&str>, Vec<&str>) = sentences.iter().map(|(text, id)| (&text[..], &id[..])).unzip();
        let documents: Vec<_> = sentences.iter().map(|(content, id)| Document {
            id: if are_named { Id::Own(id.into()) } else { Id::Position },
            ..text(content)
        }).collect();
        let (message, taken, failures) = pack(&documents, &options, &request_id);
        let plan = TextPlan::new(&texts, are_named.then_some(&ids[..]), &options, &request_id);
        let mut written = vec![0; plan.len()];
        plan.write(&mut written);
        prop_assert_eq!(written, message);
        prop_assert_eq!(plan.taken(), taken);
        prop_assert_eq!(plan.rows(), taken - failures.len());
        prop_assert_eq!(plan.into_failures(), failures);
    }
}

#[test]
fn no_sentence_is_a_message_too() {
    let options = options();
    let plan = TextPlan::new(&[], None, &options, REQUEST_ID);
    assert_eq!((plan.rows(), plan.taken()), (0, 0));
    let mut message = vec![0; plan.len()];
    plan.write(&mut message);
    assert_eq!(message, pack(&[], &options, REQUEST_ID).0);
}

#[test]
fn an_empty_or_a_large_one_is_left_out_alone() {
    let mut options = options();
    options.max_item_bytes = 3;
    let plan = TextPlan::new(&["a", "", "long", "b"], None, &options, REQUEST_ID);
    assert_eq!((plan.rows(), plan.taken()), (2, 4));
    let found: Vec<_> = plan
        .into_failures()
        .iter()
        .map(|failure| (failure.position, failure.error.kind()))
        .collect();
    assert_eq!(found, [(1, "empty"), (2, "too_large")]);
}
