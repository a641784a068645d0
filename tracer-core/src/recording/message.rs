//! Reads one message of an Arrow stream into arrays.
//!
//! `arrow-ipc` checks that arrays fit each other, but it trusts every length before: it slices where a message points,
//! allocates the size that a buffer claims to unpack to, and panics if a buffer is no whole number of values. So this
//! module compares every pointer and every length with a bound first.
//!
//! Not for: where the bytes come from (`reader`) or what the columns mean (`decode`).

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::{Array as _, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow_buffer::Buffer;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::{RecordBatchDecoder, read_dictionary};
use arrow_ipc::{BodyCompressionMethod, CompressionType, MessageHeader, MetadataVersion};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Schema, SchemaRef};
use thiserror::Error;

use super::column_readers::{AddressList, AddressLists};
use super::schema::{column, grows};
use super::{MAX_ADDRESSES, MAX_ROWS, frame};

/// Bytes of all buffers of a message after unpacking, at most. A full batch takes 12 MiB, one of long command lines 16
/// MiB.
const MAX_UNPACKED: u64 = 128 << 20;
/// Words of a dictionary that does not grow: its indexes have a byte.
const MAX_NAMES: usize = 1 << 8;
/// The length in front of a buffer that is not compressed.
const NOT_COMPRESSED: i64 = -1;
/// Bytes of that length.
const LENGTH: u64 = 8;

/// Why a message cannot be read.
#[derive(Debug, Error)]
pub enum MessageError {
    /// The metadata is no valid flatbuffer.
    #[error("a message is no Arrow message: {0}")]
    Flatbuffer(String),
    /// The message is valid, but none that a recording has at this point.
    #[error("a message says {found} where {expected} was expected")]
    Unexpected { expected: &'static str, found: String },
    /// A number is larger than any writer makes it.
    #[error("{what} of {found} is above the bound of {bound}")]
    Absurd { what: &'static str, found: u64, bound: u64 },
    /// A buffer points outside of the body, or the body has another length than the metadata says.
    #[error("a buffer lies outside of its message")]
    Outside,
    /// The length of a buffer is no multiple of its value's size.
    #[error("a buffer of {found} bytes is no whole number of values of {size} bytes")]
    Torn { found: u64, size: u64 },
    /// `arrow-ipc` refused the message.
    #[error("{0}")]
    Arrow(String),
}

/// The contents of a message.
pub enum MessageContent {
    /// A batch of rows.
    Batch(RecordBatch),
    /// A dictionary or an addition to one, which the following batches use.
    Dictionary,
}

/// The first message of a stream.
pub struct StreamSchema {
    /// The columns and the metadata.
    pub schema: Schema,
    /// The number of each column's dictionary; `None` if it has none.
    dictionaries: Vec<Option<i64>>,
}

/// The schema of a stream's first message.
///
/// # Errors
/// [`MessageError::Flatbuffer`] if `metadata` is no Arrow message, [`MessageError::Unexpected`] if the message is no
/// schema, [`MessageError::Arrow`] if `arrow-ipc` does not know one of its types.
pub fn schema(metadata: &[u8]) -> Result<StreamSchema, MessageError> {
    let message =
        arrow_ipc::root_as_message(metadata).map_err(|error| MessageError::Flatbuffer(format!("{error:?}")))?;
    let unexpected =
        || MessageError::Unexpected { expected: "a schema", found: format!("{:?}", message.header_type()) };
    let written = message.header_as_schema().ok_or_else(unexpected)?;
    let schema = try_fb_to_schema(written).map_err(|error| MessageError::Arrow(error.to_string()))?;
    let fields = written.fields().into_iter().flatten();
    let dictionaries = fields.map(|field| field.dictionary().map(|dictionary| dictionary.id())).collect();
    Ok(StreamSchema { schema, dictionaries })
}

/// Reads messages that follow a schema.
pub struct Messages {
    /// With the indexes of a growing dictionary in place of its words: a batch whose words are missing has its other
    /// columns nevertheless.
    schema: SchemaRef,
    /// Dictionaries that do not grow, by their number.
    names: HashMap<i64, ArrayRef>,
    /// Those that grow, with their number and the name of their column.
    lists: Vec<(i64, String, Arc<AddressList>)>,
}

impl Messages {
    /// Reads messages of a stream that began with this schema.
    pub fn new(written: &StreamSchema) -> Self {
        let mut lists = Vec::new();
        let fields = written.schema.fields().iter().zip(&written.dictionaries).map(|(field, dictionary)| {
            let Some(number) = dictionary.filter(|_| grows(field.data_type())) else { return FieldRef::clone(field) };
            lists.push((number, field.name().clone(), Arc::default()));
            Arc::new(Field::new(field.name(), DataType::UInt32, field.is_nullable()))
        });
        let schema = SchemaRef::new(Schema::new(fields.collect::<Vec<_>>()));
        Self { schema, names: HashMap::new(), lists }
    }

    /// The addresses so far.
    pub fn lists(&self) -> AddressLists {
        let list = |column: &str| {
            let found = self.lists.iter().find(|(_, name, _)| name == column);
            found.map(|(_, _, list)| Arc::clone(list)).unwrap_or_default()
        };
        AddressLists { local: list(column::LOCAL_ADDR), remote: list(column::REMOTE_ADDR) }
    }

    /// A message with addresses may be missing: the numbers of later ones are not known unless they say them.
    pub fn addition_lost(&mut self) {
        for (_, _, list) in &mut self.lists {
            Arc::make_mut(list).interrupt();
        }
    }

    /// Columns that are null in every row are not unpacked: those of rare kinds are so in most batches.
    fn batch(&self, batch: arrow_ipc::RecordBatch<'_>, body: Vec<u8>) -> Result<RecordBatch, ArrowError> {
        let schema = || SchemaRef::clone(&self.schema);
        let held = columns_with_values(&self.schema, &batch);
        let body = Buffer::from_vec(body);
        let decoder = RecordBatchDecoder::try_new(&body, batch, schema(), &self.names, &MetadataVersion::V5)?;
        let read = decoder.with_projection(Some(&held)).read_record_batch()?;
        let rows = read.num_rows();
        let column = |(place, field): (usize, &FieldRef)| {
            let found = held.binary_search(&place).ok().and_then(|at| read.columns().get(at));
            found.map_or_else(|| new_null_array(field.data_type(), rows), ArrayRef::clone)
        };
        let columns = self.schema.fields().iter().enumerate().map(column).collect();
        RecordBatch::try_new_with_options(schema(), columns, &RecordBatchOptions::new().with_row_count(Some(rows)))
    }

    /// Reads one message whose checksum was right. `words` are the numbers of the first word of a dictionary and of the
    /// one behind its last, if the message tells them.
    ///
    /// # Errors
    /// [`MessageError`]: the message is none that a writer of recordings makes.
    pub fn read(
        &mut self,
        metadata: &[u8],
        body: Vec<u8>,
        words: Option<Range<usize>>,
    ) -> Result<MessageContent, MessageError> {
        let message =
            arrow_ipc::root_as_message(metadata).map_err(|error| MessageError::Flatbuffer(format!("{error:?}")))?;
        let arrow = |error: ArrowError| MessageError::Arrow(error.to_string());
        if message.version() != MetadataVersion::V5 {
            let found = format!("metadata version {:?}", message.version());
            return Err(MessageError::Unexpected { expected: "metadata version V5", found });
        }
        if message.bodyLength() != i64::try_from(body.len()).unwrap_or(i64::MAX) {
            return Err(MessageError::Outside);
        }
        if let Some(batch) = message.header_as_record_batch() {
            let mut sizes = Vec::new();
            for field in self.schema.fields() {
                sizes.extend_from_slice(&buffers(field.data_type())?);
            }
            plausible(&batch, &body, &sizes, MAX_ROWS)?;
            return self.batch(batch, body).map(MessageContent::Batch).map_err(arrow);
        }
        if let Some(dictionary) = message.header_as_dictionary_batch() {
            self.dictionary(dictionary, body, words)?;
            return Ok(MessageContent::Dictionary);
        }
        debug_assert_ne!(message.header_type(), MessageHeader::RecordBatch);
        Err(MessageError::Unexpected { expected: "a batch", found: format!("{:?}", message.header_type()) })
    }
}

impl Messages {
    fn dictionary(
        &mut self,
        dictionary: arrow_ipc::DictionaryBatch<'_>,
        body: Vec<u8>,
        words: Option<Range<usize>>,
    ) -> Result<(), MessageError> {
        let arrow = |error: ArrowError| MessageError::Arrow(error.to_string());
        let values = dictionary.data().ok_or(MessageError::Outside)?;
        let number = dictionary.id();
        let list = self.lists.iter_mut().find(|(of, ..)| *of == number).map(|(_, _, list)| list);
        let known = list.as_ref().map_or(0, |list| list.len());
        let room = match (&list, dictionary.isDelta()) {
            (Some(_), true) => MAX_ADDRESSES.saturating_sub(words.as_ref().map_or(known, |words| words.start)),
            (Some(_), false) => MAX_ADDRESSES,
            (None, true) => {
                let found = "an addition to one that does not grow".into();
                return Err(MessageError::Unexpected { expected: "a dictionary", found });
            }
            // Repeated at the end of the stream.
            (None, false) if self.names.contains_key(&number) => return Ok(()),
            (None, false) => MAX_NAMES,
        };
        plausible(&values, &body, &buffers(&DataType::Utf8)?, room)?;
        let of_words = self.schema.fields().iter().all(|field| match field.data_type() {
            DataType::Dictionary(_, words) => **words == DataType::Utf8,
            _ => true,
        });
        if !of_words {
            let found = "others".into();
            return Err(MessageError::Unexpected { expected: "dictionaries of words", found });
        }
        let body = Buffer::from_vec(body);
        let Some(list) = list else {
            return read_dictionary(&body, dictionary, &self.schema, &mut self.names, &MetadataVersion::V5)
                .map_err(arrow);
        };
        let schema = SchemaRef::new(Schema::new(vec![Field::new("words", DataType::Utf8, true)]));
        let decoder = RecordBatchDecoder::try_new(&body, values, schema, &self.names, &MetadataVersion::V5);
        let read = decoder.and_then(RecordBatchDecoder::read_record_batch).map_err(arrow)?;
        let texts = read.column(0).as_string::<i32>();
        let list = Arc::make_mut(list);
        match (words, dictionary.isDelta()) {
            (Some(words), true) if words.len() != texts.len() => {
                let found = format!("{} words", texts.len());
                Err(MessageError::Unexpected { expected: "as many words as the trailer says", found })
            }
            (Some(words), true) => {
                list.extend_at(words.start, texts);
                Ok(())
            }
            (None, true) => {
                list.extend(texts);
                Ok(())
            }
            (_, false) => {
                list.replace(texts);
                Ok(())
            }
        }
    }
}

/// Indexes of the columns that have a value in any row.
fn columns_with_values(schema: &Schema, batch: &arrow_ipc::RecordBatch<'_>) -> Vec<usize> {
    let nodes = batch.nodes().into_iter().flatten().map(Some).chain(std::iter::repeat(None));
    let empty = |(_, (field, node)): &(usize, (&FieldRef, Option<&arrow_ipc::FieldNode>))| {
        // A dictionary column is read even if every row is null: its dictionary is needed.
        !matches!(field.data_type(), DataType::Dictionary(..))
            && node.is_some_and(|node| node.length() == batch.length() && node.null_count() == node.length())
    };
    schema.fields().iter().zip(nodes).enumerate().filter(|column| !empty(column)).map(|(place, _)| place).collect()
}

/// Of each buffer of a column, in the order of the format, the bytes of one value; 1 for bits and text.
fn buffers(column: &DataType) -> Result<Vec<u64>, MessageError> {
    let values = match column {
        DataType::Utf8 | DataType::Binary => vec![4, 1],
        DataType::LargeUtf8 | DataType::LargeBinary => vec![8, 1],
        DataType::Boolean => vec![1],
        DataType::Dictionary(keys, _) => vec![keys.primitive_width().unwrap_or(1) as u64],
        flat => match flat.primitive_width() {
            Some(width) => vec![width as u64],
            None => return Err(MessageError::Unexpected { expected: "flat columns", found: column.to_string() }),
        },
    };
    Ok([vec![1], values].concat())
}

/// Compares every number in a batch of up to `most` rows with its body. `sizes` are the bytes of one value of each
/// buffer.
///
/// # Errors
/// [`MessageError::Absurd`], [`MessageError::Outside`] or [`MessageError::Torn`] at the first number that does not fit;
/// [`MessageError::Unexpected`] at another compression than zstd.
fn plausible(batch: &arrow_ipc::RecordBatch<'_>, body: &[u8], sizes: &[u64], most: usize) -> Result<(), MessageError> {
    let most = most as u64;
    let absurd = |what, found, bound| Err(MessageError::Absurd { what, found, bound });
    let rows = u64::try_from(batch.length()).unwrap_or(u64::MAX);
    if rows > most {
        return absurd("a number of rows", rows, most);
    }
    for node in batch.nodes().into_iter().flatten() {
        let (length, nulls) = (u64::try_from(node.length()), u64::try_from(node.null_count()));
        let length = length.unwrap_or(u64::MAX);
        if length > most {
            return absurd("a number of values", length, most);
        }
        if nulls.unwrap_or(u64::MAX) > length {
            return absurd("a number of nulls", nulls.unwrap_or(u64::MAX), length);
        }
    }
    let codec = batch.compression();
    if let Some(codec) = codec
        && (codec.codec() != CompressionType::ZSTD || codec.method() != BodyCompressionMethod::BUFFER)
    {
        let found = format!("{:?}, {:?}", codec.codec(), codec.method());
        return Err(MessageError::Unexpected { expected: "zstd buffers", found });
    }
    let mut unpacked = 0_u64;
    let sizes = sizes.iter().copied().chain(std::iter::repeat(1));
    for (buffer, size) in batch.buffers().into_iter().flatten().zip(sizes) {
        let (Ok(start), Ok(length)) = (usize::try_from(buffer.offset()), usize::try_from(buffer.length())) else {
            return Err(MessageError::Outside);
        };
        let bytes = start.checked_add(length).and_then(|end| body.get(start..end)).ok_or(MessageError::Outside)?;
        let long = bytes.len() as u64;
        let found = match codec {
            None => long,
            Some(_) if bytes.is_empty() => 0,
            Some(_) => match bytes.first_chunk().map(|word| i64::from_le_bytes(*word)) {
                Some(NOT_COMPRESSED) => long.saturating_sub(LENGTH),
                Some(length) => u64::try_from(length).unwrap_or(u64::MAX),
                None => return Err(MessageError::Outside),
            },
        };
        if found % size != 0 {
            return Err(MessageError::Torn { found, size });
        }
        unpacked = unpacked.saturating_add(found);
    }
    if unpacked > MAX_UNPACKED { absurd("a batch", unpacked, MAX_UNPACKED) } else { Ok(()) }
}

const _: () = assert!((frame::MAX_BODY as u64) < MAX_UNPACKED, "a body that is not compressed must fit");
