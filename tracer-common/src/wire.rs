//! `wire!` defines a record once: struct, size, and a decoder that neither assumes alignment nor trusts lengths.

/// A field that can be read from native-endian bytes. Records never leave the machine in this form, so both sides have
/// the same byte order.
pub trait Field: Copy {
    /// Reads the field at the start of `bytes`; `None` if there are too few.
    fn read(bytes: &[u8]) -> Option<Self>;
}

macro_rules! int_field {
    ($($int:ty),+) => {$(
        impl Field for $int {
            #[inline]
            fn read(bytes: &[u8]) -> Option<Self> {
                Some(Self::from_ne_bytes(*bytes.first_chunk()?))
            }
        }
    )+};
}
int_field!(u8, u16, u32, u64);

impl<const N: usize> Field for [u8; N] {
    #[inline]
    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().copied()
    }
}

/// Defines a `#[repr(C)]` record made of integers and byte arrays, its `SIZE`, and `read`.
///
/// A compile-time assertion compares the sum of the field sizes with the size of the struct. Hidden padding, which the
/// BPF programs would leave uninitialised and the verifier would refuse, is a build error.
macro_rules! wire {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$fmeta:meta])* $fvis:vis $field:ident: $ty:ty,)+ }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis struct $name { $($(#[$fmeta])* $fvis $field: $ty,)+ }

        impl $name {
            /// Bytes of this record, in the ring buffer and in memory.
            pub const SIZE: usize = core::mem::size_of::<Self>();
        }

        const _: () = assert!(0 $(+ core::mem::size_of::<$ty>())+ == core::mem::size_of::<$name>(), "hidden padding");

        impl crate::wire::Field for $name {
            #[inline]
            fn read(bytes: &[u8]) -> Option<Self> {
                // One check of the length is enough: the offsets of the fields are constants.
                let own = bytes.first_chunk::<{ core::mem::size_of::<$name>() }>()?;
                Some(Self {
                    $($field: crate::wire::Field::read(own.get(core::mem::offset_of!(Self, $field)..)?)?,)+
                })
            }
        }
    };
}
pub(crate) use wire;
