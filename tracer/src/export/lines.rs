//! Tables as lines of text: JSON and CSV.
//!
//! Only the column types that our tables have. Not for: speed; a line costs a microsecond.

use std::io::{self, Write};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    ArrowDictionaryKeyType, Float64Type, TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, SchemaRef};
use jiff::Timestamp;
use serde_json::Value;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFormat {
    Json,
    Csv,
}

/// The value in a row; `Null` where there is none.
fn value(array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).into(),
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::Timestamp(..) => {
            let nanos = array.as_primitive::<TimestampNanosecondType>().value(row);
            Timestamp::from_nanosecond(nanos.into()).map_or(Value::Null, |at| format!("{at:.9}").into())
        }
        DataType::Dictionary(keys, _) if **keys == DataType::UInt8 => entry::<UInt8Type>(array, row),
        DataType::Dictionary(..) => entry::<UInt32Type>(array, row),
        other => format!("({other})").into(),
    }
}

/// The value behind a number into a list.
fn entry<K: ArrowDictionaryKeyType>(array: &dyn Array, row: usize) -> Value {
    let array = array.as_dictionary::<K>();
    array.key(row).map_or(Value::Null, |key| value(array.values(), key))
}

/// The first line of CSV.
pub fn header_line(out: &mut impl Write, schema: &SchemaRef) -> io::Result<()> {
    let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    writeln!(out, "{}", names.join(","))
}

/// A line per row.
pub fn lines(out: &mut impl Write, batch: &RecordBatch, format: LineFormat) -> io::Result<()> {
    let schema = batch.schema();
    for row in 0..batch.num_rows() {
        let mut first = true;
        for (field, array) in schema.fields().iter().zip(batch.columns()) {
            let value = value(array, row);
            match format {
                // What does not apply is left out: most columns of most rows.
                LineFormat::Json if value.is_null() => continue,
                LineFormat::Json => {
                    let separator = if first { '{' } else { ',' };
                    if field.name() == "detail"
                        && let Some(text) = value.as_str()
                    {
                        // JSON already.
                        write!(out, "{separator}\"{}\":{text}", field.name())?;
                    } else {
                        write!(out, "{separator}\"{}\":{value}", field.name())?;
                    }
                }
                LineFormat::Csv => {
                    if !first {
                        out.write_all(b",")?;
                    }
                    cell(out, &value)?;
                }
            }
            first = false;
        }
        out.write_all(match format {
            LineFormat::Json if first => b"{}\n",
            LineFormat::Json => b"}\n",
            LineFormat::Csv => b"\n",
        })?;
    }
    Ok(())
}

/// RFC 4180.
fn cell(out: &mut impl Write, value: &Value) -> io::Result<()> {
    match value {
        Value::Null => Ok(()),
        Value::String(text) if text.contains(['"', ',', '\n', '\r']) => {
            write!(out, "\"{}\"", text.replace('"', "\"\""))
        }
        Value::String(text) => out.write_all(text.as_bytes()),
        other => write!(out, "{other}"),
    }
}
