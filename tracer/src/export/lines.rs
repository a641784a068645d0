//! Writes tables as lines of text: JSON or CSV.
//!
//! Hand-written, because `detail` holds JSON that goes into JSON lines as it is, and arrow-json would quote it. It
//! knows the column types of our tables only. Not for: speed; a line takes a microsecond.

use std::io::{self, Write};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    ArrowDictionaryKeyType, Float64Type, TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, SchemaRef};
use jiff::Timestamp;
use serde_json::Value;

/// The format of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFormat {
    /// JSON lines: one object a row.
    Json,
    /// CSV (RFC 4180), with a line of column names first.
    Csv,
}

/// The value of a column in a row; `Null` if there is none.
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

/// The value of a dictionary column in a row.
fn entry<K: ArrowDictionaryKeyType>(array: &dyn Array, row: usize) -> Value {
    let array = array.as_dictionary::<K>();
    array.key(row).map_or(Value::Null, |key| value(array.values(), key))
}

/// Writes the first line of CSV: the names of the columns.
///
/// # Errors
/// [`io::Error`] of `out`.
pub fn header_line(out: &mut impl Write, schema: &SchemaRef) -> io::Result<()> {
    let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    writeln!(out, "{}", names.join(","))
}

/// Writes a line per row.
///
/// # Errors
/// [`io::Error`] of `out`.
pub fn lines(out: &mut impl Write, batch: &RecordBatch, format: LineFormat) -> io::Result<()> {
    let schema = batch.schema();
    for row in 0..batch.num_rows() {
        let mut first = true;
        for (field, array) in schema.fields().iter().zip(batch.columns()) {
            let value = value(array, row);
            match format {
                // Null is left out: most columns are null in most rows.
                LineFormat::Json if value.is_null() => continue,
                LineFormat::Json => {
                    let separator = if first { '{' } else { ',' };
                    if field.name() == "detail"
                        && let Some(text) = value.as_str()
                    {
                        // The text is JSON already.
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

/// Writes a value of a CSV line, quoted by the rules of RFC 4180. A text that a spreadsheet would take for a formula gets an apostrophe in
/// front, by which spreadsheets know text: names are chosen by whoever runs a program.
fn cell(out: &mut impl Write, value: &Value) -> io::Result<()> {
    match value {
        Value::Null => Ok(()),
        Value::String(text) if text.starts_with(['=', '+', '-', '@', '\t', '\r']) => {
            write!(out, "\"'{}\"", text.replace('"', "\"\""))
        }
        Value::String(text) if text.contains(['"', ',', '\n', '\r']) => {
            write!(out, "\"{}\"", text.replace('"', "\"\""))
        }
        Value::String(text) => out.write_all(text.as_bytes()),
        other => write!(out, "{other}"),
    }
}
