//! Builds record batches with a recording's columns, for exports in other formats.

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, SchemaRef};

use super::encode::Encoder;
use super::{RecordingHeader, schema};
use crate::step::TrackerStep;

/// Builds batches of steps.
pub struct BatchBuilder {
    encoder: Encoder,
    schema: SchemaRef,
}

impl BatchBuilder {
    /// Wall times are those of the header's clock.
    pub fn new(header: &RecordingHeader) -> Self {
        Self { encoder: Encoder::new(header.offset()), schema: schema::schema(std::collections::HashMap::new()) }
    }

    /// The schema of all batches.
    pub fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    /// Adds a step and returns the batches that it filled.
    ///
    /// # Errors
    /// [`ArrowError`] if the columns of a batch do not fit the schema, which would be a defect of this module.
    pub fn step(&mut self, step: &TrackerStep) -> Result<Vec<RecordBatch>, ArrowError> {
        let mut batches = Vec::new();
        self.encoder.step(step, |encoder| -> Result<(), ArrowError> {
            batches.push(encoder.batch(&self.schema)?.0);
            Ok(())
        })?;
        Ok(batches)
    }

    /// Returns the rows since the last full batch; `None` if there are none.
    ///
    /// # Errors
    /// [`ArrowError`] if the columns of the batch do not fit the schema, which would be a defect of this module.
    pub fn flush(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        if self.encoder.rows() == 0 {
            return Ok(None);
        }
        self.encoder.batch(&self.schema).map(|(batch, _)| Some(batch))
    }
}
