//! The kinds of items, by name.

use casdk_core::kind::Kind;
use casdk_core::kinds;
use pyo3::prelude::*;

/// What an item is.
#[pyclass(frozen, name = "Kind", module = "casdk._rust")]
pub struct Kinds;

macro_rules! constants {
    ($($(#[$says:meta])* $name:ident $constant:ident = $byte:literal,)*) => {
        #[pymethods]
        impl Kinds {
            $(
                $(#[$says])*
                #[classattr]
                const $constant: u8 = Kind::$name.byte();
            )*
        }
    };
}
kinds!(constants);
