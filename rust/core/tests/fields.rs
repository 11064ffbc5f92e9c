//! The fields of a document, and by which of them it is a sentence.

#[path = "oracle/plain.rs"]
mod plain;
#[path = "oracle/strategies.rs"]
mod strategies;

use std::convert::Infallible;

use casdk_core::document::{Content, Document, Id, Plain};
use casdk_core::fields::{Field, Outline, is_bare_sentence, is_plain_sentence};
use casdk_core::plain_fields;
use casdk_core::request::pack;
use casdk_core::sentences::TextPlan;
use plain::{REQUEST_ID, options, text};
use proptest::collection::vec;
use proptest::prelude::*;

#[test]
fn all_fields_are_there_once_and_in_their_order() {
    let places = Field::ALL.iter().map(|&field| field as usize);
    assert!(places.eq(0..Field::ALL.len()));
    let mut names: Vec<_> = Field::ALL.iter().map(|field| field.name()).collect();
    assert_eq!(names[..3], ["id", "text", "blob"]);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Field::ALL.len());
}

/// A document in which some fields are set, and reading some others runs code.
struct Outlined<'a> {
    set: &'a [Field],
    own: &'a [Field],
}

impl Outline for Outlined<'_> {
    type Error = Infallible;

    fn is_unset(&self, field: Field) -> Result<bool, Infallible> {
        Ok(!self.set.contains(&field))
    }

    fn is_plain(&self, field: Field) -> Result<bool, Infallible> {
        Ok(!self.own.contains(&field))
    }
}

/// Returns the names of the fields that, alone, keep a document from being a sentence.
fn refused(is_sentence: impl Fn(Field) -> Result<bool, Infallible>) -> Vec<&'static str> {
    let fields = Field::ALL
        .iter()
        .filter(|&&field| !is_sentence(field).unwrap());
    fields.map(|field| field.name()).collect()
}

/// Returns the names of all fields but these.
fn all_but(left_out: &[&str]) -> Vec<&'static str> {
    let names = Field::ALL.iter().map(|field| field.name());
    names.filter(|name| !left_out.contains(name)).collect()
}

#[test]
fn a_sentence_is_read_at_once_if_all_that_travels_runs_no_code() {
    let refused_of = |whole| {
        refused(|field| {
            let document = Outlined {
                set: &[Field::text],
                own: &[field],
            };
            is_plain_sentence(&document, whole)
        })
    };
    // It has a text, so no other content travels; and it has no documents in it.
    let others = ["blob", "tensor", "matches", "chunks"];
    assert_eq!(refused_of(true), all_but(&others));
    let only_whole = ["embedding", "scores", "evaluations"];
    assert_eq!(
        refused_of(false),
        all_but(&[&others[..], &only_whole].concat())
    );
}

#[test]
fn a_sentence_has_a_text_and_no_documents_in_it() {
    for whole in [false, true] {
        let nested = refused(|field| {
            let document = Outlined {
                set: &[Field::text, field],
                own: &[],
            };
            is_plain_sentence(&document, whole)
        });
        assert_eq!(nested, ["matches", "chunks"]);
        let without_text = Outlined {
            set: &[Field::id, Field::blob],
            own: &[],
        };
        assert_eq!(is_plain_sentence(&without_text, whole), Ok(false));
        assert_eq!(is_bare_sentence(&without_text), Ok(false));
    }
}

/// The core's own document, as a program would have it.
struct Said<'a>(&'a Document<'a>);

impl Outline for Said<'_> {
    type Error = Infallible;

    fn is_unset(&self, field: Field) -> Result<bool, Infallible> {
        let document = self.0;
        macro_rules! is_unset {
            ($($(#[$_says:meta])* $name:ident: $kind:ident = $number:literal,)*) => {
                match field {
                    $(Field::$name => !document.$name.travels(),)*
                    Field::id => false,
                    Field::text => !matches!(&document.content, Content::Text(text) if !text.is_empty()),
                    Field::blob => !matches!(document.content, Content::Blob(_)),
                    Field::tensor => !matches!(document.content, Content::Tensor(_)),
                    Field::embedding => document.embedding.is_none(),
                    Field::matches => document.matches.is_empty(),
                    Field::chunks => document.chunks.is_empty(),
                    Field::scores => document.scores.is_empty(),
                    Field::evaluations => document.evaluations.is_empty(),
                    Field::tags => document.tags.is_empty(),
                    Field::mime_type => document.mime_type.is_empty(),
                    Field::location => document.location.is_empty(),
                }
            };
        }
        Ok(plain_fields!(is_unset))
    }

    fn is_plain(&self, _field: Field) -> Result<bool, Infallible> {
        Ok(true)
    }
}

/// Returns a document of an id and a text that says no more than these fields of another one.
fn only<'a>(whole: &Document<'a>, fields: &[Field]) -> Document<'a> {
    let mut document: Document<'a> = Document {
        id: Id::Own("id".into()),
        ..text("a sentence")
    };
    macro_rules! copy {
        ($($(#[$_says:meta])* $name:ident: $kind:ident = $number:literal,)*) => {
            for field in fields {
                match field {
                    $(Field::$name => document.$name.clone_from(&whole.$name),)*
                    Field::matches => document.matches.clone_from(&whole.matches),
                    Field::chunks => document.chunks.clone_from(&whole.chunks),
                    Field::tags => document.tags.clone_from(&whole.tags),
                    Field::mime_type => document.mime_type.clone_from(&whole.mime_type),
                    Field::location => document.location.clone_from(&whole.location),
                    // They do not travel beside a sentence, unless documents travel whole.
                    Field::id | Field::text | Field::blob | Field::tensor => {}
                    Field::embedding | Field::scores | Field::evaluations => {}
                }
            }
        };
    }
    plain_fields!(copy);
    document
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// A bare sentence is one that may be packed as id and text alone: the message is the same.
    #[test]
    fn of_a_bare_sentence_nothing_but_id_and_text_travels(
        whole in strategies::document(),
        fields in vec(prop::sample::select(Field::ALL), 0..3),
    ) {
        let document = only(&whole, &fields);
        let options = casdk_core::load::Options { allow_empty: true, check_images: false, ..options() };
        let texts = TextPlan::new(&["a sentence"], Some(&["id"]), &options, REQUEST_ID);
        let mut bare = vec![0; texts.len()];
        texts.write(&mut bare);
        let documents = [document];
        let (message, _, failures) = pack(&documents, &options, REQUEST_ID);
        prop_assert_eq!(failures, vec![]);
        prop_assert_eq!(is_bare_sentence(&Said(&documents[0])), Ok(message == bare));
    }
}
