//! What an item is: the one list of kinds, for both languages.

use std::fmt;

use crate::error::Error;

/// Hands the list of kinds to a macro: name in Rust, name in Python, and the byte that stands for it where there is one
/// byte for each item of a batch.
///
/// The enum and the class that Python gets are made from it, so that a kind more is a line more.
#[macro_export]
macro_rules! kinds {
    ($made_from:ident) => {
        $made_from! {
            /// A sentence.
            Text TEXT = b'T',
            /// The path of an image file.
            Path PATH = b'P',
            /// An image inside its `data:` URI.
            DataUri DATA_URI = b'D',
            /// The `file://` URL of an image.
            FileUrl FILE_URL = b'F',
            /// The `http://` or `https://` URL of an image.
            WebUrl WEB_URL = b'U',
            /// An image's bytes.
            Blob BLOB = b'B',
            /// An image's pixels.
            Tensor TENSOR = b'N',
            /// A document.
            Document DOCUMENT = b'O',
            /// An item whose kind is not known yet, or a string that is neither sentence nor image: the name of a directory,
            /// or a URL with white space in it.
            Unclear UNCLEAR = b'?',
        }
    };
}

macro_rules! kind {
    ($($(#[$says:meta])* $name:ident $constant:ident = $byte:literal,)*) => {
        /// What an item is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$says])* $name = $byte,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns its name in Python.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($constant),)*
                }
            }
        }

        impl TryFrom<u8> for Kind {
            type Error = UnknownKind;

            fn try_from(byte: u8) -> Result<Self, UnknownKind> {
                match byte {
                    $($byte => Ok(Self::$name),)*
                    _ => Err(UnknownKind(byte)),
                }
            }
        }
    };
}
kinds!(kind);

impl Kind {
    /// Returns the byte that stands for it.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// Whether it is a URL: it leads elsewhere, and has no white space.
    #[must_use]
    pub const fn is_url(self) -> bool {
        matches!(self, Self::FileUrl | Self::WebUrl)
    }

    /// Returns the kind of an item that is to be packed.
    ///
    /// # Errors
    ///
    /// [`Error::Unfit`] if the byte stands for none, or for [`Kind::Unclear`].
    pub fn of_packed(byte: u8) -> Result<Self, Error> {
        match Self::try_from(byte) {
            Ok(Self::Unclear) => Err(Error::Unfit("what is unclear cannot be packed".into())),
            Ok(kind) => Ok(kind),
            Err(unknown) => Err(Error::Unfit(unknown.to_string())),
        }
    }
}

/// A byte that stands for no kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownKind(pub u8);

impl fmt::Display for UnknownKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "no kind of item has the byte {}", self.0)
    }
}

impl std::error::Error for UnknownKind {}
