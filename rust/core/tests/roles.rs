//! What a document is to the one around it: what travels, what its content is, what is filled in.

#[path = "oracle/strategies.rs"]
mod strategies;

use std::borrow::Cow;
use std::cell::RefCell;

use casdk_core::document::{Document, Id};
use casdk_core::roles::{Parts, Role, content};
use proptest::prelude::*;

const ROLES: [Role; 4] = [Role::Root, Role::Candidate(7), Role::Chunk, Role::Match];

#[test]
fn a_role_decides_what_travels() {
    let table = ROLES.map(|role| {
        let [kept, whole] =
            [false, true].map(|whole| (role.sends_uri(whole), role.sends_all(whole)));
        (role.sends_id(), role.reads_uri(), kept, whole)
    });
    assert_eq!(
        table,
        [
            (true, true, (false, false), (true, true)),
            (false, true, (false, false), (true, false)),
            (true, false, (true, true), (true, true)),
            (true, false, (true, true), (true, true)),
        ]
    );
}

/// How one part of a document is found.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Found {
    Missing,
    There,
    Broken,
}

/// A document of which some parts are there, and which remembers those that it was asked for.
struct Asked {
    parts: [Found; 4],
    asked: RefCell<Vec<usize>>,
}

impl Asked {
    fn read(&self, part: usize) -> Result<Option<usize>, usize> {
        self.asked.borrow_mut().push(part);
        match self.parts[part] {
            Found::Missing => Ok(None),
            Found::There => Ok(Some(part)),
            Found::Broken => Err(part),
        }
    }
}

impl Parts for Asked {
    type Content = usize;
    type Error = usize;

    fn text(&self) -> Result<Option<usize>, usize> {
        self.read(0)
    }

    fn blob(&self) -> Result<Option<usize>, usize> {
        self.read(1)
    }

    fn tensor(&self) -> Result<Option<usize>, usize> {
        self.read(2)
    }

    fn uri(&self) -> Result<Option<usize>, usize> {
        self.read(3)
    }
}

fn found() -> impl Strategy<Value = Found> {
    prop_oneof![3 => Just(Found::Missing), 1 => Just(Found::There), 1 => Just(Found::Broken)]
}

/// Looks at one pair of a document and one in it, before and after: only what was not said is filled in.
fn check_nested(before: &Document<'_>, after: &Document<'_>) {
    for (part, placed) in before.chunks.iter().zip(&after.chunks) {
        let depth = after.granularity.saturating_add(1);
        let expected = if part.granularity == 0 {
            depth
        } else {
            part.granularity
        };
        assert_eq!(placed.granularity, expected);
        assert_eq!(placed.adjacency, part.adjacency);
        let parent: &str = match &before.id {
            Id::Own(id) if part.parent_id.is_empty() => id,
            _ => &part.parent_id,
        };
        assert_eq!(placed.parent_id, parent);
        check_nested(part, placed);
    }
    for (nested, placed) in before.matches.iter().zip(&after.matches) {
        let depth = after.adjacency.saturating_add(1);
        let expected = match (&nested.id, nested.adjacency) {
            (Id::Candidate(_), _) => 1,
            (_, 0) => depth,
            (_, said) => said,
        };
        assert_eq!(placed.adjacency, expected);
        assert_eq!(placed.granularity, nested.granularity);
        assert_eq!(placed.parent_id, nested.parent_id);
        check_nested(nested, placed);
    }
}

/// Sets what may be filled in to nothing, at every depth.
fn without_places(document: &mut Document<'_>) {
    (document.granularity, document.adjacency) = (0, 0);
    document.parent_id = Cow::Borrowed("");
    document
        .chunks
        .iter_mut()
        .chain(&mut document.matches)
        .for_each(without_places);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_content_is_the_first_part_that_is_there(
        parts in [found(), found(), found(), found()],
        role in prop::sample::select(&ROLES),
    ) {
        let document = Asked { parts, asked: RefCell::default() };
        let known = if role.reads_uri() { &parts[..] } else { &parts[..3] };
        let first = known.iter().position(|part| *part != Found::Missing);
        let expected = match first {
            Some(at) if parts[at] == Found::Broken => Err(at),
            at => Ok(at),
        };
        prop_assert_eq!(content(&document, role), expected);
        // Those behind it are not read: an array would be copied for nothing.
        let asked: Vec<_> = (0..first.map_or(known.len(), |at| at + 1)).collect();
        prop_assert_eq!(document.asked.into_inner(), asked);
    }

    #[test]
    fn what_is_in_a_document_takes_its_place(
        mut document in strategies::document(),
        is_placed in any::<bool>(),
    ) {
        if !is_placed {
            without_places(&mut document);
        }
        let before = document.clone();
        document.place_nested();
        check_nested(&before, &document);
        let placed = document.clone();
        document.place_nested();
        prop_assert_eq!(&document, &placed);
        let (mut before, mut after) = (before, document);
        without_places(&mut before);
        without_places(&mut after);
        prop_assert_eq!(before, after);
    }
}
