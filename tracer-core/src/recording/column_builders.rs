//! Columns under construction: rows go in one after the other, a batch comes out.
//!
//! A row touches only the columns that it has a value for: places that are not touched are null, or no. That is what keeps a row of
//! two dozen columns cheap.
//!
//! Not for: what a row means; `encode` knows that.

use std::sync::Arc;

use arrow_array::types::{ArrowPrimitiveType, UInt8Type, UInt32Type};
use arrow_array::{Array as _, ArrayRef, BooleanArray, DictionaryArray, PrimitiveArray, StringArray};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer};
use arrow_schema::ArrowError;
use rustc_hash::FxHashMap;

use super::{BATCH_ROWS, MAX_ADDRESSES};
use crate::event::Addr;

/// A bit for each row that a batch may have, in the order of the format: the least significant first.
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
    /// Sets a bit that was not set.
    fn set(&mut self, row: usize) {
        if let Some(byte) = self.bytes.get_mut(row / 8) {
            *byte |= 1 << (row % 8);
            self.set += 1;
        }
    }

    /// The first `rows` bits; none is set afterwards.
    fn finish(&mut self, rows: usize) -> BooleanBuffer {
        self.set = 0;
        BooleanBuffer::new(Buffer::from_vec(taken(&mut self.bytes, rows.div_ceil(8))), 0, rows)
    }
}

/// The first `count` values; nothing but zeros is left.
fn taken<T: Copy + Default>(values: &mut [T], count: usize) -> Vec<T> {
    let used = values.get_mut(..count).unwrap_or_default();
    let taken = used.to_vec();
    used.fill(T::default());
    taken
}

/// NumberBuilder, null where nothing was put.
pub struct NumberBuilder<T: ArrowPrimitiveType> {
    /// As many as a batch may have.
    values: Vec<T::Native>,
    present: Bits,
}

impl<T: ArrowPrimitiveType> Default for NumberBuilder<T> {
    fn default() -> Self {
        Self { values: vec![T::default_value(); BATCH_ROWS], present: Bits::default() }
    }
}

impl<T: ArrowPrimitiveType> NumberBuilder<T> {
    /// The value of row number `row`, which has none yet.
    pub fn put(&mut self, row: usize, value: T::Native) {
        if let Some(place) = self.values.get_mut(row) {
            *place = value;
            self.present.set(row);
        }
    }

    pub fn finish(&mut self, rows: usize) -> PrimitiveArray<T> {
        if self.present.set == 0 {
            return PrimitiveArray::new_null(rows);
        }
        let some_are_null = self.present.set < rows;
        let present = self.present.finish(rows);
        let values = ScalarBuffer::from(taken(&mut self.values, rows));
        PrimitiveArray::new(values, some_are_null.then(|| NullBuffer::new(present)))
    }
}

/// EnumBuilder of a dictionary that the whole file shares.
pub struct EnumBuilder {
    keys: NumberBuilder<UInt8Type>,
    words: ArrayRef,
}

impl EnumBuilder {
    pub fn new(words: impl IntoIterator<Item = &'static str>) -> Self {
        Self { keys: NumberBuilder::default(), words: Arc::new(StringArray::from_iter_values(words)) }
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
#[derive(Default)]
pub struct FlagBuilder(Bits);

impl FlagBuilder {
    pub fn set(&mut self, row: usize) {
        self.0.set(row);
    }

    pub fn finish(&mut self, rows: usize) -> ArrayRef {
        Arc::new(BooleanArray::new(self.0.finish(rows), None))
    }
}

/// Addresses: a column of numbers into a list of texts that grows from batch to batch and is one for the whole file.
pub struct AddressBuilder {
    keys: NumberBuilder<UInt32Type>,
    known: FxHashMap<Addr, u32>,
    /// The latest of each last byte: whoever has more peers than this looks further.
    latest: Vec<Option<(Addr, u32)>>,
    /// The texts in the order of their numbers.
    ends: Vec<i32>,
    bytes: Vec<u8>,
    /// As of the last batch.
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
    /// False if the list is full and does not have the address: the row is null then.
    pub fn put(&mut self, row: usize, addr: Addr) -> bool {
        let Some(number) = self.number(addr) else { return false };
        self.keys.put(row, number);
        true
    }

    fn number(&mut self, addr: Addr) -> Option<u32> {
        let [.., last] = addr.0;
        if let Some(&Some((known, number))) = self.latest.get(usize::from(last))
            && known == addr
        {
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
        if let Some(latest) = self.latest.get_mut(usize::from(last)) {
            *latest = Some((addr, number));
        }
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
