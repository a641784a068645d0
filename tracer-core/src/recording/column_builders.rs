//! Builders of the columns of a batch.
//!
//! A row touches only the columns that it has a value for: every other column is null, or false, in that row. This
//! keeps a row of two dozen columns cheap.
//!
//! Not for: the meaning of a row, which `encode` knows.

use std::sync::Arc;

use arrow_array::types::{ArrowPrimitiveType, UInt8Type, UInt32Type};
use arrow_array::{Array as _, ArrayRef, BooleanArray, DictionaryArray, PrimitiveArray, StringArray};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer};
use arrow_schema::ArrowError;
use rustc_hash::FxHashMap;

use super::{BATCH_ROWS, MAX_ADDRESSES};
use crate::event::Addr;

/// One bit for each row that a batch may have, the least significant bit of a byte first.
struct Bits {
    bytes: Vec<u8>,
    set: usize,
}

impl Default for Bits {
    fn default() -> Self {
        Self { bytes: vec![0; BATCH_ROWS.div_ceil(8)], set: 0 }
    }
}

impl Bits {
    /// Sets the bit of `row`, which must not be set yet.
    fn set(&mut self, row: usize) {
        if let Some(byte) = self.bytes.get_mut(row / 8) {
            *byte |= 1 << (row % 8);
            self.set += 1;
        }
    }

    /// Returns the first `rows` bits and clears all.
    fn finish(&mut self, rows: usize) -> BooleanBuffer {
        self.set = 0;
        BooleanBuffer::new(Buffer::from_vec(take_first(&mut self.bytes, rows.div_ceil(8))), 0, rows)
    }
}

/// Returns a copy of the first `count` values and sets these to zero.
fn take_first<T: Copy + Default>(values: &mut [T], count: usize) -> Vec<T> {
    let used = values.get_mut(..count).unwrap_or_default();
    let taken = used.to_vec();
    used.fill(T::default());
    taken
}

/// A column of numbers; rows without a value are null.
pub struct NumberBuilder<T: ArrowPrimitiveType> {
    /// One for each row that a batch may have.
    values: Vec<T::Native>,
    present: Bits,
}

impl<T: ArrowPrimitiveType> Default for NumberBuilder<T> {
    fn default() -> Self {
        Self { values: vec![T::default_value(); BATCH_ROWS], present: Bits::default() }
    }
}

impl<T: ArrowPrimitiveType> NumberBuilder<T> {
    /// Sets the value of `row`, which must have none yet.
    pub fn put(&mut self, row: usize, value: T::Native) {
        if let Some(slot) = self.values.get_mut(row) {
            *slot = value;
            self.present.set(row);
        }
    }

    /// The column of a batch of `rows` rows. The builder is empty afterwards.
    pub fn finish(&mut self, rows: usize) -> PrimitiveArray<T> {
        if self.present.set == 0 {
            return PrimitiveArray::new_null(rows);
        }
        let some_are_null = self.present.set < rows;
        let present = self.present.finish(rows);
        let values = ScalarBuffer::from(take_first(&mut self.values, rows));
        PrimitiveArray::new(values, some_are_null.then(|| NullBuffer::new(present)))
    }
}

/// A column of names out of a fixed dictionary, which is one for the whole file.
pub struct EnumBuilder {
    keys: NumberBuilder<UInt8Type>,
    names: ArrayRef,
}

impl EnumBuilder {
    /// Of a column with these names.
    pub fn new(names: impl IntoIterator<Item = &'static str>) -> Self {
        Self { keys: NumberBuilder::default(), names: Arc::new(StringArray::from_iter_values(names)) }
    }

    /// Sets `row`, which must have no value yet, to the name number `index`.
    pub fn put(&mut self, row: usize, index: u8) {
        self.keys.put(row, index);
    }

    /// The column of a batch of `rows` rows. The builder is empty afterwards.
    ///
    /// # Errors
    /// [`ArrowError::InvalidArgumentError`] if a key lies outside of the dictionary, which no caller here causes.
    pub fn finish(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        // The same dictionary in every batch: a file may have only one per column.
        Ok(Arc::new(DictionaryArray::try_new(self.keys.finish(rows), Arc::clone(&self.names))?))
    }
}

/// A column of booleans; rows that were not set are false.
#[derive(Default)]
pub struct FlagBuilder(Bits);

impl FlagBuilder {
    /// Sets `row` to true.
    pub fn set(&mut self, row: usize) {
        self.0.set(row);
    }

    /// The column of a batch of `rows` rows. The builder is empty afterwards.
    pub fn finish(&mut self, rows: usize) -> ArrayRef {
        Arc::new(BooleanArray::new(self.0.finish(rows), None))
    }
}

/// A column of answers, yes or no; rows without one are null.
#[derive(Default)]
pub struct AnswerBuilder {
    yes: Bits,
    present: Bits,
}

impl AnswerBuilder {
    /// Sets the answer of `row`, which must have none yet. `None` leaves the row null.
    pub fn put(&mut self, row: usize, answer: Option<bool>) {
        if answer.is_some() {
            self.present.set(row);
        }
        if answer == Some(true) {
            self.yes.set(row);
        }
    }

    /// The column of a batch of `rows` rows. The builder is empty afterwards.
    pub fn finish(&mut self, rows: usize) -> ArrayRef {
        if self.present.set == 0 {
            return Arc::new(BooleanArray::new_null(rows));
        }
        let present = NullBuffer::new(self.present.finish(rows));
        Arc::new(BooleanArray::new(self.yes.finish(rows), Some(present)))
    }
}

/// A column of addresses: indexes into a list of texts, which is one for the whole file and grows from batch to batch.
pub struct AddressBuilder {
    keys: NumberBuilder<UInt32Type>,
    known: FxHashMap<Addr, u32>,
    /// The latest address of each last byte. Most rows find their address here and need no look-up in `known`.
    latest: Vec<Option<(Addr, u32)>>,
    /// The texts, one after the other in the order of their indexes, and where each ends.
    ends: Vec<i32>,
    bytes: Vec<u8>,
    /// The list as of the last batch.
    texts: ArrayRef,
}

impl Default for AddressBuilder {
    fn default() -> Self {
        Self {
            keys: NumberBuilder::default(),
            known: FxHashMap::default(),
            latest: vec![None; 1 << u8::BITS],
            ends: vec![0],
            bytes: Vec::new(),
            texts: Arc::new(StringArray::new_null(0)),
        }
    }
}

impl AddressBuilder {
    /// Sets the address of `row`, which must have none yet. False if the list is full and does not hold the address;
    /// the row is null then.
    pub fn put(&mut self, row: usize, addr: Addr) -> bool {
        let Some(index) = self.index_of(addr) else { return false };
        self.keys.put(row, index);
        true
    }

    /// The index of `addr`, which is added if there is room.
    fn index_of(&mut self, addr: Addr) -> Option<u32> {
        let [.., last] = addr.0;
        if let Some(&Some((known, index))) = self.latest.get(usize::from(last))
            && known == addr
        {
            return Some(index);
        }
        let index = match self.known.get(&addr) {
            Some(&index) => index,
            None => {
                let index = u32::try_from(self.known.len()).ok().filter(|_| !self.is_full())?;
                self.bytes.extend_from_slice(addr.to_string().as_bytes());
                self.ends.push(i32::try_from(self.bytes.len()).ok()?);
                self.known.insert(addr, index);
                index
            }
        };
        if let Some(latest) = self.latest.get_mut(usize::from(last)) {
            *latest = Some((addr, index));
        }
        Some(index)
    }

    /// No further address fits into the list.
    pub fn is_full(&self) -> bool {
        self.known.len() >= MAX_ADDRESSES
    }

    /// The column of a batch of `rows` rows. The builder keeps the list and is otherwise empty afterwards.
    ///
    /// # Errors
    /// [`ArrowError::InvalidArgumentError`] if the texts are no valid array, which [`Self::put`] rules out.
    pub fn finish(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        // The same array as long as nothing is new: then the writer need not compare old and new list.
        if self.texts.len() < self.known.len() {
            let ends = OffsetBuffer::new(ScalarBuffer::from(self.ends.clone()));
            self.texts = Arc::new(StringArray::try_new(ends, Buffer::from_vec(self.bytes.clone()), None)?);
        }
        Ok(Arc::new(DictionaryArray::try_new(self.keys.finish(rows), Arc::clone(&self.texts))?))
    }
}

/// A column of texts of which most rows have none; these are null.
pub struct SparseTextBuilder {
    ends: Vec<i32>,
    nulls: NullBufferBuilder,
    bytes: Vec<u8>,
}

impl Default for SparseTextBuilder {
    fn default() -> Self {
        Self { ends: vec![0], nulls: NullBufferBuilder::new(0), bytes: Vec::new() }
    }
}

impl SparseTextBuilder {
    /// Makes the rows from the last one up to `rows`, exclusive, null.
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

    /// Sets the text of `row`. Rows must come in ascending order.
    pub fn put(&mut self, row: usize, text: &str) {
        self.pad(row);
        self.bytes.extend_from_slice(text.as_bytes());
        self.ends.push(self.end());
        self.nulls.append_non_null();
    }

    /// Bytes of all texts so far.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The column of a batch of `rows` rows. The builder is empty afterwards.
    ///
    /// # Errors
    /// [`ArrowError::InvalidArgumentError`] if the texts are no valid array, which [`Self::put`] rules out.
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
