//! The shape all model structs share: read from the tree with defaults, written without what is absent.

use std::collections::BTreeMap;

/// Whether a field is left out of `config` output, as Go's `omitempty` does.
pub trait Absent {
    /// True if the value says nothing.
    fn is_absent(&self) -> bool;
}

impl<T> Absent for Option<T> {
    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<T> Absent for Vec<T> {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Absent for BTreeMap<K, V> {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl Absent for bool {
    fn is_absent(&self) -> bool {
        !*self
    }
}

impl Absent for String {
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

/// Defines a struct of the model: every field optional in the file, absent ones not written back, `x-*`
/// keys kept in `extensions`, and the place of the mapping in `span`. `bind.rs` supplies the two fields that start
/// with `$`, `output.rs` puts extensions back among the keys.
macro_rules! record {
    ($(#[$meta:meta])* pub struct $name:ident { $( $(#[$field_meta:meta])* pub $field:ident: $ty:ty, )* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[serde(skip_serializing_if = "crate::types::record::Absent::is_absent")]
                pub $field: $ty,
            )*
            /// `x-*` keys, untouched.
            #[serde(rename = "$extensions", skip_serializing_if = "crate::types::record::Absent::is_absent")]
            pub extensions: $crate::types::Extensions,
            /// Where this part of the project was written.
            #[serde(rename = "$span", skip_serializing)]
            pub span: $crate::span::Span,
        }
    };
}

pub(crate) use record;
