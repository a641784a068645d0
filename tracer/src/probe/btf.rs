//! Reads what we need of the kernel's type information (Documentation/bpf/btf.rst) and nothing else.
//!
//! A general parser turns its hundred thousand types into objects with names of their own, which takes 0.2 s and 100 MB at every start;
//! aya's keeps its members to itself. Here types stay bytes: one walk notes where each begins, and only the few
//! structs that are asked for are looked at. Nothing is trusted: a truncated or foreign file yields less, never a panic.
//!
//! Not for: relocation, or anything that aya does when it loads programs.

const MAGIC: u16 = 0xeb9f;
/// Members inside members inside members: `struct net` needs four.
const DEEPEST: u32 = 16;

/// Kinds that are looked into (include/uapi/linux/btf.h `BTF_KIND_*`).
mod kind {
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const TYPEDEF: u32 = 8;
    pub const VOLATILE: u32 = 9;
    pub const CONST: u32 = 10;
    pub const RESTRICT: u32 = 11;
    pub const FUNC: u32 = 12;
    pub const FUNC_PROTO: u32 = 13;
    pub const TYPE_TAG: u32 = 18;
}

/// The types of a kernel.
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type begins; ids start at 1.
    begins: Vec<usize>,
}

/// A type: its common part and what follows it.
#[derive(Clone, Copy)]
struct Type<'a> {
    name: u32,
    kind: u32,
    count: usize,
    /// Members carry the width of bit fields in their offsets.
    wide_offsets: bool,
    /// Size in bytes, or the type that this one refers to.
    size_or_type: u32,
    rest: &'a [u8],
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn usize_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32_at(bytes, at)?).ok()
}

impl<'a> Btf<'a> {
    /// `None` if these bytes are no type information of this machine's byte order.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if u16::from_ne_bytes(*bytes.first_chunk()?) != MAGIC {
            return None;
        }
        let body = bytes.get(usize_at(bytes, 4)?..)?;
        let section = |at: usize| body.get(usize_at(bytes, at)?..)?.get(..usize_at(bytes, at + 4)?);
        let (types, strings) = (section(8)?, section(16)?);
        let mut btf = Self { types, strings, begins: Vec::new() };
        let mut at = 0;
        while let Some(found) = btf.read(at) {
            btf.begins.push(at);
            at += 12 + extra(found.kind, found.count)?;
        }
        Some(btf)
    }

    /// Byte offset of a member, given by its path (`__sk_common.skc_net.net`); `None` for bit fields too.
    pub fn offset_of(&self, name: &str, path: &str) -> Option<u32> {
        // Some names are defined more than once, in parts of the kernel that know nothing of each other.
        self.named(kind::STRUCT, name).find_map(|found| {
            let mut at = 0;
            let mut inside = found;
            for (depth, member) in path.split('.').enumerate() {
                if depth > 0 {
                    inside = self.resolve(inside.size_or_type)?;
                }
                let (bits, of_type) = self.member(inside, member, 0)?;
                at += bits;
                inside = Type { size_or_type: of_type, ..inside };
            }
            (at % 8 == 0).then_some(at / 8)
        })
    }

    /// Names and values of an enum.
    pub fn values_of(&self, name: &str) -> Vec<(String, u32)> {
        let Some(found) = self.named(kind::ENUM, name).next() else { return Vec::new() };
        (0..found.count)
            .filter_map(|index| {
                let value = u32_at(found.rest, index * 8 + 4)?;
                Some((self.text(u32_at(found.rest, index * 8)?)?.to_owned(), value))
            })
            .collect()
    }

    /// How many parameters a function has.
    pub fn parameters_of(&self, name: &str) -> Option<usize> {
        let prototype = self.by_id(self.named(kind::FUNC, name).next()?.size_or_type)?;
        (prototype.kind == kind::FUNC_PROTO).then_some(prototype.count)
    }

    fn read(&self, at: usize) -> Option<Type<'a>> {
        let info = u32_at(self.types, at + 4)?;
        let (kind, count) = (info >> 24 & 0x1f, usize::try_from(info & 0xffff).ok()?);
        let rest = self.types.get(at + 12..)?.get(..extra(kind, count)?)?;
        Some(Type {
            name: u32_at(self.types, at)?,
            kind,
            count,
            wide_offsets: info >> 31 != 0,
            size_or_type: u32_at(self.types, at + 8)?,
            rest,
        })
    }

    fn by_id(&self, id: u32) -> Option<Type<'a>> {
        self.read(*self.begins.get(usize::try_from(id.checked_sub(1)?).ok()?)?)
    }

    fn named(&self, kind: u32, name: &str) -> impl Iterator<Item = Type<'a>> {
        let all = self.begins.iter().filter_map(|&at| self.read(at));
        all.filter(move |found| found.kind == kind && self.is_named(found.name, name))
    }

    fn is_named(&self, at: u32, name: &str) -> bool {
        let text = usize::try_from(at).ok().and_then(|at| self.strings.get(at..));
        text.and_then(|text| text.strip_prefix(name.as_bytes())).is_some_and(|rest| rest.first() == Some(&0))
    }

    fn text(&self, at: u32) -> Option<&'a str> {
        let text = self.strings.get(usize::try_from(at).ok()?..)?;
        std::str::from_utf8(text.split(|&byte| byte == 0).next()?).ok()
    }

    /// The struct or union behind names and qualifiers.
    fn resolve(&self, id: u32) -> Option<Type<'a>> {
        let mut found = self.by_id(id)?;
        for _ in 0..DEEPEST {
            match found.kind {
                kind::STRUCT | kind::UNION => return Some(found),
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    found = self.by_id(found.size_or_type)?;
                }
                _ => return None,
            }
        }
        None
    }

    /// Offset in bits and type of a member, which may be a member of an anonymous one.
    fn member(&self, of: Type<'a>, name: &str, depth: u32) -> Option<(u32, u32)> {
        if depth > DEEPEST {
            return None;
        }
        (0..of.count).find_map(|index| {
            let field = |at: usize| u32_at(of.rest, index * 12 + at);
            let (called, of_type, offset) = (field(0)?, field(4)?, field(8)?);
            let (bits, width) = if of.wide_offsets { (offset & 0x00ff_ffff, offset >> 24) } else { (offset, 0) };
            if called == 0 {
                let (inner, of_type) = self.member(self.resolve(of_type)?, name, depth + 1)?;
                return Some((bits + inner, of_type));
            }
            (self.is_named(called, name) && width == 0).then_some((bits, of_type))
        })
    }
}

/// Bytes behind the common part of a type; `None` for a kind that is newer than this reader, behind which nothing can be found.
fn extra(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // Integers, variables, declaration tags.
        1 | 14 | 17 => 4,
        // Pointers, forward declarations, names, qualifiers, functions, floats, type tags.
        2 | 7..=12 | 16 | 18 => 0,
        // Arrays.
        3 => 12,
        // Structs, unions, sections, 64-bit enums.
        4 | 5 | 15 | 19 => count * 12,
        // Enums and prototypes.
        6 | 13 => count * 8,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types and names to bytes: `{ struct outer { int a; struct { const inner_t b; }; int bits : 3; } }`.
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0inner\0x\0inner_t\0outer\0a\0b\0bits\0color\0red\0call\0";
        let name = |wanted: &str| -> u32 {
            let text = std::str::from_utf8(strings).expect("ASCII");
            u32::try_from(text.find(&format!("\0{wanted}\0")).expect("a name") + 1).expect("small")
        };
        let info = |kind: u32, count: u32| kind << 24 | count;
        let types: Vec<u32> = [
            vec![name("int"), info(1, 0), 4, 32],                                  // 1
            vec![name("inner"), info(4, 2), 8, name("a"), 1, 0, name("x"), 1, 32], // 2
            vec![name("inner_t"), info(8, 0), 2],                                  // 3
            vec![0, info(10, 0), 3],                                               // 4: const inner_t
            vec![0, info(4, 1), 8, name("b"), 4, 0],                               // 5: anonymous
            vec![name("outer"), info(4, 3) | 1 << 31, 20, name("a"), 1, 0, 0, 5, 32, name("bits"), 1, 3 << 24 | 96], // 6
            vec![name("color"), info(6, 1), 4, name("red"), 7],  // 7
            vec![0, info(13, 2), 1, name("a"), 1, name("b"), 1], // 8
            vec![name("call"), info(12, 0), 8],                  // 9
        ]
        .concat();
        let types: Vec<u8> = types.into_iter().flat_map(u32::to_ne_bytes).collect();
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("small").to_ne_bytes();
        [
            &MAGIC.to_ne_bytes()[..],
            &[1, 0],
            &24_u32.to_ne_bytes(),
            &0_u32.to_ne_bytes(),
            &length(&types),
            &length(&types),
            &length(strings),
            &types,
            strings,
        ]
        .concat()
    }

    #[test]
    fn members_are_found_through_names_qualifiers_and_anonymous_structs() {
        let bytes = sample();
        let btf = Btf::parse(&bytes).expect("valid");
        assert_eq!(btf.offset_of("outer", "a"), Some(0));
        assert_eq!(btf.offset_of("outer", "b"), Some(4));
        assert_eq!(btf.offset_of("outer", "b.x"), Some(8));
        for (name, path) in [("outer", "bits"), ("outer", "c"), ("outer", "a.x"), ("inner_t", "x"), ("out", "a")] {
            assert_eq!(btf.offset_of(name, path), None, "{name}.{path}");
        }
        assert_eq!(btf.values_of("color"), [("red".to_owned(), 7)]);
        assert_eq!((btf.parameters_of("call"), btf.parameters_of("color")), (Some(2), None));
    }

    struct Bytes(Vec<u8>);

    impl btfparse::Readable for Bytes {
        fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
            let start = usize::try_from(offset).expect("small");
            let past_the_end = || btfparse::Error::new(btfparse::ErrorKind::IOError, "past the end");
            let found = self.0.get(start..start + buffer.len()).ok_or_else(past_the_end)?;
            buffer.copy_from_slice(found);
            Ok(())
        }
    }

    #[test]
    fn every_offset_of_this_kernel_is_what_a_general_parser_says() {
        let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else {
            eprintln!("SKIPPED: this kernel has no type information");
            return;
        };
        let btf = Btf::parse(&bytes).expect("valid");
        let general = btfparse::TypeInformation::new(&Bytes(bytes.clone())).expect("valid");
        let ours = tracer_common::Offsets::from_lookup(|name, path| btf.offset_of(name, path));
        let theirs = tracer_common::Offsets::from_lookup(|name, path| {
            match general.offset_of(general.id_of(name)?, path).ok()?.1 {
                btfparse::Offset::ByteOffset(bytes) => Some(bytes),
                btfparse::Offset::BitOffsetAndSize(..) => None,
            }
        });
        assert_eq!(ours, theirs);
        assert!(btf.values_of("cgroup_subsys_id").iter().any(|(name, _)| name == "pids_cgrp_id"));
    }

    #[test]
    fn truncated_bytes_yield_less_and_never_a_panic() {
        let bytes = sample();
        for length in 0..bytes.len() {
            if let Some(btf) = Btf::parse(&bytes[..length]) {
                let _ = (btf.offset_of("outer", "b.x"), btf.values_of("color"), btf.parameters_of("call"));
            }
        }
        assert!(Btf::parse(b"\x7fELF and more").is_none());
    }
}
