//! Columns of a batch that was read, each value by the number of its row: the counterpart of `column_builders`.
//!
//! Not for: what a row means; `decode` knows that.

use arrow_array::cast::AsArray as _;
use arrow_array::types::UInt32Type;
use arrow_array::{Array as _, ArrayRef, StringArray};
use arrow_buffer::{ArrowNativeType, NullBuffer, ScalarBuffer};

use crate::event::Addr;

/// A column of numbers.
pub struct NumberReader<T: ArrowNativeType> {
    pub values: ScalarBuffer<T>,
    pub nulls: Option<NullBuffer>,
}

impl<T: ArrowNativeType> NumberReader<T> {
    #[inline]
    pub fn get(&self, row: usize) -> Option<T> {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) { None } else { self.values.get(row).copied() }
    }
}

/// A column of words, as indexes into what the words mean.
pub struct EnumReader<W> {
    pub keys: NumberReader<u8>,
    pub meaning: Vec<Option<W>>,
}

impl<W: Copy> EnumReader<W> {
    #[inline]
    pub fn get(&self, row: usize) -> Option<W> {
        *self.meaning.get(usize::from(self.keys.get(row)?))?
    }

    /// The word of a row that has one.
    #[inline]
    pub fn at(&self, row: usize) -> Option<W> {
        *self.meaning.get(usize::from(*self.keys.values.get(row)?))?
    }
}

/// A column of addresses.
pub enum AddressReader {
    /// Since version 2: numbers into a list of the file that may be longer than the batch. `parsed` is that list so far, each address
    /// parsed once for all batches; `None` is what is no address.
    Listed { keys: NumberReader<u32>, parsed: Vec<Option<Addr>> },
    /// Version 1: a text in each row. The same few come again and again: `latest` are the last two rows that were parsed.
    Plain { texts: StringArray, latest: [Option<(usize, Addr)>; 2] },
}

impl AddressReader {
    /// `parsed` is the list as it was for the batch before.
    pub fn new(column: &ArrayRef, mut parsed: Vec<Option<Addr>>) -> Option<Self> {
        if let Some(texts) = column.as_string_opt::<i32>() {
            return Some(Self::Plain { texts: texts.clone(), latest: [None; 2] });
        }
        let array = column.as_dictionary_opt::<UInt32Type>()?;
        let keys = NumberReader { values: array.keys().values().clone(), nulls: array.keys().nulls().cloned() };
        let texts = array.values().as_string_opt::<i32>()?;
        // The list of a file only ever grows: `message` takes nothing else for an addition.
        parsed.extend((parsed.len()..texts.len()).map(|at| parse(texts, at)));
        Some(Self::Listed { keys, parsed })
    }

    #[inline]
    pub fn get(&mut self, row: usize) -> Option<Addr> {
        match self {
            Self::Listed { keys, parsed } => *parsed.get(usize::try_from(keys.get(row)?).ok()?)?,
            Self::Plain { texts, latest } => plain(texts, latest, row),
        }
    }

    /// Where a row has one.
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
            Self::Listed { keys, parsed } => *parsed.get(usize::try_from(*keys.values.get(row)?).ok()?)?,
            Self::Plain { texts, latest } => plain(texts, latest, row),
        }
    }

    /// For the next batch.
    pub fn into_parsed(self) -> Vec<Option<Addr>> {
        match self {
            Self::Listed { parsed, .. } => parsed,
            Self::Plain { .. } => Vec::new(),
        }
    }
}

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
