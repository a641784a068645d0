//! Readers of the columns of a batch, by row: the counterpart of `column_builders`.
//!
//! `get` looks whether the row has a value; `at` is for rows of which the caller knows that they have one. Not for: the
//! meaning of a row, which `decode` knows.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::UInt32Type;
use arrow_array::{Array as _, ArrayRef, StringArray};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, NullBuffer, ScalarBuffer};

use crate::event::Addr;

/// A column of numbers.
pub struct NumberReader<T: ArrowNativeType> {
    /// Values by row; arbitrary in rows that have none.
    pub values: ScalarBuffer<T>,
    /// Which rows have a value; `None` is all.
    pub nulls: Option<NullBuffer>,
}

impl<T: ArrowNativeType> NumberReader<T> {
    /// The number of `row`; `None` if it has none.
    #[inline]
    pub fn get(&self, row: usize) -> Option<T> {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) { None } else { self.values.get(row).copied() }
    }
}

impl<T: ArrowNativeType> NumberReader<T> {
    /// Of a column that files of this version do not have.
    pub fn absent() -> Self {
        Self { values: ScalarBuffer::from(Vec::new()), nulls: None }
    }
}

/// A column of answers, yes or no.
pub struct AnswerReader {
    /// Answers by row, arbitrary in rows that have none; empty if files of this version do not have the column.
    pub values: BooleanBuffer,
    /// Which rows have an answer; `None` is all.
    pub nulls: Option<NullBuffer>,
}

impl AnswerReader {
    /// The answer of `row`; `None` if it has none.
    #[inline]
    pub fn get(&self, row: usize) -> Option<bool> {
        let known = row < self.values.len() && self.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        known.then(|| self.values.value(row))
    }
}

/// A column of names, as indexes into the values that the names stand for.
pub struct EnumReader<W> {
    /// Index by row.
    pub keys: NumberReader<u8>,
    /// The value of each name in the file's dictionary; `None` if this version does not know the name.
    pub values: Vec<Option<W>>,
}

impl<W: Copy> EnumReader<W> {
    /// The value of `row`; `None` if it has none or one that this version does not know.
    #[inline]
    pub fn get(&self, row: usize) -> Option<W> {
        *self.values.get(usize::from(self.keys.get(row)?))?
    }

    /// The value of a row that has one; `None` if this version does not know it.
    #[inline]
    pub fn at(&self, row: usize) -> Option<W> {
        *self.values.get(usize::from(*self.keys.values.get(row)?))?
    }
}

/// The addresses of a column, of which a file lists each once.
#[derive(Clone, Debug, Default)]
pub struct AddressList {
    /// Each text parsed once for all batches; `None` stands for a text that is no address or could not be read.
    parsed: Vec<Option<Addr>>,
    /// An addition could not be read. Unless a later one tells its number, it has no place.
    interrupted: bool,
}

impl AddressList {
    /// Addresses so far.
    pub fn len(&self) -> usize {
        self.parsed.len()
    }

    /// An addition could not be read.
    pub fn interrupt(&mut self) {
        self.interrupted = true;
    }

    /// Whether addresses may be missing.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    /// Adds what follows, unless it is not known what it follows.
    pub fn extend(&mut self, texts: &StringArray) {
        if !self.interrupted {
            self.parsed.extend((0..texts.len()).map(|at| parse(texts, at)));
        }
    }

    /// Adds what begins with number `first`, whatever of it is known.
    pub fn extend_at(&mut self, first: usize, texts: &StringArray) {
        if first > self.parsed.len() {
            self.interrupted = true;
            self.parsed.resize(first, None);
        }
        for at in 0..texts.len() {
            match self.parsed.get_mut(first + at) {
                Some(known) => *known = known.or_else(|| parse(texts, at)),
                None => self.parsed.push(parse(texts, at)),
            }
        }
    }

    /// The whole list.
    pub fn replace(&mut self, texts: &StringArray) {
        if texts.len() >= self.parsed.len() {
            self.interrupted = false;
            self.parsed.clear();
            self.parsed.extend((0..texts.len()).map(|at| parse(texts, at)));
        }
    }
}

/// The lists of both columns of addresses.
#[derive(Clone, Debug, Default)]
pub struct AddressLists {
    /// Of the socket's own side.
    pub local: Arc<AddressList>,
    /// Of the other side.
    pub remote: Arc<AddressList>,
}

/// A column of addresses.
pub enum AddressReader {
    /// Since version 2: indexes into the file's list of addresses.
    Listed { keys: NumberReader<u32>, list: Arc<AddressList> },
    /// Version 1: a text in each row. Most rows repeat one of the last two addresses: `latest` are the rows that these
    /// were parsed from.
    Plain { texts: StringArray, latest: [Option<(usize, Addr)>; 2] },
}

impl AddressReader {
    /// `list` has the addresses so far. `None` if the column is of another type.
    pub fn new(column: &ArrayRef, list: Arc<AddressList>) -> Option<Self> {
        if let Some(texts) = column.as_string_opt::<i32>() {
            return Some(Self::Plain { texts: texts.clone(), latest: [None; 2] });
        }
        let array = column.as_primitive_opt::<UInt32Type>()?;
        let keys = NumberReader { values: array.values().clone(), nulls: array.nulls().cloned() };
        Some(Self::Listed { keys, list })
    }

    /// The address of `row`; `None` if it has none.
    #[inline]
    pub fn get(&mut self, row: usize) -> Option<Addr> {
        match self {
            Self::Listed { keys, list } => *list.parsed.get(usize::try_from(keys.get(row)?).ok()?)?,
            Self::Plain { texts, latest } => plain(texts, latest, row),
        }
    }

    /// Which rows have an address; `None` is all.
    pub fn nulls(&self) -> Option<&NullBuffer> {
        match self {
            Self::Listed { keys, .. } => keys.nulls.as_ref(),
            Self::Plain { texts, .. } => texts.nulls(),
        }
    }

    /// The address of a row that has one.
    #[inline]
    pub fn at(&mut self, row: usize) -> Option<Addr> {
        match self {
            Self::Listed { keys, list } => *list.parsed.get(usize::try_from(*keys.values.get(row)?).ok()?)?,
            Self::Plain { texts, latest } => plain(texts, latest, row),
        }
    }

    /// `row` has an address that stood in a part of the file that could not be read.
    pub fn is_lost(&self, row: usize) -> bool {
        let Self::Listed { keys, list } = self else { return false };
        let listed = |key| usize::try_from(key).ok().and_then(|key| *list.parsed.get(key)?);
        list.is_interrupted() && keys.get(row).is_some_and(|key| listed(key).is_none())
    }
}

/// The address in `texts` at `row`.
fn plain(texts: &StringArray, latest: &mut [Option<(usize, Addr)>; 2], row: usize) -> Option<Addr> {
    let text = (row < texts.len() && texts.is_valid(row)).then(|| texts.value(row))?;
    let known = latest.iter().flatten().find(|(known, _)| texts.value(*known) == text);
    if let Some(&(_, addr)) = known {
        return Some(addr);
    }
    let addr = parse(texts, row)?;
    *latest = [Some((row, addr)), latest[0]];
    Some(addr)
}

fn parse(texts: &StringArray, at: usize) -> Option<Addr> {
    let text = (at < texts.len() && texts.is_valid(at)).then(|| texts.value(at))?;
    Some(Addr::from(text.parse::<std::net::IpAddr>().ok()?))
}
