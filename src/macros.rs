//! What types of this crate would otherwise say again and again, in the same words.

/// An enum whose variants are words. `Display` behind the name: it prints them, too.
macro_rules! words {
    (
        $(#[$attribute:meta])*
        $visibility:vis enum $name:ident $(: $shown:ident)? {
            $($(#[$about:meta])* $variant:ident = $word:literal,)*
        }
    ) => {
        $(#[$attribute])*
        $visibility enum $name {
            $($(#[$about])* $variant,)*
        }

        impl $name {
            /// The word used in events, reports and messages.
            #[must_use]
            $visibility const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        $(impl std::fmt::$shown for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        })?
    };
}

/// `Debug` for types of which only some may be shown, or nothing: no address, no key, no bytes.
macro_rules! shown {
    ($($name:ident)*) => {
        $(impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        })*
    };
    ($name:ident $(<$lifetime:lifetime>)?, $this:ident: $($field:ident = $value:expr),*) => {
        impl std::fmt::Debug for $name$(<$lifetime>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let $this = self;
                f.debug_struct(stringify!($name))$(.field(stringify!($field), &$value))*.finish_non_exhaustive()
            }
        }
    };
}

/// Methods of a builder, each of which sets one field.
macro_rules! setters {
    ($($(#[$about:meta])* fn $name:ident($value:ident: $type:ty) => $field:ident$(.$inner:ident)? = $set:expr;)*) => {
        $(
            $(#[$about])*
            pub const fn $name(mut self, $value: $type) -> Self {
                self.$field$(.$inner)? = $set;
                self
            }
        )*
    };
}

/// Methods that give a value: public, and not to be called for nothing.
macro_rules! getters {
    ($($(#[$about:meta])* fn $name:ident(&$this:ident) -> $type:ty $body:block)*) => {
        $(
            $(#[$about])*
            #[must_use]
            pub fn $name(&$this) -> $type $body
        )*
    };
}
