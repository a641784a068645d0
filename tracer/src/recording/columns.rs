//! Columns under construction: rows go in one after the other, a batch comes out.
//!
//! A row touches only the columns that it has a value for; the others catch up with nulls when they are next touched. That is
//! what keeps a row of three dozen columns cheap.
//!
//! Not for: what a row means; `encode` knows that.

use std::sync::Arc;

use arrow_array::types::{ArrowPrimitiveType, UInt8Type};
use arrow_array::{ArrayRef, BooleanArray, DictionaryArray, PrimitiveArray, StringArray};
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer};
use arrow_schema::ArrowError;
use rustc_hash::FxHashMap;

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

/// Short texts that repeat. Plain strings all the same: of the encodings that store each once, no reader of today has all.
pub struct Texts<K> {
    rare: Rare,
    known: FxHashMap<K, Arc<str>>,
    /// The two latest: one side of a connection after the other.
    latest: [Option<(K, Arc<str>)>; 2],
}

impl<K> Default for Texts<K> {
    fn default() -> Self {
        Self { rare: Rare::default(), known: FxHashMap::default(), latest: [None, None] }
    }
}

impl<K: Clone + Eq + std::hash::Hash> Texts<K> {
    /// `text` is asked for what `key` says only when it is new.
    pub fn put(&mut self, row: usize, key: &K, text: impl FnOnce() -> String) {
        let [first, second] = &self.latest;
        if let Some((_, text)) = first.as_ref().filter(|(known, _)| known == key) {
            return self.rare.put(row, text);
        }
        if let Some((_, text)) = second.as_ref().filter(|(known, _)| known == key) {
            return self.rare.put(row, text);
        }
        let text = self.known.entry(key.clone()).or_insert_with(|| text().into());
        self.rare.put(row, text);
        self.latest.swap(0, 1);
        self.latest[0] = Some((key.clone(), text.clone()));
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.rare.bytes()
    }

    pub fn finish(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        // What was known in one batch may be forgotten with it; that bounds the memory.
        self.known.clear();
        self.rare.finish(rows)
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
