//! Columns under construction: rows go in one after the other, a batch comes out.
//!
//! A row touches only the columns that it has a value for; the others catch up with nulls when they are next touched. That is
//! what keeps a row of three dozen columns cheap.
//!
//! Not for: what a row means; `encode` knows that.

use std::sync::Arc;

use arrow_array::types::{ArrowPrimitiveType, UInt8Type, UInt32Type};
use arrow_array::{Array as _, ArrayRef, BooleanArray, DictionaryArray, PrimitiveArray, StringArray};
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer};
use arrow_schema::ArrowError;
use rustc_hash::FxHashMap;

use super::MAX_ADDRESSES;
use crate::event::Addr;

/// Numbers, null where nothing was put.
pub struct Numbers<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    nulls: NullBufferBuilder,
}

impl<T: ArrowPrimitiveType> Default for Numbers<T> {
    fn default() -> Self {
        Self { values: Vec::new(), nulls: NullBufferBuilder::new(0) }
    }
}

impl<T: ArrowPrimitiveType> Numbers<T> {
    fn pad(&mut self, rows: usize) {
        let missing = rows.saturating_sub(self.values.len());
        if missing > 0 {
            self.values.resize(rows, T::default_value());
            self.nulls.append_n_nulls(missing);
        }
    }

    /// The value of row number `row`, which has none yet.
    pub fn put(&mut self, row: usize, value: T::Native) {
        self.pad(row);
        self.values.push(value);
        self.nulls.append_non_null();
    }

    pub fn finish(&mut self, rows: usize) -> PrimitiveArray<T> {
        self.pad(rows);
        let capacity = self.values.len();
        let values = std::mem::replace(&mut self.values, Vec::with_capacity(capacity));
        PrimitiveArray::new(ScalarBuffer::from(values), self.nulls.finish())
    }
}

/// Words of a dictionary that the whole file shares.
pub struct Words {
    keys: Numbers<UInt8Type>,
    words: ArrayRef,
}

impl Words {
    pub fn new(words: impl IntoIterator<Item = &'static str>) -> Self {
        Self { keys: Numbers::default(), words: Arc::new(StringArray::from_iter_values(words)) }
    }

    pub fn put(&mut self, row: usize, index: u8) {
        self.keys.put(row, index);
    }

    pub fn finish(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        // The very same dictionary in every batch: a file may have only one.
        Ok(Arc::new(DictionaryArray::try_new(self.keys.finish(rows), Arc::clone(&self.words))?))
    }
}

/// Yes where it was said, otherwise no.
pub struct Flags(BooleanBufferBuilder);

impl Default for Flags {
    fn default() -> Self {
        Self(BooleanBufferBuilder::new(0))
    }
}

impl Flags {
    pub fn set(&mut self, row: usize) {
        self.pad(row);
        self.0.append(true);
    }

    fn pad(&mut self, rows: usize) {
        self.0.append_n(rows.saturating_sub(self.0.len()), false);
    }

    pub fn finish(&mut self, rows: usize) -> ArrayRef {
        self.pad(rows);
        Arc::new(BooleanArray::new(self.0.finish(), None))
    }
}

/// Addresses: a column of numbers into a list of texts that grows from batch to batch and is one for the whole file.
pub struct Addresses {
    keys: Numbers<UInt32Type>,
    known: FxHashMap<Addr, u32>,
    /// The two latest: one side of a connection after the other.
    latest: [Option<(Addr, u32)>; 2],
    /// The texts in the order of their numbers.
    ends: Vec<i32>,
    bytes: Vec<u8>,
    /// As of the last batch.
    texts: ArrayRef,
}

impl Default for Addresses {
    fn default() -> Self {
        Self {
            keys: Numbers::default(),
            known: FxHashMap::default(),
            latest: [None; 2],
            ends: vec![0],
            bytes: Vec::new(),
            texts: Arc::new(StringArray::new_null(0)),
        }
    }
}

impl Addresses {
    /// False if the list is full and does not have the address: the row is null then.
    pub fn put(&mut self, row: usize, addr: Addr) -> bool {
        let Some(number) = self.number(addr) else { return false };
        self.keys.put(row, number);
        true
    }

    fn number(&mut self, addr: Addr) -> Option<u32> {
        if let Some(&(_, number)) = self.latest.iter().flatten().find(|(known, _)| *known == addr) {
            return Some(number);
        }
        let number = match self.known.get(&addr) {
            Some(&number) => number,
            None => {
                let number = u32::try_from(self.known.len()).ok().filter(|_| !self.is_full())?;
                self.bytes.extend_from_slice(addr.to_string().as_bytes());
                self.ends.push(i32::try_from(self.bytes.len()).ok()?);
                self.known.insert(addr, number);
                number
            }
        };
        self.latest = [Some((addr, number)), self.latest[0]];
        Some(number)
    }

    pub fn is_full(&self) -> bool {
        self.known.len() >= MAX_ADDRESSES
    }

    pub fn finish(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        // The very same list as long as nothing is new: then nobody needs to compare.
        if self.texts.len() < self.known.len() {
            let ends = OffsetBuffer::new(ScalarBuffer::from(self.ends.clone()));
            self.texts = Arc::new(StringArray::try_new(ends, Buffer::from_vec(self.bytes.clone()), None)?);
        }
        Ok(Arc::new(DictionaryArray::try_new(self.keys.finish(rows), Arc::clone(&self.texts))?))
    }
}

/// Texts, null where nothing was put.
pub struct Rare {
    ends: Vec<i32>,
    nulls: NullBufferBuilder,
    bytes: Vec<u8>,
}

impl Default for Rare {
    fn default() -> Self {
        Self { ends: vec![0], nulls: NullBufferBuilder::new(0), bytes: Vec::new() }
    }
}

impl Rare {
    fn pad(&mut self, rows: usize) {
        let missing = (rows + 1).saturating_sub(self.ends.len());
        if missing > 0 {
            self.ends.resize(rows + 1, self.end());
            self.nulls.append_n_nulls(missing);
        }
    }

    fn end(&self) -> i32 {
        i32::try_from(self.bytes.len()).unwrap_or(i32::MAX)
    }

    pub fn put(&mut self, row: usize, text: &str) {
        self.pad(row);
        self.bytes.extend_from_slice(text.as_bytes());
        self.ends.push(self.end());
        self.nulls.append_non_null();
    }

    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn finish(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        self.pad(rows);
        let mut fresh = Vec::with_capacity(self.ends.len());
        fresh.push(0);
        let ends = std::mem::replace(&mut self.ends, fresh);
        let capacity = self.bytes.len();
        let bytes = Buffer::from_vec(std::mem::replace(&mut self.bytes, Vec::with_capacity(capacity)));
        Ok(Arc::new(StringArray::try_new(OffsetBuffer::new(ScalarBuffer::from(ends)), bytes, self.nulls.finish())?))
    }
}
