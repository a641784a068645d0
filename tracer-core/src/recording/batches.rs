//! Steps as batches of the recording's columns, for exports of other formats.

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, SchemaRef};

use super::encode::Encoder;
use super::{RecordedStep, RecordingHeader, schema};

/// Makes batches of steps.
pub struct BatchBuilder {
    encoder: Encoder,
    schema: SchemaRef,
}

impl BatchBuilder {
    /// Times are by the header's clock.
    pub fn new(header: &RecordingHeader) -> Self {
        Self { encoder: Encoder::new(header.offset()), schema: schema::schema(std::collections::HashMap::new()) }
    }

    pub fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    /// Adds a step and returns the batches that it filled.
    ///
    /// # Errors
    /// None that our columns cause.
    pub fn step(&mut self, step: &RecordedStep) -> Result<Vec<RecordBatch>, ArrowError> {
        let mut batches = Vec::new();
        self.encoder.step(step, |encoder| -> Result<(), ArrowError> {
            batches.push(encoder.batch(&self.schema)?.0);
            Ok(())
        })?;
        Ok(batches)
    }

    /// The rest.
    ///
    /// # Errors
    /// None that our columns cause.
    pub fn flush(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        if self.encoder.rows() == 0 {
            return Ok(None);
        }
        self.encoder.batch(&self.schema).map(|(batch, _)| Some(batch))
    }
}
