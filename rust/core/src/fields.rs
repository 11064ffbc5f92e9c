//! The fields of a program's document, and by which of them it is a sentence and nothing else.

use crate::plain_fields;

macro_rules! field {
    ($($name:ident)*) => {
        /// The fields of a document, under the names that a program has for them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[expect(non_camel_case_types, missing_docs, reason = "the names are Python's, and the model says what each is")]
        pub enum Field {
            $($name,)*
        }

        impl Field {
            /// Every field, in the order of the enum.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

macro_rules! fields {
    ($($(#[$says:meta])* $name:ident: $kind:ident = $number:literal,)*) => {
        field! {
            id text blob tensor embedding matches chunks scores evaluations tags mime_type location $($name)*
        }

        /// What is said of a sentence in every request, beside its id and its text.
        const SAID: &[Field] = &[Field::mime_type, $(Field::$name,)* Field::location, Field::tags];
    };
}
plain_fields!(fields);

/// What travels beside a sentence only where documents travel whole.
const OF_WHOLE: [Field; 3] = [Field::embedding, Field::scores, Field::evaluations];
const NESTED: [Field; 2] = [Field::matches, Field::chunks];

/// What is known about a document of the caller's before it is read.
pub trait Outline {
    /// Why the document cannot be looked at.
    type Error;

    /// Whether a field has the value that it has in every document until somebody sets it.
    fn is_unset(&self, field: Field) -> Result<bool, Self::Error>;

    /// Whether reading a field runs no code of the program's.
    fn is_plain(&self, field: Field) -> Result<bool, Self::Error>;
}

/// Whether a document is a sentence of which nothing is said: beside its id and its text, nothing of it travels.
///
/// # Errors
///
/// The document cannot be looked at.
pub fn is_bare_sentence<O: Outline>(document: &O) -> Result<bool, O::Error> {
    Ok(!document.is_unset(Field::text)?
        && all(SAID, |field| document.is_unset(field))?
        && all(&NESTED, |field| document.is_unset(field))?)
}

/// Whether a document is a sentence that can be read without running any code of the program's, with all that travels
/// beside it.
///
/// # Arguments
///
/// * `whole`: whether documents travel whole.
///
/// # Errors
///
/// The document cannot be looked at.
pub fn is_plain_sentence<O: Outline>(document: &O, whole: bool) -> Result<bool, O::Error> {
    Ok(document.is_plain(Field::id)?
        && document.is_plain(Field::text)?
        && all(SAID, |field| document.is_plain(field))?
        && !document.is_unset(Field::text)?
        && all(&NESTED, |field| document.is_unset(field))?
        && (!whole || all(&OF_WHOLE, |field| document.is_plain(field))?))
}

#[inline]
fn all<E>(fields: &[Field], is: impl Fn(Field) -> Result<bool, E>) -> Result<bool, E> {
    for &field in fields {
        if !is(field)? {
            return Ok(false);
        }
    }
    Ok(true)
}
